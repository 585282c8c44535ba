//! The way in: bounded room, one producer, one countdown per call.
//!
//! ```text
//! offer   → room now or OVERLOADED → send … send
//! publish → waits for room, chunk by chunk → send … send → waits for the last delivery report
//! thread of the producer → delivery report → room given back, countdown
//! ```
//!
//! The room is smaller than librdkafka's own queue, so a batch is never accepted by half.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use gochat_core::{
    error::{Code, Error, Result},
    ids::ConversationId,
    ports::Topic,
};
use rdkafka::{
    ClientConfig, ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::OwnedHeaders,
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::{Notify, Semaphore, TryAcquireError};

use super::{
    KafkaSettings,
    client::{self, Shared},
    closed, lock, monotonic_ms,
};

/// Records beside the room: dead letters and replays, which are few.
const ASIDE: usize = 20_000;
/// What a record takes beside its payload, rounded up.
const FRAME_BYTES: usize = 256;
/// An answer to "how long to wait" while the bus is full.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A record on its way out.
pub(super) struct Outgoing {
    pub key: Option<ConversationId>,
    pub payload: Bytes,
}

/// Counts the delivery reports of one call.
pub(super) struct Countdown {
    left: AtomicUsize,
    failure: Mutex<Option<RDKafkaErrorCode>>,
    /// Whether its records hold room.
    roomy: bool,
    done: Notify,
    then: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Countdown {
    fn new(records: usize, roomy: bool) -> Arc<Self> {
        Arc::new(Countdown { left: AtomicUsize::new(records), failure: Mutex::new(None), roomy, done: Notify::new(), then: None })
    }

    /// For one record beside the room; `then` is called once it is reported.
    pub fn aside(then: Option<Box<dyn Fn() + Send + Sync>>) -> Arc<Self> {
        Arc::new(Countdown { left: AtomicUsize::new(1), failure: Mutex::new(None), roomy: false, done: Notify::new(), then })
    }

    fn reported(&self, records: usize, failure: Option<RDKafkaErrorCode>) {
        if let Some(failure) = failure {
            *lock(&self.failure) = Some(failure);
        }
        if self.left.fetch_sub(records, Ordering::AcqRel) == records {
            self.done.notify_one();
            if let Some(then) = &self.then {
                then();
            }
        }
    }

    /// How it ended, if it did.
    pub fn outcome(&self) -> Option<Result<(), RDKafkaErrorCode>> {
        (self.left.load(Ordering::Acquire) == 0).then(|| lock(&self.failure).map_or(Ok(()), Err))
    }

    async fn wait(&self) -> Result<(), RDKafkaErrorCode> {
        loop {
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            self.done.notified().await;
        }
    }
}

/// What is in flight, bounded in records and in KiB.
struct Room {
    records: Semaphore,
    kib: Semaphore,
    records_max: usize,
    kib_max: usize,
    in_flight: AtomicU64,
    start: Instant,
    /// When the last record was kept, or the first one came into the empty room: milliseconds since `start`.
    moved: AtomicU64,
}

impl Room {
    fn enter(&self, records: usize) {
        if self.in_flight.fetch_add(records as u64, Ordering::Relaxed) == 0 {
            self.moved.store(monotonic_ms(self.start), Ordering::Relaxed);
        }
    }

    fn leave(&self, records: usize, kib: usize) {
        self.in_flight.fetch_sub(records as u64, Ordering::Relaxed);
        self.records.add_permits(records);
        self.kib.add_permits(kib);
    }

    fn stands_still(&self, longest: Duration) -> bool {
        let since = monotonic_ms(self.start).saturating_sub(self.moved.load(Ordering::Relaxed));
        self.in_flight.load(Ordering::Relaxed) > 0 && u128::from(since) > longest.as_millis()
    }

    fn try_take(&self, records: usize, kib: usize) -> Result<()> {
        let full = || Error::new(Code::Overloaded, "the bus is full and accepted nothing").retry_after(RETRY_AFTER);
        let refused = |error| match error {
            TryAcquireError::Closed => closed(),
            TryAcquireError::NoPermits => full(),
        };
        if records > self.records_max || kib > self.kib_max {
            return Err(full());
        }
        let records_taken = self.records.try_acquire_many(records as u32).map_err(refused)?;
        self.kib.try_acquire_many(kib as u32).map_err(refused)?.forget();
        records_taken.forget();
        self.enter(records);
        Ok(())
    }

    /// Waits for room, first come, first served. Cancel-safe.
    async fn take(&self, records: usize, kib: usize) -> Result<()> {
        let records_taken = self.records.acquire_many(records as u32).await.map_err(|_| closed())?;
        self.kib.acquire_many(kib as u32).await.map_err(|_| closed())?.forget();
        records_taken.forget();
        self.enter(records);
        Ok(())
    }
}

fn kib(payload: usize) -> usize {
    (payload + FRAME_BYTES).div_ceil(1024)
}

/// Where delivery reports arrive.
pub(super) struct Reports {
    shared: Arc<Shared>,
    room: Arc<Room>,
}

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, fac: &str, line: &str) {
        client::log(fac, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::error(&self.shared, &error, reason);
    }

    fn stats(&self, _: Statistics) {}
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Countdown>;

    fn delivery(&self, report: &DeliveryResult<'_>, countdown: Arc<Countdown>) {
        let (message, failure) = match report {
            Ok(message) => (message, None),
            Err((error, message)) => (message, Some(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown))),
        };
        match failure {
            None => {
                self.room.moved.store(monotonic_ms(self.room.start), Ordering::Relaxed);
                self.shared.kept();
            }
            Some(code) => failed(&self.shared, 1, code),
        }
        if countdown.roomy {
            self.room.leave(1, kib(message.payload_len()));
        }
        countdown.reported(1, failure);
    }
}

