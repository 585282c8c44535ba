//! What all clients of librdkafka share: settings, where its log goes, whether brokers are there, and the counters.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use gochat_core::error::{Code, Error, Result};
use rdkafka::{
    ClientConfig, ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{KafkaSettings, lock};

/// What the bus did since it was connected, and what it holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaStatistics {
    /// Records handed to the client.
    pub produced: u64,
    /// Records that the brokers keep.
    pub delivered: u64,
    /// Records that failed: not kept in time, or refused.
    pub failed: u64,
    /// Downstream records for gateways whose topic does not exist (any more): lost hints.
    pub hints_lost: u64,
    /// `offer`s that were refused because the bus was full or stood still.
    pub refused: u64,
    /// Records received and decoded.
    pub consumed: u64,
    /// Records committed by subscribers.
    pub committed: u64,
    /// Records that could not be decoded and were put aside.
    pub dead_lettered: u64,
    /// Records accepted and not yet reported.
    pub in_flight: u64,
    /// Whether the brokers answered lately.
    pub up: bool,
    /// Records behind, per topic and partition that this process consumes; renewed every 2 s.
    pub lag: Vec<(String, i32, i64)>,
}

const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// Counters and the state of the brokers: one per bus.
#[derive(Debug)]
pub(super) struct Shared {
    brokers: String,
    state: AtomicU8,
    /// Records failed since the last one was kept.
    failing: AtomicBool,
    pub produced: AtomicU64,
    pub delivered: AtomicU64,
    pub failed: AtomicU64,
    pub hints_lost: AtomicU64,
    pub refused: AtomicU64,
    pub consumed: AtomicU64,
    pub committed: AtomicU64,
    pub dead_lettered: AtomicU64,
    lag: Mutex<HashMap<(String, i32), AtomicI64>>,
}

impl Shared {
    pub fn new(settings: &KafkaSettings) -> Self {
        Shared {
            brokers: settings.brokers.clone(),
            state: AtomicU8::new(UNKNOWN),
            failing: AtomicBool::new(false),
            produced: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            hints_lost: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            dead_lettered: AtomicU64::new(0),
            lag: Mutex::default(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.state.load(Ordering::Relaxed) == UP
    }

    /// A broker answered.
    pub fn up(&self) {
        if self.state.load(Ordering::Relaxed) != UP && self.state.swap(UP, Ordering::Relaxed) == DOWN {
            tracing::info!(brokers = self.brokers, "kafka answers again");
        }
    }

    /// No broker is connected. Logged once per change.
    pub fn down(&self, reason: &str) {
        if self.state.swap(DOWN, Ordering::Relaxed) != DOWN {
            tracing::warn!(brokers = self.brokers, reason, "kafka does not answer; trying again until it does");
        }
    }

    /// A record is kept.
    pub fn kept(&self) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        if self.failing.load(Ordering::Relaxed) {
            self.failing.store(false, Ordering::Relaxed);
        }
        self.up();
    }

    /// Records failed. Logged once until one is kept again.
    pub fn lost(&self, records: u64, code: RDKafkaErrorCode) {
        self.failed.fetch_add(records, Ordering::Relaxed);
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(%code, "records do not get into kafka");
        }
    }

    pub fn note_lag(&self, topic: &str, partition: i32, lag: Option<i64>) {
        let mut known = lock(&self.lag);
        match lag {
            Some(lag) => known.entry((topic.to_owned(), partition)).or_default().store(lag, Ordering::Relaxed),
            None => drop(known.remove(&(topic.to_owned(), partition))),
        }
    }

    pub fn statistics(&self, in_flight: u64) -> KafkaStatistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut lag: Vec<_> =
            lock(&self.lag).iter().map(|((topic, partition), lag)| (topic.clone(), *partition, lag.load(Ordering::Relaxed))).collect();
        lag.sort();
        KafkaStatistics {
            produced: read(&self.produced),
            delivered: read(&self.delivered),
            failed: read(&self.failed),
            hints_lost: read(&self.hints_lost),
            refused: read(&self.refused),
            consumed: read(&self.consumed),
            committed: read(&self.committed),
            dead_lettered: read(&self.dead_lettered),
            in_flight,
            up: self.is_up(),
            lag,
        }
    }
}

/// Settings of every client.
pub(super) fn config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", settings.brokers.trim())
        .set("client.id", "gochat")
        // The default of 10 s delays the return after an outage by as much.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "300")
        .set("log.connection.close", "false")
        .set("allow.auto.create.topics", "false")
        // A topic that was made after it was looked for in vain is found by then.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// Log lines and errors of librdkafka: every attempt to connect writes some, so they are for debugging; what matters to an operator
/// is the change of state.
pub(super) fn log(fac: &str, line: &str) {
    tracing::debug!(target: "librdkafka", fac, "{line}");
}

/// An error event of a client.
pub(super) fn error(shared: &Shared, error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AllBrokersDown) => shared.down(reason),
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed) => {
            tracing::error!(reason, "kafka refuses this client");
        }
        _ => tracing::debug!(target: "librdkafka", %error, "{reason}"),
    }
}

/// The context of clients that only ask.
#[derive(Debug)]
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, fac: &str, line: &str) {
        log(fac, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }

    fn stats(&self, _: Statistics) {}
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

/// Runs what waits for brokers away from the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}

pub(super) fn unavailable(what: &'static str) -> impl FnOnce(KafkaError) -> Error {
    move |error| Error::new(Code::Unavailable, what).with_source(error)
}

pub(super) fn millis(duration: Duration) -> String {
    duration.as_millis().max(1).to_string()
}
