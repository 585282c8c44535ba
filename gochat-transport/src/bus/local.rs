//! The bus inside one process: bounded, partitioned by key, with explicit commit.
//!
//! A record stays in its partition until its batch is committed, so what was handed out and not committed is handed out
//! again. The bus keeps nothing beyond the process: a message that was not acked is sent again by its client, and what
//! was stored but not dispatched is found by the sweeper, since a receipt resolves only when the consumer has committed.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use gochat_core::{
    error::{Code, Error, Result},
    ports::{Batch, Bus, Pledge, Position, Receipt, Record, Subscription, Topic},
};
use tokio::sync::Notify;

/// Sizes of the bus.
#[derive(Clone, Debug)]
pub struct LocalBusSettings {
    /// Partitions of the upstream and the task topic: batches that are worked on side by side.
    pub partitions: usize,
    /// Records that one partition of the upstream topic holds; more are refused with `OVERLOADED`.
    pub upstream_records_max: usize,
    /// Records that one partition of any other topic holds; publishers wait for room.
    pub records_max: usize,
}

impl Default for LocalBusSettings {
    fn default() -> Self {
        LocalBusSettings { partitions: 4, upstream_records_max: 4_096, records_max: 1_024 }
    }
}

/// A [`Bus`] in this process. One consumer group per topic, since a committed record is gone. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalBus {
    settings: Arc<LocalBusSettings>,
    topics: Arc<Mutex<HashMap<Topic, Arc<Queue>>>>,
    closed: Arc<AtomicBool>,
}

impl LocalBus {
    /// An empty bus.
    pub fn new(settings: LocalBusSettings) -> Self {
        LocalBus { settings: Arc::new(settings), topics: Arc::default(), closed: Arc::default() }
    }

    /// Ends every subscription: `next` answers `UNAVAILABLE` and nothing more is accepted.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for queue in lock(&self.topics).values() {
            queue.ready.notify_waiters();
            queue.ready.notify_one();
            queue.room.notify_waiters();
        }
    }

    /// Records of a topic that are not committed yet.
    pub fn depth(&self, topic: &Topic) -> usize {
        lock(&self.topics).get(topic).map_or(0, |queue| queue.partitions.iter().map(|partition| lock(partition).records.len()).sum())
    }

    fn queue(&self, topic: &Topic) -> Result<Arc<Queue>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::Unavailable, "the bus is closed"));
        }
        let mut topics = lock(&self.topics);
        if let Some(queue) = topics.get(topic) {
            return Ok(queue.clone());
        }
        let (partitions, room) = match topic {
            Topic::Upstream => (self.settings.partitions, self.settings.upstream_records_max),
            Topic::Task => (self.settings.partitions, self.settings.records_max),
            Topic::Downstream(_) | Topic::DeadLetter => (1, self.settings.records_max),
        };
        let queue = Arc::new(Queue::new(partitions.max(1), room.max(1)));
        topics.insert(topic.clone(), queue.clone());
        Ok(queue)
    }
}

#[async_trait]
impl Bus for LocalBus {
    fn offer(&self, topic: &Topic, records: Vec<Record>) -> Result<()> {
        let queue = self.queue(topic)?;
        // Nearly always the records of one connection belong to one partition or few: they are sorted by partition, and
        // all locks are held at once, in order, so that either all of them are accepted or none.
        let mut wanted = vec![0usize; queue.partitions.len()];
        for record in &records {
            wanted[queue.partition_of(record)] += 1;
        }
        let mut held: Vec<Option<MutexGuard<'_, Partition>>> = Vec::with_capacity(wanted.len());
        for (partition, wanted) in queue.partitions.iter().zip(&wanted) {
            let guard = (*wanted > 0).then(|| lock(partition));
            if guard.as_ref().is_some_and(|guard| guard.records.len() + wanted > queue.room_max) {
                return Err(Error::new(Code::Overloaded, "the bus is full and accepted nothing").retry_after(Duration::from_millis(500)));
            }
            held.push(guard);
        }
        for record in records {
            let partition = queue.partition_of(&record);
            if let Some(guard) = held[partition].as_mut() {
                guard.records.push_back((record, None));
            }
        }
        drop(held);
        queue.ready.notify_one();
        Ok(())
    }

    async fn publish(&self, topic: &Topic, records: Vec<Record>) -> Result<Receipt> {
        if records.is_empty() {
            return Ok(Receipt::kept());
        }
        let (pledge, receipt) = Receipt::pledged();
        let pledge = Arc::new(pledge);
        let mut waiting: VecDeque<Record> = records.into();
        while !waiting.is_empty() {
            let queue = self.queue(topic)?;
            let mut room = std::pin::pin!(queue.room.notified());
            room.as_mut().enable();
            while let Some(record) = waiting.pop_front() {
                let mut partition = lock(&queue.partitions[queue.partition_of(&record)]);
                if partition.records.len() >= queue.room_max {
                    waiting.push_front(record);
                    break;
                }
                partition.records.push_back((record, Some(pledge.clone())));
            }
            queue.ready.notify_one();
            if !waiting.is_empty() {
                room.await;
            }
        }
        Ok(receipt)
    }