/// Every failure is counted. A topic that is not there is for the caller to judge: it may be a gateway's that was removed.
fn failed(shared: &Shared, records: u64, code: RDKafkaErrorCode) {
    if is_absent(code) {
        shared.failed.fetch_add(records, Ordering::Relaxed);
    } else {
        shared.lost(records, code);
    }
}

/// A topic that is not there, as against brokers that are not. `BrokerDestroy` is what records get that waited in a partition when
/// it went away with its topic.
fn is_absent(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::BrokerDestroy
    )
}

/// The one producer of a bus.
pub(super) struct Producer {
    config: ClientConfig,
    current: RwLock<Arc<Handle>>,
    shared: Arc<Shared>,
    room: Arc<Room>,
    queue_age_max: Duration,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl Producer {
    pub fn new(settings: &KafkaSettings, shared: Arc<Shared>) -> Result<Self> {
        let kib_max = settings.bytes_in_flight_max / 1024;
        let room = Arc::new(Room {
            records: Semaphore::new(settings.records_in_flight_max),
            kib: Semaphore::new(kib_max),
            records_max: settings.records_in_flight_max,
            kib_max,
            in_flight: AtomicU64::new(0),
            start: Instant::now(),
            moved: AtomicU64::new(0),
        });
        let mut config = client::config(settings);
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            // A record waits for nothing on its way (decision 28): batches form while earlier ones are under way.
            .set("linger.ms", "0")
            // One request at a time: what comes while it is under way leaves together in the next one. A request for every record
            // costs the broker five times as much when there are many.
            .set("max.in.flight.requests.per.connection", "1")
            .set("batch.size", "262144")
            // Above what a broker takes, so that the broker's word counts; a dead letter carries headers too.
            .set("message.max.bytes", (1_048_588 + super::dead_letters::HEADER_BYTES_MAX).to_string())
            .set("message.timeout.ms", client::millis(settings.message_timeout))
            .set("queue.buffering.max.messages", (settings.records_in_flight_max + ASIDE).to_string())
            .set("queue.buffering.max.kbytes", (kib_max + 2 * ASIDE).to_string())
            // The partitioner of Kafka's own clients.
            .set("partitioner", "murmur2_random")
            // How long a record for a topic that is not there waits in case it is just being made (30 s by default).
            .set("topic.metadata.propagation.max.ms", "1000");
        let current = create(&config, &shared, &room)?;
        Ok(Producer { config, current: RwLock::new(current), shared, room, queue_age_max: settings.queue_age_max })
    }

    pub fn in_flight(&self) -> u64 {
        self.room.in_flight.load(Ordering::Relaxed)
    }

    fn current(&self) -> Arc<Handle> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All or nothing, now.
    pub fn offer(&self, topic: &Topic, name: &str, records: &[Outgoing]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        if self.room.stands_still(self.queue_age_max) {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Error::new(Code::Overloaded, "the bus stands still and accepted nothing").retry_after(2 * RETRY_AFTER));
        }
        let needed = records.iter().map(|record| kib(record.payload.len())).sum();
        if let Err(refusal) = self.room.try_take(records.len(), needed) {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            return Err(refusal);
        }
        let countdown = Countdown::new(records.len(), true);
        match self.send_all(name, records, &countdown) {
            None => Ok(()),
            Some(failure) => self.judge(topic, records.len(), Err(failure)),
        }
    }

