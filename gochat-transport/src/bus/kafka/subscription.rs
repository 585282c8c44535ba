//! The way out: a thread per subscription, a lane per partition.
//!
//! ```text
//! queue of a partition (librdkafka) → thread: decode → lane (bounded) → next → batch out → commit: offset stored, records gone
//!                                                                             └ release: the same records again
//! ```
//!
//! A lane keeps its records until they are committed. While it is full, its partition's queue is left alone, so librdkafka stops
//! fetching for it. A record that cannot be decoded stands in its lane until it is at the front and the dead letter topic keeps it.
//!
//! Only the thread talks to the group: it hands partitions over, commits and leaves. It owns the consumer, so nobody else waits for
//! its end.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use gochat_core::{
    error::{Code, Error, Result},
    ports::{Batch, Position, Record, Subscription},
};
use rdkafka::{
    ClientContext, Message, Offset, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, base_consumer::PartitionQueue},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tokio::sync::Notify;

use super::{
    KafkaSettings,
    client::{self, Shared, blocking, millis},
    closed,
    dead_letters::Poison,
    lock,
    producer::{Countdown, Producer},
};

/// The thread looks after its consumer at least this often.
const TICK: Duration = Duration::from_millis(100);
/// Events that are served in one go.
const EVENTS_MAX: usize = 64;

/// What a subscription is to be.
pub(super) struct Plan {
    pub topic: String,
    pub dead_letters: String,
    pub group: String,
    /// A single reader that begins at the end and commits nothing.
    pub from_end: bool,
    pub settings: Arc<KafkaSettings>,
    pub shared: Arc<Shared>,
    pub producer: Arc<Producer>,
}

/// The subscriptions of a bus.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// Until their threads have ended.
    threads: Mutex<Vec<Arc<Lanes>>>,
    ended: Notify,
}

impl Subscriptions {
    /// Joins the group, or takes its place at the end of the topic.
    pub async fn open(self: &Arc<Self>, plan: Plan) -> Result<Arc<dyn Subscription>> {
        // Whoever was dropped a moment ago leaves the group before a successor joins, so that nothing moves twice.
        self.until(plan.settings.request_timeout, |threads| {
            !threads.iter().any(|other| other.plan.group == plan.group && other.plan.topic == plan.topic && other.stop() == Stop::Now)
        })
        .await;
        let timeout = plan.settings.request_timeout;
        let lanes = Arc::new(Lanes::new(plan));
        let consumer = Arc::new(consumer(&lanes)?);
        let _ = consumer.context().me.set(Arc::downgrade(&consumer));
        lock(&lanes.state).consumer = Some(consumer.clone());
        lock(&self.threads).push(lanes.clone());
        let guard = EndOfThread { subscriptions: self.clone(), lanes: lanes.clone() };
        let (own, thread_lanes) = (consumer.clone(), lanes.clone());
        let thread = std::thread::Builder::new().name("kafka-subscription".into());
        let spawned = thread.spawn(move || {
            let guard = guard;
            run(&thread_lanes, own);
            drop(guard);
        });
        spawned.map_err(Error::internal)?;
        let subscription = Arc::new(KafkaSubscription { lanes: lanes.clone() });
        if lanes.plan.from_end {
            let lanes = lanes.clone();
            blocking(move || begin_at_end(&lanes, consumer)).await?;
        } else {
            consumer.subscribe(&[&lanes.plan.topic]).map_err(client::unavailable("kafka: no subscription"))?;
            drop(consumer);
            // Without an answer of the group in time, its partitions come when the brokers are back.
            let _ = tokio::time::timeout(timeout, lanes.until_joined()).await;
        }
        Ok(subscription)
    }

    /// Ends all of them and waits for their threads.
    pub async fn close(&self, timeout: Duration) -> Result<()> {
        for lanes in lock(&self.threads).iter() {
            lanes.end(Stop::AfterWork);
        }
        if self.until(timeout, |threads| threads.is_empty()).await {
            return Ok(());
        }
        Err(Error::new(Code::Unavailable, "kafka did not take the last offsets in time; what they stand for is handed out again"))
    }

