//! The bus on Apache Kafka: one topic per kind of record, keyed by conversation, committed offsets of consumer groups.
//!
//! ```text
//! offer, publish → room → librdkafka's queue → broker → delivery reports → room, receipt
//! broker → one queue per partition → thread of the subscription (decodes) → lane → next … commit → stored offset → broker
//!                                                      └ no record → im-dead-letter-topic, then passed over
//! ```
//!
//! Invariants: an offset is stored only for what was committed, without a hole before it; a partition has one batch out at a
//! time; what is accepted is in a bounded room until its delivery report came.
//!
//! | topic | partitions | consumed by |
//! |---|---|---|
//! | `im-upstream-topic`, `im-task-topic` | as in the settings, never changed (a drained stop) | one group each |
//! | `im-downstream-topic-{gateway}` | 1 | its gateway, from the end on, without a group |
//! | `im-dead-letter-topic` | 1 | people |
//!
//! Brokers should not create topics by themselves (`auto.create.topics.enable=false`): a record for a gateway that was removed
//! would bring its topic back.

mod client;
mod dead_letters;
mod producer;
mod subscription;
mod topics;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use gochat_core::{
    error::{Code, Error, Result},
    ports::{Bus, Receipt, Record, Subscription, Topic},
};

pub use self::{
    client::KafkaStatistics,
    dead_letters::DeadLetter,
    topics::{GroupLag, TopicDescription},
};
use self::{client::Shared, producer::Producer, subscription::Subscriptions};
use super::codec;

/// How to use the brokers.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Addresses to begin with: `host:port`, separated by commas.
    pub brokers: String,
    /// Stands before the names of topics and groups, so that several deployments can share brokers. Empty: the names as they are.
    pub prefix: String,
    /// Partitions of the upstream and the task topic. The topics are made with it; later it changes in a drained stop only.
    pub partitions: u32,
    /// Replicas of every topic that is made. With three or more, two must have a record before it counts as kept.
    pub replication: u32,
    /// Records that were accepted and not yet reported as kept, at most: beyond it `offer` refuses and `publish` waits.
    pub records_in_flight_max: usize,
    /// Their bytes at most.
    pub bytes_in_flight_max: usize,
    /// `offer` refuses once nothing was reported as kept for this long although records wait.
    pub queue_age_max: Duration,
    /// Bytes of one record; a larger one is told in parts. Brokers take 1,048,588 bytes, framing included.
    pub record_bytes_max: usize,
    /// A record that is not kept by then has failed. A broker that is killed and started again takes up to 20 s: 60 s or more.
    pub message_timeout: Duration,
    /// Records that a subscription holds per partition.
    pub buffered_records_max: usize,
    /// Their bytes, and those that wait undecoded before them; each may be passed by one fetch (1 MB).
    pub buffered_bytes_max: usize,
    /// A member of a group that is not heard for this long loses its partitions. Brokers take 6 s and more.
    pub session_timeout: Duration,
    /// How often stored offsets are committed.
    pub commit_interval: Duration,
    /// How long a partition that moves to another member waits for the batch that is out: a batch that is settled by then is not
    /// handed out twice.
    pub handover: Duration,
    /// How long administration, `ping` and the end of the bus wait for brokers.
    pub request_timeout: Duration,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        KafkaSettings {
            brokers: "127.0.0.1:9092".into(),
            prefix: String::new(),
            partitions: 12,
            replication: 1,
            records_in_flight_max: 20_000,
            bytes_in_flight_max: 128 * 1024 * 1024,
            queue_age_max: Duration::from_secs(5),
            record_bytes_max: 1_000_000,
            message_timeout: Duration::from_secs(60),
            buffered_records_max: 2_000,
            buffered_bytes_max: 1024 * 1024,
            session_timeout: Duration::from_secs(6),
            commit_interval: Duration::from_millis(250),
            handover: Duration::from_secs(1),
            request_timeout: Duration::from_secs(10),
        }
    }
}

impl KafkaSettings {
    fn check(&self) -> Result<()> {
        let wrong = |what: &'static str| Err(Error::new(Code::InvalidField, what));
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.brokers.trim().is_empty() {
            return wrong("no broker is named");
        }
        if self.prefix.len() > 100 || !self.prefix.chars().all(named) {
            return wrong("the prefix of topics is at most 100 of a-z, A-Z, 0-9, '.', '_' and '-'");
        }
        if self.partitions == 0 || self.partitions > 10_000 || self.replication == 0 || self.replication > 100 {
            return wrong("a topic has 1 to 10,000 partitions and 1 to 100 replicas");
        }
        if self.records_in_flight_max == 0 || self.records_in_flight_max > 10_000_000 {
            return wrong("1 to 10,000,000 records are in flight at most");
        }
        if !(1_000..=codec::RECORD_BYTES_MAX).contains(&self.record_bytes_max) || self.bytes_in_flight_max < 4 * codec::RECORD_BYTES_MAX {
            return wrong("a record has 1,000 to 1,048,576 bytes, and at least 4 MiB are in flight at most");
        }
        if self.buffered_records_max == 0 || self.buffered_bytes_max < 1024 {
            return wrong("a subscription holds at least one record and 1,024 bytes per partition");
        }
        Ok(())
    }
}