    /// Returns once the brokers keep all of the records.
    pub async fn publish(&self, topic: &Topic, name: &str, records: &[Outgoing]) -> Result<()> {
        if records.is_empty() {
            return if self.room.records.is_closed() { Err(closed()) } else { Ok(()) };
        }
        let countdown = Countdown::new(records.len(), true);
        // Parts that are small beside the room, so that one large publication does not wait for an empty one.
        let (records_max, kib_max) = ((self.room.records_max / 4).max(1), self.room.kib_max / 4);
        let mut rest = records;
        while !rest.is_empty() {
            let (mut count, mut needed) = (0, 0);
            while count < rest.len() && count < records_max {
                let next = kib(rest[count].payload.len());
                if count > 0 && needed + next > kib_max {
                    break;
                }
                (count, needed) = (count + 1, needed + next);
            }
            let (part, behind) = rest.split_at(count);
            self.room.take(count, needed).await?;
            if let Some(failure) = self.send_all(name, part, &countdown) {
                if !behind.is_empty() {
                    countdown.reported(behind.len(), Some(failure));
                }
                break;
            }
            rest = behind;
        }
        let outcome = countdown.wait().await;
        self.judge(topic, records.len(), outcome)
    }

    /// Hands records that hold room to librdkafka; what it does not take is reported as failed.
    fn send_all(&self, name: &str, records: &[Outgoing], countdown: &Arc<Countdown>) -> Option<RDKafkaErrorCode> {
        for (at, record) in records.iter().enumerate() {
            let key = record.key.as_ref().map(ConversationId::as_bytes);
            if let Err(code) = self.send(name, key.map(|key| &key[..]), &record.payload, None, countdown.clone()) {
                let left = &records[at..];
                failed(&self.shared, left.len() as u64, code);
                self.room.leave(left.len(), left.iter().map(|record| kib(record.payload.len())).sum());
                countdown.reported(left.len(), Some(code));
                return Some(code);
            }
        }
        None
    }