    async fn until(&self, timeout: Duration, reached: impl Fn(&[Arc<Lanes>]) -> bool) -> bool {
        let waiting = async {
            loop {
                let mut ended = std::pin::pin!(self.ended.notified());
                ended.as_mut().enable();
                if reached(&lock(&self.threads)) {
                    return;
                }
                ended.await;
            }
        };
        tokio::time::timeout(timeout, waiting).await.is_ok()
    }
}

/// Takes a thread off the list, however it ended.
struct EndOfThread {
    subscriptions: Arc<Subscriptions>,
    lanes: Arc<Lanes>,
}

impl Drop for EndOfThread {
    fn drop(&mut self) {
        lock(&self.subscriptions.threads).retain(|other| !Arc::ptr_eq(other, &self.lanes));
        self.subscriptions.ended.notify_waiters();
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stop {
    #[default]
    No,
    /// The bus is closed: what is out may be settled.
    AfterWork,
    /// The subscriber is gone.
    Now,
}

/// What the thread, the group's callbacks and the subscriber share.
struct Lanes {
    plan: Plan,
    state: Mutex<State>,
    /// A batch was settled, or the end is near.
    settled: Condvar,
    /// There may be a batch.
    ready: Notify,
    joined: AtomicBool,
    has_joined: Notify,
    wake: Wake,
}

#[derive(Default)]
struct State {
    lanes: HashMap<i32, Lane>,
    turn: u64,
    stop: Stop,
    /// While the thread runs.
    consumer: Option<Arc<BaseConsumer<Watch>>>,
}

/// A partition of ours.
#[derive(Default)]
struct Lane {
    slots: VecDeque<Slot>,
    bytes: usize,
    /// The batch that is handed out: how many slots, and the offset behind them.
    out: Option<(usize, i64)>,
    /// Offsets below it were seen already.
    next: i64,
    /// It goes to another member: nothing more is handed out.
    leaving: bool,
    /// It had no room: the thread shall look again.
    full: bool,
    /// When it last handed out something, in turns.
    served: u64,
}

struct Slot {
    next: i64,
    bytes: usize,
    item: Item,
}

enum Item {
    Record(Record),
    Poison(Box<Poison>, Option<Arc<Countdown>>),
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("topic", &self.plan.topic).field("group", &self.plan.group).finish_non_exhaustive()
    }
}

/// Wakes the thread. Called under locks of librdkafka, so it holds its own for a moment only.
#[derive(Default)]
struct Wake {
    woken: Mutex<bool>,
    condition: Condvar,
}

impl Wake {
    fn wake(&self) {
        let mut woken = lock(&self.woken);
        if !*woken {
            *woken = true;
            self.condition.notify_one();
        }
    }

