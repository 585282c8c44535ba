use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::error::{Code, Error, Result};

/// Failures of one account after which its next tries are delayed.
const ACCOUNT_FAILURES_FREE: u32 = 5;
/// Failures of one address range (/24 or /64) after which its next tries are delayed.
const RANGE_FAILURES_FREE: u32 = 50;
/// Longest delay.
const DELAY_MAX: Duration = Duration::from_secs(15 * 60);
/// A failure is forgotten after this time.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// Accounts and ranges that are remembered; the ones whose delay ends first are forgotten first.
const REMEMBERED_MAX: usize = 100_000;

/// Slows down who guesses passwords: after a few failures each next try has to wait twice as long. Counted by account and
/// address range together for accounts, so that a stranger elsewhere cannot lock the owner out, and by range alone.
#[derive(Debug, Default)]
pub struct LoginLimiter {
    failures: Mutex<HashMap<String, Failures>>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl LoginLimiter {
    /// Whether a login may be tried now; `RATE_LIMITED` with the time to wait otherwise.
    pub fn check(&self, username: &str, address: &str) -> Result<()> {
        let failures = self.lock();
        let wait = keys(username, address)
            .iter()
            .filter_map(|(key, free)| failures.get(key).map(|failed| delay(failed.count, *free).saturating_sub(failed.last.elapsed())))
            .max()
            .unwrap_or_default();
        if wait.is_zero() { Ok(()) } else { Err(Error::new(Code::RateLimited, "too many failed logins").retry_after(wait)) }
    }

    /// Counts a failure.
    pub fn failed(&self, username: &str, address: &str) {
        let now = Instant::now();
        let mut failures = self.lock();
        if failures.len() >= REMEMBERED_MAX {
            failures.retain(|_, failed| now.duration_since(failed.last) < FORGET_AFTER / 4);
        }
        if failures.len() >= REMEMBERED_MAX {
            failures.clear();
        }
        for (key, _) in keys(username, address) {
            let failed = failures.entry(key).or_insert(Failures { count: 0, last: now });
            if now.duration_since(failed.last) > FORGET_AFTER {
                failed.count = 0;
            }
            *failed = Failures { count: failed.count.saturating_add(1), last: now };
        }
    }

    /// Forgets the failures of an account at this range.
    pub fn succeeded(&self, username: &str, address: &str) {
        self.lock().remove(&keys(username, address)[0].0);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keys(username: &str, address: &str) -> [(String, u32); 2] {
    let range = range(address);
    [(format!("{username}@{range}"), ACCOUNT_FAILURES_FREE), (range, RANGE_FAILURES_FREE)]
}

/// The /24 or /64 of an address.
fn range(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V4(v4)) => format!("{}.{}.{}", v4.octets()[0], v4.octets()[1], v4.octets()[2]),
        Ok(IpAddr::V6(v6)) => format!("{:x?}", &v6.segments()[..4]),
        Err(_) => "unknown".into(),
    }
}

/// 1, 2, 4, … seconds from the first failure that is not free.
fn delay(count: u32, free: u32) -> Duration {
    match count.checked_sub(free) {
        None => Duration::ZERO,
        Some(over) => Duration::from_secs(1 << over.min(16)).min(DELAY_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_delay_the_next_try_ever_longer_but_not_from_elsewhere() {
        let limiter = LoginLimiter::default();
        for _ in 0..5 {
            limiter.check("ana", "10.0.0.1").unwrap();
            limiter.failed("ana", "10.0.0.1");
        }
        assert_eq!(limiter.check("ana", "10.0.0.9").unwrap_err().code, Code::RateLimited);
        limiter.check("ana", "10.9.0.1").unwrap();
        limiter.check("bo", "10.0.0.1").unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        limiter.check("ana", "10.0.0.1").unwrap();
        limiter.failed("ana", "10.0.0.1");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(limiter.check("ana", "10.0.0.1").is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
        limiter.succeeded("ana", "10.0.0.1");
        limiter.check("ana", "10.0.0.1").unwrap();
    }
}
