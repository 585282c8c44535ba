//! How often one address may ask for what needs no token: counted before anything else is done for the request.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use gochat_core::error::{Code, Error, Result};
use tokio::time::Instant;

/// Rates per address of what is open to everybody. An IPv6 address counts as its /64.
#[derive(Clone, Debug)]
pub struct HttpRates {
    /// Accounts made.
    pub register: Rate,
    /// Logins. Failed ones are slowed down by account, too.
    pub login: Rate,
    /// Refreshes.
    pub refresh: Rate,
    /// Addresses that are remembered, for each of these. Beyond it new addresses pass uncounted: what stands behind is bounded
    /// by the queue of the password hashing.
    pub addresses_max: usize,
}

impl Default for HttpRates {
    fn default() -> Self {
        HttpRates {
            register: Rate { per_minute: 60, burst: 120 },
            login: Rate { per_minute: 60, burst: 120 },
            refresh: Rate { per_minute: 120, burst: 240 },
            addresses_max: 65_536,
        }
    }
}

/// So many a minute, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Sustained, 1 or more.
    pub per_minute: u32,
    /// At once, 1 or more.
    pub burst: u32,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `POST /auth/register`.
    Register,
    /// `POST /auth/login`.
    Login,
    /// `POST /auth/refresh`.
    Refresh,
}

/// Time between two looks at a full map for addresses that can be forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Token buckets by address.
#[derive(Debug)]
pub struct Limiter {
    rates: HttpRates,
    doors: [Mutex<Buckets>; 3],
}

/// For each address the time at which its bucket is full again; an address whose bucket is full is as good as unknown.
#[derive(Debug, Default)]
struct Buckets {
    full_at: HashMap<IpAddr, Instant>,
    swept: Option<Instant>,
}

impl Limiter {
    /// Nobody has asked yet.
    pub fn new(rates: HttpRates) -> Self {
        Limiter { rates, doors: Default::default() }
    }

    /// Counts a request; `RATE_LIMITED` with the time to wait if there have been too many.
    pub fn admit(&self, door: Door, address: IpAddr) -> Result<()> {
        let rate = match door {
            Door::Register => self.rates.register,
            Door::Login => self.rates.login,
            Door::Refresh => self.rates.refresh,
        };
        let buckets = &mut *self.doors[door as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let wait = buckets.take(range(address), rate, self.rates.addresses_max, Instant::now());
        wait.map_or(Ok(()), |wait| Err(Error::new(Code::RateLimited, "too many requests from this address").retry_after(wait)))
    }
}

impl Buckets {
    /// Takes one token; answers with the time to wait if there is none.
    fn take(&mut self, address: IpAddr, rate: Rate, addresses_max: usize, now: Instant) -> Option<Duration> {
        let each = Duration::from_secs(60) / rate.per_minute.max(1);
        let full_at = self.full_at.get(&address).map_or(now, |full_at| (*full_at).max(now)) + each;
        let missing = full_at - now;
        let room = each * rate.burst.max(1);
        if missing > room {
            return Some(missing - room);
        }
        if self.full_at.len() >= addresses_max && !self.full_at.contains_key(&address) {
            if self.swept.is_none_or(|swept| now - swept >= SWEEP_EVERY) {
                self.swept = Some(now);
                self.full_at.retain(|_, full_at| *full_at > now);
            }
            if self.full_at.len() >= addresses_max {
                return None;
            }
        }
        self.full_at.insert(address, full_at);
        None
    }
}

/// What counts as one address: an IPv4 address (also a mapped one), or the /64 of an IPv6 address.
fn range(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(addresses_max: usize) -> Limiter {
        let rate = Rate { per_minute: 60, burst: 3 };
        Limiter::new(HttpRates { register: rate, login: rate, refresh: rate, addresses_max })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn after_its_burst_an_address_waits_and_others_do_not() {
        let limiter = limiter(10);
        for _ in 0..3 {
            limiter.admit(Door::Login, address("10.0.0.1")).unwrap();
        }
        let refused = limiter.admit(Door::Login, address("::ffff:10.0.0.1")).unwrap_err();
        assert_eq!((refused.code, refused.retry_after), (Code::RateLimited, Some(Duration::from_secs(1))));
        limiter.admit(Door::Register, address("10.0.0.1")).unwrap();
        limiter.admit(Door::Login, address("10.0.0.2")).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        limiter.admit(Door::Login, address("10.0.0.1")).unwrap();
        assert!(limiter.admit(Door::Login, address("10.0.0.1")).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_counts_as_one_address() {
        let limiter = limiter(10);
        for host in 1..=3 {
            limiter.admit(Door::Refresh, address(&format!("2001:db8::{host}"))).unwrap();
        }
        assert!(limiter.admit(Door::Refresh, address("2001:db8::ffff")).is_err());
        limiter.admit(Door::Refresh, address("2001:db8:0:1::1")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_addresses_are_remembered_than_allowed_and_limited_ones_stay_limited() {
        let limiter = limiter(2);
        for _ in 0..3 {
            limiter.admit(Door::Login, address("10.0.0.1")).unwrap();
        }
        for last in 0..=255 {
            limiter.admit(Door::Login, address(&format!("10.0.1.{last}"))).unwrap();
        }
        assert_eq!(limiter.doors[Door::Login as usize].lock().unwrap().full_at.len(), 2);
        assert!(limiter.admit(Door::Login, address("10.0.0.1")).is_err());
        tokio::time::advance(Duration::from_secs(5)).await;
        limiter.admit(Door::Login, address("10.0.2.1")).unwrap();
        assert_eq!(limiter.doors[Door::Login as usize].lock().unwrap().full_at.len(), 1, "full buckets are forgotten");
    }
}
