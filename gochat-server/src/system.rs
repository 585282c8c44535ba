//! The system's time, randomness and scheduling.

use std::time::SystemTime;

use gochat_core::time::{Clock, IdGenerator, Timestamp};
use rand::RngExt as _;
use uuid::Uuid;

/// The system's time of day.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// UUIDv7 and a cryptographic generator seeded by the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemIds;

impl IdGenerator for SystemIds {
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn random(&self, bytes: &mut [u8]) {
        rand::rng().fill(bytes);
    }
}

/// Lets the calling thread run when no other wants to: hashing a password takes tens of milliseconds of a core, a message a few
/// microseconds. Linux keeps this number for each thread (setpriority(2)); elsewhere, or where it is refused, nothing changes.
pub fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::debug!(%error, "the priority of a thread stays as it is");
    }
}