/// A [`Bus`] on Apache Kafka. Cheap to clone; [`close`](KafkaBus::close) ends all clones.
#[derive(Clone, Debug)]
pub struct KafkaBus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Arc<KafkaSettings>,
    shared: Arc<Shared>,
    producer: Arc<Producer>,
    subscriptions: Arc<Subscriptions>,
    /// Topics that were there as they should be.
    ensured: Mutex<HashSet<String>>,
    closed: AtomicBool,
}

impl KafkaBus {
    /// Prepares the clients and returns at once, whether brokers answer or not: [`ping`](KafkaBus::ping) tells.
    ///
    /// # Errors
    /// `INVALID_FIELD`: a setting is out of range.
    pub fn connect(settings: KafkaSettings) -> Result<Self> {
        settings.check()?;
        let settings = Arc::new(settings);
        let shared = Arc::new(Shared::new(&settings));
        let producer = Arc::new(Producer::new(&settings, shared.clone())?);
        let inner = Inner { settings, shared, producer, subscriptions: Arc::default(), ensured: Mutex::default(), closed: AtomicBool::new(false) };
        Ok(KafkaBus { inner: Arc::new(inner) })
    }

    /// Whether the brokers answered lately. Asks nobody: what deliveries, fetches and lost connections told last.
    pub fn ready(&self) -> bool {
        self.inner.shared.is_up() && !self.inner.closed.load(Ordering::Acquire)
    }

    /// Asks the brokers for their topics.
    ///
    /// # Errors
    /// `UNAVAILABLE`: none answered within the request timeout.
    pub async fn ping(&self) -> Result<()> {
        let (producer, timeout) = (self.inner.producer.clone(), self.inner.settings.request_timeout);
        client::blocking(move || producer.ping(timeout)).await
    }

    /// What happened so far.
    pub fn statistics(&self) -> KafkaStatistics {
        self.inner.shared.statistics(self.inner.producer.in_flight())
    }

    /// Ends the bus: `next` answers `UNAVAILABLE` at once; batches that are out may be committed for [`KafkaSettings::handover`]
    /// more, then stored offsets are committed and the groups left; what was accepted is delivered. Takes no longer than the
    /// request timeout for either.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the brokers were away, so records or offsets may be lost.
    pub async fn close(&self) -> Result<()> {
        self.inner.closed.store(true, Ordering::Release);
        let timeout = self.inner.settings.request_timeout;
        let left = self.inner.subscriptions.close(self.inner.settings.handover + timeout).await;
        self.inner.producer.refuse();
        let producer = self.inner.producer.clone();
        client::blocking(move || producer.flush(timeout)).await?;
        left
    }

    /// The topic's name on the brokers.
    fn name(&self, topic: &Topic) -> String {
        format!("{}{}", self.inner.settings.prefix, topic.name())
    }

    /// The bytes of records, cut to what a broker takes.
    fn encode(&self, records: &[Record]) -> Result<Vec<producer::Outgoing>> {
        let mut outgoing = Vec::with_capacity(records.len());
        for record in records {
            let key = record.key();
            let parts = codec::encode_within(record, self.inner.settings.record_bytes_max)?;
            outgoing.extend(parts.into_iter().map(|payload| producer::Outgoing { key, payload }));
        }
        Ok(outgoing)
    }

    fn open(&self) -> Result<()> {
        if self.inner.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }
}

#[async_trait]
impl Bus for KafkaBus {
    fn offer(&self, topic: &Topic, records: Vec<Record>) -> Result<()> {
        self.open()?;
        let outgoing = self.encode(&records)?;
        self.inner.producer.offer(topic, &self.name(topic), &outgoing)
    }

    async fn publish(&self, topic: &Topic, records: Vec<Record>) -> Result<Receipt> {
        let outgoing = self.encode(&records)?;
        self.inner.producer.publish(topic, &self.name(topic), &outgoing).await?;
        Ok(Receipt::kept())
    }

    async fn subscribe(&self, topic: &Topic, group: &str) -> Result<Arc<dyn Subscription>> {
        self.open()?;
        self.ensure_topics(&[topic.clone(), Topic::DeadLetter]).await?;
        let group = format!("{}{group}", self.inner.settings.prefix);
        let plan = subscription::Plan {
            topic: self.name(topic),
            dead_letters: self.name(&Topic::DeadLetter),
            group,
            from_end: matches!(topic, Topic::Downstream(_)),
            settings: self.inner.settings.clone(),
            shared: self.inner.shared.clone(),
            producer: self.inner.producer.clone(),
        };
        let subscription = self.inner.subscriptions.open(plan).await?;
        if let Err(error) = self.open() {
            // It closed in between and did not see this one.
            drop(subscription);
            return Err(error);
        }
        Ok(subscription)
    }
}

fn closed() -> Error {
    Error::new(Code::Unavailable, "the bus is closed")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds of the process's monotonic time.
fn monotonic_ms(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