    fn wait(&self, longest: Duration) {
        let woken = lock(&self.woken);
        let waited = self.condition.wait_timeout_while(woken, longest, |woken| !*woken);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

impl Lanes {
    fn new(plan: Plan) -> Self {
        Lanes {
            plan,
            state: Mutex::default(),
            settled: Condvar::new(),
            ready: Notify::new(),
            joined: AtomicBool::new(false),
            has_joined: Notify::new(),
            wake: Wake::default(),
        }
    }

    fn stop(&self) -> Stop {
        lock(&self.state).stop
    }

    fn end(&self, how: Stop) {
        {
            let mut state = lock(&self.state);
            if state.stop != Stop::Now {
                state.stop = how;
            }
        }
        self.settled.notify_all();
        self.ready.notify_waiters();
        self.ready.notify_one();
        self.wake.wake();
    }

    async fn until_joined(&self) {
        loop {
            let mut joined = std::pin::pin!(self.has_joined.notified());
            joined.as_mut().enable();
            if self.joined.load(Ordering::Acquire) {
                return;
            }
            joined.await;
        }
    }

    /// Up to `max` records of the lane that waits longest.
    fn take(&self, max: usize) -> Result<Option<Batch>> {
        let mut state = lock(&self.state);
        if state.stop != Stop::No {
            return Err(closed());
        }
        state.turn += 1;
        let turn = state.turn;
        let mut open = state.lanes.iter_mut().filter(|(_, lane)| lane.is_open());
        let Some(mut chosen) = open.next() else { return Ok(None) };
        let mut more = false;
        for other in open {
            more = true;
            if other.1.served < chosen.1.served {
                chosen = other;
            }
        }
        let (partition, lane) = chosen;
        lane.served = turn;
        let records: Vec<Record> = lane
            .slots
            .iter()
            .take(max.max(1))
            .map_while(|slot| match &slot.item {
                Item::Record(record) => Some(record.clone()),
                Item::Poison(..) => None,
            })
            .collect();
        let next = lane.slots[records.len() - 1].next;
        lane.out = Some((records.len(), next));
        let position = Position { partition: partition.unsigned_abs(), next: next.unsigned_abs() };
        drop(state);
        if more {
            self.ready.notify_one();
        }
        Ok(Some(Batch { position, records }))
    }

    /// Ends what is handed out at this position; `done`: for good.
    fn settle(&self, position: Position, done: bool) -> Result<()> {
        let stale = || Error::new(Code::InvalidRequest, "the batch is not handed out to this subscriber any more");
        let partition = i32::try_from(position.partition).map_err(|_| stale())?;
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let lane = state.lanes.get_mut(&partition).ok_or_else(stale)?;
        let Some((count, next)) = lane.out.filter(|(_, next)| next.unsigned_abs() == position.next) else { return Err(stale()) };
        if done {
            // Under the lock, so that a later batch of the partition cannot store before this one.
            self.store(state.consumer.as_ref(), partition, next).map_err(|error| stale().with_source(error))?;
            lane.bytes -= lane.slots.drain(..count).map(|slot| slot.bytes).sum::<usize>();
            self.plan.shared.committed.fetch_add(count as u64, Ordering::Relaxed);
        }
        lane.out = None;
        let open = lane.is_open();
        let wake = done && (std::mem::take(&mut lane.full) || matches!(lane.slots.front(), Some(Slot { item: Item::Poison(..), .. })));
        drop(guard);
        self.settled.notify_all();
        if open {
            self.ready.notify_one();
        }
        if wake {
            self.wake.wake();
        }
        Ok(())
    }

    /// Everything before `next` is done. The consumer commits it with its next round.
    fn store(&self, consumer: Option<&Arc<BaseConsumer<Watch>>>, partition: i32, next: i64) -> KafkaResult<()> {
        if self.plan.from_end {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::with_capacity(1);
        offsets.add_partition_offset(&self.plan.topic, partition, Offset::Offset(next))?;
        consumer.ok_or(KafkaError::Canceled)?.store_offsets(&offsets)
    }

    /// Room of a lane: records and bytes. None: it is not ours.
    fn room(&self, partition: i32) -> Option<(usize, usize)> {
        let settings = &self.plan.settings;
        let mut state = lock(&self.state);
        let lane = state.lanes.get_mut(&partition)?;
        let room = (settings.buffered_records_max.saturating_sub(lane.slots.len()), settings.buffered_bytes_max.saturating_sub(lane.bytes));
        lane.full = room.0 == 0 || room.1 == 0;
        Some(room)
    }

    fn append(&self, partition: i32, slots: Vec<Slot>) {
        let mut state = lock(&self.state);
        let Some(lane) = state.lanes.get_mut(&partition) else { return };
        for slot in slots {
            // A fetch that was repeated.
            if slot.next > lane.next {
                lane.next = slot.next;
                lane.bytes += slot.bytes;
                lane.slots.push_back(slot);
            }
        }
        let open = lane.is_open();
        drop(state);
        if open {
            self.ready.notify_one();
        }
    }

    /// Puts aside what cannot be decoded and stands at the front of its lane.
    fn put_aside(self: &Arc<Self>) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let mut open = false;
        for (partition, lane) in &mut state.lanes {
            if lane.out.is_some() {
                continue;
            }
            let mut passed = None;
            while let Some(Slot { item: Item::Poison(_, Some(countdown)), next, .. }) = lane.slots.front()
                && countdown.outcome() == Some(Ok(()))
            {
                passed = Some(*next);
                lane.bytes -= lane.slots.pop_front().map_or(0, |slot| slot.bytes);
                self.plan.shared.dead_lettered.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(next) = passed {
                if let Err(error) = self.store(state.consumer.as_ref(), *partition, next) {
                    tracing::debug!(%error, partition, "a dead letter's partition has moved");
                }
                open |= lane.is_open();
            }
            for slot in &mut lane.slots {
                let Item::Poison(poison, countdown) = &mut slot.item else { break };
                // Not sent yet, or in vain.
                if countdown.as_ref().is_none_or(|countdown| matches!(countdown.outcome(), Some(Err(_)))) {
                    let lanes = Arc::downgrade(self);
                    let then = move || lanes.upgrade().iter().for_each(|lanes| lanes.wake.wake());
                    let sent = Countdown::aside(Some(Box::new(then)));
                    match poison.send(&self.plan.producer, &self.plan.dead_letters, sent.clone()) {
                        Ok(()) => *countdown = Some(sent),
                        Err(code) => tracing::debug!(%code, "a dead letter waits"),
                    }
                }
            }
        }
        drop(guard);
        if open {
            self.ready.notify_one();
        }
    }

    /// Lets batches that are out be settled before their partitions go.
    fn hand_over(&self, partitions: &[i32]) {
        let deadline = Instant::now() + self.plan.settings.handover;
        let mut state = lock(&self.state);
        for partition in partitions {
            if let Some(lane) = state.lanes.get_mut(partition) {
                lane.leaving = true;
            }
        }
        while state.stop != Stop::Now && partitions.iter().any(|partition| state.lanes.get(partition).is_some_and(|lane| lane.out.is_some())) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::info!(topic = self.plan.topic, "a partition moves while its batch is worked on: the batch is handed out twice");
                break;
            }
            state = self.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn decode(&self, message: &BorrowedMessage<'_>) -> Slot {
        let payload = message.payload().unwrap_or_default();
        let item = match super::codec::decode(Bytes::copy_from_slice(payload)) {
            Ok(record) => {
                self.plan.shared.consumed.fetch_add(1, Ordering::Relaxed);
                Item::Record(record)
            }
            Err(error) => {
                tracing::warn!(
                    topic = self.plan.topic,
                    partition = message.partition(),
                    offset = message.offset(),
                    ?error,
                    "a record is put to the dead letters"
                );
                Item::Poison(Box::new(Poison::new(message, &error)), None)
            }
        };
        Slot { next: message.offset() + 1, bytes: payload.len() + size_of::<Slot>(), item }
    }
}

impl Lane {
    /// Whether `next` may take from it.
    fn is_open(&self) -> bool {
        self.out.is_none() && !self.leaving && matches!(self.slots.front(), Some(Slot { item: Item::Record(_), .. }))
    }
}

/// The consumer's callbacks, all on the subscription's thread.
struct Watch {
    lanes: Arc<Lanes>,
    me: OnceLock<Weak<BaseConsumer<Watch>>>,
    queues: Mutex<HashMap<i32, PartitionQueue<Watch>>>,
}

impl Watch {
    /// A queue and a lane for each of these partitions. Before they are assigned, so that no record goes elsewhere.
    fn gain(&self, partitions: &[i32]) {
        let Some(consumer) = self.me.get().and_then(Weak::upgrade) else { return };
        for &partition in partitions {
            lock(&self.lanes.state).lanes.insert(partition, Lane::default());
            let Some(mut queue) = consumer.split_partition_queue(&self.lanes.plan.topic, partition) else {
                // Its records come with the events then, without a bound of their own.
                tracing::error!(topic = self.lanes.plan.topic, partition, "no queue for the partition");
                continue;
            };
            let lanes = Arc::downgrade(&self.lanes);
            queue.set_nonempty_callback(move || lanes.upgrade().iter().for_each(|lanes| lanes.wake.wake()));
            lock(&self.queues).insert(partition, queue);
        }
        self.lanes.wake.wake();
    }

    fn lose(&self, partitions: &[i32]) {
        let mut state = lock(&self.lanes.state);
        for partition in partitions {
            state.lanes.remove(partition);
        }
        drop(state);
        for partition in partitions {
            let queue = lock(&self.queues).remove(partition);
            drop(queue);
            self.lanes.plan.shared.note_lag(&self.lanes.plan.topic, *partition, None);
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|element| element.partition()).collect()
}

impl ClientContext for Watch {
    fn log(&self, _: RDKafkaLogLevel, fac: &str, line: &str) {
        client::log(fac, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::error(&self.lanes.plan.shared, &error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.lanes.plan.topic) else { return };
        let state = lock(&self.lanes.state);
        for (partition, known) in &topic.partitions {
            // Less than nothing: not known yet.
            if known.consumer_lag >= 0 && state.lanes.contains_key(partition) {
                self.lanes.plan.shared.note_lag(&topic.topic, *partition, Some(known.consumer_lag));
            }
        }
    }
}

impl ConsumerContext for Watch {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, change: &Rebalance<'_>) {
        match change {
            Rebalance::Assign(list) => self.gain(&partitions(list)),
            Rebalance::Revoke(list) => {
                let list = partitions(list);
                // What was lost is somebody else's already: nothing can be settled any more.
                if !consumer.assignment_lost() {
                    self.lanes.hand_over(&list);
                }
                self.lose(&list);
            }
            Rebalance::Error(error) => tracing::warn!(%error, "kafka: a rebalance failed"),
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, change: &Rebalance<'_>) {
        if matches!(change, Rebalance::Assign(_)) {
            self.lanes.joined.store(true, Ordering::Release);
            self.lanes.has_joined.notify_waiters();
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        match result {
            Ok(()) => self.lanes.plan.shared.up(),
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) => {}
            // The next round commits it, or whoever has the partition then works on it again.
            Err(error) => tracing::debug!(%error, topic = self.lanes.plan.topic, "offsets were not committed"),
        }
    }
}

fn consumer(lanes: &Arc<Lanes>) -> Result<BaseConsumer<Watch>> {
    let settings = &lanes.plan.settings;
    let heartbeat = (settings.session_timeout / 6).clamp(Duration::from_millis(100), Duration::from_secs(1));
    let mut config = client::config(settings);
    config
        .set("group.id", &lanes.plan.group)
        .set("enable.auto.offset.store", "false")
        .set("enable.auto.commit", if lanes.plan.from_end { "false" } else { "true" })
        .set("auto.commit.interval.ms", millis(settings.commit_interval))
        .set("auto.offset.reset", if lanes.plan.from_end { "latest" } else { "earliest" })
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", millis(settings.session_timeout))
        .set("heartbeat.interval.ms", millis(heartbeat))
        // A partition that was just assigned, or had no room, joins the next fetch, and that waits for the running one.
        .set("fetch.wait.max.ms", "100")
        .set("fetch.queue.backoff.ms", "10")
        // Per partition, since every one has its own queue.
        .set("queued.max.messages.kbytes", (settings.buffered_bytes_max / 1024).max(1).to_string())
        .set("queued.min.messages", settings.buffered_records_max.to_string())
        .set("statistics.interval.ms", if lanes.plan.from_end { "0" } else { "2000" });
    let watch = Watch { lanes: lanes.clone(), me: OnceLock::new(), queues: Mutex::default() };
    let mut consumer: BaseConsumer<Watch> =
        config.create_with_context(watch).map_err(|error| Error::new(Code::InvalidField, "kafka: wrong settings").with_source(error))?;
    let weak = Arc::downgrade(lanes);
    consumer.set_nonempty_callback(move || weak.upgrade().iter().for_each(|lanes| lanes.wake.wake()));
    Ok(consumer)
}

/// Finds the end of the only partition and reads from there on.
fn begin_at_end(lanes: &Lanes, consumer: Arc<BaseConsumer<Watch>>) -> Result<()> {
    let (topic, timeout) = (&lanes.plan.topic, lanes.plan.settings.request_timeout);
    let (_, end) = consumer.fetch_watermarks(topic, 0, timeout).map_err(client::unavailable("kafka does not tell the end of the topic"))?;
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, 0, Offset::Offset(end)).map_err(Error::internal)?;
    consumer.context().gain(&[0]);
    consumer.assign(&list).map_err(client::unavailable("kafka: no assignment"))
}

/// The thread: serves events, fills lanes, puts poison aside; at the end commits and leaves.
fn run(lanes: &Arc<Lanes>, consumer: Arc<BaseConsumer<Watch>>) {
    let mut grace = None;
    loop {
        lanes.wake.wait(TICK);
        {
            let state = lock(&lanes.state);
            match state.stop {
                Stop::No => {}
                Stop::Now => break,
                Stop::AfterWork => {
                    let deadline = *grace.get_or_insert_with(|| Instant::now() + lanes.plan.settings.handover);
                    if Instant::now() >= deadline || state.lanes.values().all(|lane| lane.out.is_none()) {
                        break;
                    }
                }
            }
        }
        serve(lanes, &consumer);
        fill(lanes, &consumer);
        lanes.put_aside();
    }
    finish(lanes, consumer);
}

/// Rebalances, errors, statistics.
fn serve(lanes: &Lanes, consumer: &BaseConsumer<Watch>) {
    let mut silent = 0;
    for _ in 0..EVENTS_MAX {
        match consumer.poll(Duration::ZERO) {
            Some(Ok(message)) => lanes.append(message.partition(), vec![lanes.decode(&message)]),
            Some(Err(error)) => note(lanes, &error),
            // Nothing there, or an event that was served.
            None => silent += 1,
        }
        if silent == 4 {
            return;
        }
    }
    lanes.wake.wake();
}

fn fill(lanes: &Lanes, consumer: &BaseConsumer<Watch>) {
    let queues = lock(&consumer.context().queues);
    for (&partition, queue) in &*queues {
        let Some((mut records, mut bytes)) = lanes.room(partition) else { continue };
        let mut slots = Vec::new();
        while records > 0 && bytes > 0 {
            match queue.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    let slot = lanes.decode(&message);
                    (records, bytes) = (records - 1, bytes.saturating_sub(slot.bytes));
                    slots.push(slot);
                }
                Some(Err(error)) => note(lanes, &error),
                None => break,
            }
        }
        if !slots.is_empty() {
            lanes.plan.shared.up();
            lanes.append(partition, slots);
        }
        if records == 0 || bytes == 0 {
            // Marks it as full, unless there is room again by now.
            if lanes.room(partition).is_some_and(|(records, bytes)| records > 0 && bytes > 0) {
                lanes.wake.wake();
            }
        }
    }
}

fn note(lanes: &Lanes, error: &KafkaError) {
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        tracing::error!(%error, topic = lanes.plan.topic, "kafka: the subscription cannot go on");
    } else {
        tracing::debug!(target: "librdkafka", %error, topic = lanes.plan.topic, "consuming");
    }
}

fn finish(lanes: &Lanes, consumer: Arc<BaseConsumer<Watch>>) {
    let (own, dropped) = {
        let mut state = lock(&lanes.state);
        let dropped = std::mem::take(&mut state.lanes);
        (state.consumer.take(), dropped)
    };
    drop(own);
    if !lanes.plan.from_end {
        match consumer.commit_consumer_state(CommitMode::Sync) {
            Err(error) if error.rdkafka_error_code() != Some(RDKafkaErrorCode::NoOffset) => {
                tracing::warn!(%error, topic = lanes.plan.topic, "the last offsets were not committed: what they stand for is handed out again");
            }
            _ => {}
        }
    }
    for partition in dropped.keys() {
        lanes.plan.shared.note_lag(&lanes.plan.topic, *partition, None);
    }
    let queues = std::mem::take(&mut *lock(&consumer.context().queues));
    drop(queues);
    // Leaves the group.
    drop(consumer);
}

#[derive(Debug)]
struct KafkaSubscription {
    lanes: Arc<Lanes>,
}

#[async_trait]
impl Subscription for KafkaSubscription {
    async fn next(&self, max: usize) -> Result<Batch> {
        loop {
            let mut ready = std::pin::pin!(self.lanes.ready.notified());
            ready.as_mut().enable();
            if let Some(batch) = self.lanes.take(max)? {
                return Ok(batch);
            }
            ready.await;
        }
    }

    async fn commit(&self, position: Position) -> Result<()> {
        self.lanes.settle(position, true)
    }

    async fn release(&self, position: Position) -> Result<()> {
        self.lanes.settle(position, false)
    }
}

impl Drop for KafkaSubscription {
    fn drop(&mut self) {
        self.lanes.end(Stop::Now);
    }
}