    /// One record into librdkafka's queue. A producer that ended itself (a fatal error of its idempotence) is replaced.
    pub fn send(
        &self,
        name: &str,
        key: Option<&[u8]>,
        payload: &[u8],
        headers: Option<OwnedHeaders>,
        countdown: Arc<Countdown>,
    ) -> Result<(), RDKafkaErrorCode> {
        let mut record = BaseRecord::<[u8], [u8], Arc<Countdown>>::with_opaque_to(name, countdown).payload(payload);
        record.key = key;
        record.headers = headers;
        let code = |error: &KafkaError| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let mut handle = self.current();
        if let Err((error, record)) = handle.get().map_err(|error| code(&error))?.send(record) {
            if code(&error) != RDKafkaErrorCode::Fatal {
                return Err(code(&error));
            }
            handle = self.replace(&handle).ok_or(RDKafkaErrorCode::Fatal)?;
            handle.get().map_err(|error| code(&error))?.send(record).map_err(|(error, _)| code(&error))?;
        }
        self.shared.produced.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn replace(&self, broken: &Arc<Handle>) -> Option<Arc<Handle>> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, broken) {
            let cause = broken.get().ok().and_then(|producer| producer.client().fatal_error()).map_or_else(String::new, |(_, cause)| cause);
            tracing::error!(cause, "the producer ended itself; a new one takes its place and what it held has failed");
            match create(&self.config, &self.shared, &self.room) {
                Ok(new) => *current = new,
                Err(error) => {
                    tracing::error!(?error, "no new producer");
                    return None;
                }
            }
        }
        Some(current.clone())
    }

    /// What the outcome means to the caller. A gateway that was removed has no topic: what it was to be told is a hint that nobody
    /// waits for, since pulling is the truth. Brokers that do not answer are another matter.
    fn judge(&self, topic: &Topic, records: usize, outcome: Result<(), RDKafkaErrorCode>) -> Result<()> {
        match outcome {
            Ok(()) => Ok(()),
            Err(code) if is_absent(code) && matches!(topic, Topic::Downstream(_)) => {
                self.shared.hints_lost.fetch_add(records as u64, Ordering::Relaxed);
                tracing::debug!(topic = topic.name(), records, "no such gateway; hints are lost");
                Ok(())
            }
            Err(code) => {
                let what = if is_absent(code) { "the topic does not exist on the brokers" } else { "the bus did not keep the records" };
                Err(Error::new(Code::Unavailable, what).with_source(KafkaError::MessageProduction(code)))
            }
        }
    }

    /// Waits for one record that was sent beside the room.
    pub async fn aside(&self, name: &str, key: Option<&[u8]>, payload: &[u8]) -> Result<()> {
        let countdown = Countdown::aside(None);
        let sent = self.send(name, key, payload, None, countdown.clone());
        let outcome = match sent {
            Ok(()) => countdown.wait().await,
            Err(code) => Err(code),
        };
        outcome.map_err(|code| Error::new(Code::Unavailable, "the bus did not keep the record").with_source(KafkaError::MessageProduction(code)))
    }

    pub fn ping(&self, timeout: Duration) -> Result<()> {
        // All topics: asking for one would make it where brokers create topics by themselves.
        let handle = self.current();
        let answer = handle.get().and_then(|producer| producer.client().fetch_metadata(None, timeout));
        answer.map_err(client::unavailable("kafka does not answer"))?;
        self.shared.up();
        Ok(())
    }

    /// Accepts nothing any more.
    pub fn refuse(&self) {
        self.room.records.close();
    }

    /// Waits until everything accepted is reported.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        let handle = self.current();
        let flushed = handle.get().and_then(|producer| producer.flush(timeout));
        flushed.map_err(client::unavailable("records were still waiting for kafka when the bus ended"))
    }
}

fn create(config: &ClientConfig, shared: &Arc<Shared>, room: &Arc<Room>) -> Result<Arc<Handle>> {
    let reports = Reports { shared: shared.clone(), room: room.clone() };
    let producer = config.create_with_context(reports).map_err(|error| Error::new(Code::InvalidField, "kafka: wrong settings").with_source(error))?;
    Ok(Arc::new(Handle(Some(producer))))
}

/// A producer whose end takes place on a thread of its own: it waits for its polling thread and reports what it still held.
struct Handle(Option<ThreadedProducer<Reports>>);

impl Handle {
    /// There until it is dropped.
    fn get(&self) -> Result<&ThreadedProducer<Reports>, KafkaError> {
        self.0.as_ref().ok_or(KafkaError::Canceled)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let producer = self.0.take();
        if let Err(error) = std::thread::Builder::new().name("kafka-producer-end".into()).spawn(move || drop(producer)) {
            tracing::warn!(%error, "no thread for the end of a producer");
        }
    }
}
