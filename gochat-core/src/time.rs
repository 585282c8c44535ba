//! Time, ids and randomness are passed in, so that whoever embeds or tests GoChat owns them.

use std::{
    fmt,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Milliseconds since the Unix epoch. Shown to people; orders nothing (decision 20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This instant and `by` more.
    #[must_use]
    pub fn plus(self, by: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Whole seconds since the epoch, as in a JWT.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the time of day comes from. Leases and deadlines use tokio's monotonic time instead.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Where ids and secrets come from.
pub trait IdGenerator: fmt::Debug + Send + Sync + 'static {
    /// A new UUIDv7.
    fn uuid(&self) -> Uuid;
    /// Fills `bytes` with unpredictable bytes, fit for secrets.
    fn random(&self, bytes: &mut [u8]);
}

/// A clock that tests move by hand.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        ManualClock(AtomicI64::new(now.0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// Ids that count up from a start: the same in every run. For tests only: its randomness is predictable.
#[derive(Debug, Default)]
pub struct CountingIds(AtomicU64);

impl CountingIds {
    /// Starts at `first`.
    pub fn from(first: u64) -> Self {
        CountingIds(AtomicU64::new(first))
    }
}

impl IdGenerator for CountingIds {
    fn uuid(&self) -> Uuid {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        uuid::Builder::from_unix_timestamp_millis(1_700_000_000_000 + count, &count.to_be_bytes().repeat(2)[..10].try_into().unwrap_or([0; 10]))
            .into_uuid()
    }

    fn random(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let mixed = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *byte = (mixed >> 32) as u8;
        }
    }
}