    async fn subscribe(&self, topic: &Topic, group: &str) -> Result<Arc<dyn Subscription>> {
        let queue = self.queue(topic)?;
        let mut known = lock(&queue.group);
        match known.as_deref() {
            Some(other) if other != group => {
                return Err(Error::new(Code::InvalidRequest, format!("{} is consumed by the group {other}", topic.name())));
            }
            _ => *known = Some(group.to_owned()),
        }
        drop(known);
        let subscriber = queue.subscribers.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(LocalSubscription { queue, subscriber, closed: self.closed.clone() }))
    }
}

#[derive(Debug)]
struct Queue {
    partitions: Vec<Mutex<Partition>>,
    room_max: usize,
    group: Mutex<Option<String>>,
    subscribers: AtomicU64,
    turn: AtomicUsize,
    ready: Notify,
    room: Notify,
}

#[derive(Debug, Default)]
struct Partition {
    /// What is not committed yet; the last record of a publication to be committed fulfils its pledge.
    records: VecDeque<(Record, Option<Arc<Pledge>>)>,
    /// Offset of the first record.
    base: u64,
    /// Records of the batch that is handed out, and to whom.
    out: Option<(usize, u64)>,
}

impl Queue {
    fn new(partitions: usize, room_max: usize) -> Self {
        Queue {
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            room_max,
            group: Mutex::default(),
            subscribers: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            ready: Notify::new(),
            room: Notify::new(),
        }
    }

    /// The last bytes of a UUID are random in every version that is used.
    fn partition_of(&self, record: &Record) -> usize {
        record.key().map_or(0, |key| {
            let bytes = key.as_bytes();
            usize::from(bytes[15] ^ bytes[9]) % self.partitions.len()
        })
    }

    fn take(&self, max: usize, subscriber: u64) -> Option<Batch> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut batch = None;
        for at in 0..self.partitions.len() {
            let index = (first + at) % self.partitions.len();
            let mut partition = lock(&self.partitions[index]);
            if partition.out.is_some() || partition.records.is_empty() {
                continue;
            }
            if batch.is_some() {
                // There is more for another subscriber.
                self.ready.notify_one();
                break;
            }
            let count = partition.records.len().min(max.max(1));
            partition.out = Some((count, subscriber));
            let position = Position { partition: index as u32, next: partition.base + count as u64 };
            batch = Some(Batch { position, records: partition.records.iter().take(count).map(|(record, _)| record.clone()).collect() });
        }
        batch
    }

    /// Ends what is handed out at this position; `done`: for good.
    fn settle(&self, position: Position, subscriber: u64, done: bool) -> Result<()> {
        let stale = || Error::new(Code::InvalidRequest, "the batch is not handed out to this subscriber any more");
        let mut partition = lock(self.partitions.get(position.partition as usize).ok_or_else(stale)?);
        match partition.out {
            Some((count, owner)) if owner == subscriber && partition.base + count as u64 == position.next => {
                partition.out = None;
                if done {
                    for pledge in partition.records.drain(..count).filter_map(|(_, pledge)| Arc::into_inner(pledge?)) {
                        pledge.fulfil();
                    }
                    partition.base = position.next;
                    self.room.notify_waiters();
                }
                if !partition.records.is_empty() {
                    self.ready.notify_one();
                }
                Ok(())
            }
            _ => Err(stale()),
        }
    }
}

#[derive(Debug)]
struct LocalSubscription {
    queue: Arc<Queue>,
    subscriber: u64,
    closed: Arc<AtomicBool>,
}

#[async_trait]
impl Subscription for LocalSubscription {
    async fn next(&self, max: usize) -> Result<Batch> {
        loop {
            let mut ready = std::pin::pin!(self.queue.ready.notified());
            ready.as_mut().enable();
            if self.closed.load(Ordering::Acquire) {
                return Err(Error::new(Code::Unavailable, "the bus is closed"));
            }
            if let Some(batch) = self.queue.take(max, self.subscriber) {
                return Ok(batch);
            }
            ready.await;
        }
    }

    async fn commit(&self, position: Position) -> Result<()> {
        self.queue.settle(position, self.subscriber, true)
    }

    async fn release(&self, position: Position) -> Result<()> {
        self.queue.settle(position, self.subscriber, false)
    }
}

impl Drop for LocalSubscription {
    fn drop(&mut self) {
        for partition in &self.queue.partitions {
            let mut partition = lock(partition);
            if partition.out.is_some_and(|(_, owner)| owner == self.subscriber) {
                partition.out = None;
            }
        }
        self.queue.ready.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
