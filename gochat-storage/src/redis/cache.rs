//! The cache tier that all processes share.
//!
//! ```text
//! {prefix}{key}  string:  version (20 digits) · v · bytes     a copy
//!                         version (20 digits) · r             a refusal of every lower version, for two seconds
//! ```
//!
//! Whether a copy is newer is decided by a script where it lies, so that a slow old writer loses whatever process it is in.
//!
//! An invalidation that does not reach Redis is owed: its keys are misses in this process, and it is repeated until it arrives.
//! Other processes that reach Redis all the same may find the old copy until then, or until its time is over. That is why
//! whatever grants access, and whatever a reader must not miss, is verified by the store.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use gochat_core::{
    async_trait,
    ports::{Cache, CacheKey},
};
use redis::{Value, cmd};
use tokio::time::sleep;

use super::{Redis, from_sortable, millis, scripts, sortable};

/// How long an invalidation refuses older values: longer than any read takes from the store to here.
const REFUSED_FOR: Duration = Duration::from_secs(2);
/// Digits of the version, and the mark behind them.
const VERSION_DIGITS: usize = 20;
const COPY: u8 = b'v';
/// Invalidations that are remembered while Redis is away. What does not fit is bounded by the time that copies live.
const OWED_MAX: usize = 65_536;
/// Invalidations that are repeated in one call, and the pause between two calls.
const OWED_PAGE: usize = 512;
const OWED_EVERY: Duration = Duration::from_millis(250);
/// Lifetimes differ by this many thousandths at most, so that what was kept together does not end together.
const JITTER_PERMILLE: u64 = 200;

/// A [`Cache`] in Redis.
#[derive(Clone)]
pub struct RedisCache {
    redis: Redis,
    owed: Arc<Owed>,
    jitter: RandomState,
}

#[derive(Default)]
struct Owed {
    /// How many there are, for who only wants to know whether there are any.
    count: AtomicUsize,
    keys: Mutex<Debts>,
}

#[derive(Default)]
struct Debts {
    versions: HashMap<CacheKey, i64>,
    settling: bool,
    overflowed: bool,
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache").field("redis", &self.redis).field("owed", &self.owed.count.load(Ordering::Relaxed)).finish()
    }
}

impl RedisCache {
    /// A cache in this Redis, under its prefix.
    pub fn new(redis: Redis) -> Self {
        RedisCache { redis, owed: Arc::default(), jitter: RandomState::new() }
    }

    /// The lifetime of this entry, at most a fifth shorter or longer.
    fn lifetime(&self, ttl: Duration, key: &CacheKey, version: i64) -> u64 {
        let permille = 1000 - JITTER_PERMILLE + self.jitter.hash_one((key, version)) % (2 * JITTER_PERMILLE + 1);
        (u128::from(millis(ttl)) * u128::from(permille) / 1000).clamp(1, u128::from(u32::MAX)) as u64
    }

    /// The entries that did not arrive.
    async fn refuse(&self, entries: &[(CacheKey, i64)]) -> Vec<(CacheKey, i64)> {
        let parts = self.redis.parts(entries.iter().map(|(key, _)| self.redis.key(key)));
        let commands = parts.iter().map(|part| {
            let mut call = scripts::call(&scripts::INVALIDATE, &part.keys);
            call.arg(millis(REFUSED_FOR));
            for (item, place) in &part.items {
                call.arg(*place).arg(sortable(entries[*item].1));
            }
            (part.slot, call)
        });
        let answers = self.redis.run(commands.collect()).await;
        let failed = parts.iter().zip(answers).filter(|(_, answer)| answer.is_err());
        failed.flat_map(|(part, _)| part.items.iter().map(|(item, _)| entries[*item])).collect()
    }

    fn owe(&self, entries: &[(CacheKey, i64)]) {
        let mut debts = self.owed.keys();
        for (key, version) in entries {
            if debts.versions.len() >= OWED_MAX && !debts.versions.contains_key(key) {
                if !debts.overflowed {
                    tracing::warn!("more invalidations wait for redis than are remembered; old copies may be found until their time is over");
                    debts.overflowed = true;
                }
                continue;
            }
            let owed = debts.versions.entry(*key).or_insert(*version);
            *owed = (*owed).max(*version);
        }
        self.owed.count.store(debts.versions.len(), Ordering::Release);
        if !debts.settling {
            debts.settling = true;
            tokio::spawn(self.clone().settle());
        }
    }

    /// Repeats what is owed until nothing is.
    async fn settle(self) {
        loop {
            sleep(OWED_EVERY).await;
            let page: Vec<(CacheKey, i64)> = self.owed.keys().versions.iter().take(OWED_PAGE).map(|(key, version)| (*key, *version)).collect();
            let failed = self.refuse(&page).await;
            let mut debts = self.owed.keys();
            for (key, version) in page.iter().filter(|entry| !failed.contains(entry)) {
                if debts.versions.get(key) == Some(version) {
                    debts.versions.remove(key);
                }
            }
            self.owed.count.store(debts.versions.len(), Ordering::Release);
            if debts.versions.is_empty() {
                debts.settling = false;
                debts.overflowed = false;
                return;
            }
        }
    }

    /// The version below which this key must not be believed.
    fn owed_of(&self, key: &CacheKey) -> Option<i64> {
        if self.owed.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.owed.keys().versions.get(key).copied()
    }
}

impl Owed {
    fn keys(&self) -> MutexGuard<'_, Debts> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Cache for RedisCache {
    async fn get(&self, keys: &[CacheKey]) -> Vec<Option<(i64, Bytes)>> {
        let parts = self.redis.parts(keys.iter().map(|key| self.redis.key(key)));
        let commands = parts.iter().map(|part| {
            let mut get = cmd("MGET");
            get.arg(&part.keys);
            (part.slot, get)
        });
        let mut found = vec![None; keys.len()];
        for (part, answer) in parts.iter().zip(self.redis.run(commands.collect()).await) {
            let Ok(Value::Array(values)) = answer else { continue };
            let values: Vec<Option<(i64, Bytes)>> = values.into_iter().map(copy).collect();
            for (item, place) in &part.items {
                let value = values.get(place - 1).cloned().flatten();
                found[*item] = value.filter(|(version, _)| self.owed_of(&keys[*item]).is_none_or(|owed| *version >= owed));
            }
        }
        found
    }

    async fn set(&self, entries: &[(CacheKey, i64, Bytes)], ttl: Duration) {
        let parts = self.redis.parts(entries.iter().map(|(key, _, _)| self.redis.key(key)));
        let commands = parts.iter().map(|part| {
            let mut call = scripts::call(&scripts::SET, &part.keys);
            for (item, place) in &part.items {
                let (key, version, bytes) = &entries[*item];
                let mut value = sortable(*version).into_bytes();
                value.push(COPY);
                value.extend_from_slice(bytes);
                call.arg(*place).arg(self.lifetime(ttl, key, *version)).arg(value);
            }
            (part.slot, call)
        });
        // What was not kept is a miss.
        for error in self.redis.run(commands.collect()).await.into_iter().filter_map(Result::err) {
            tracing::debug!(?error, "copies were not kept");
        }
    }

    async fn invalidate(&self, entries: &[(CacheKey, i64)]) {
        let failed = self.refuse(entries).await;
        if !failed.is_empty() {
            self.owe(&failed);
        }
    }
}

fn copy(value: Value) -> Option<(i64, Bytes)> {
    let Value::BulkString(value) = value else { return None };
    if *value.get(VERSION_DIGITS)? != COPY {
        return None;
    }
    let version = from_sortable(&value[..VERSION_DIGITS])?;
    Some((version, Bytes::from(value).slice(VERSION_DIGITS + 1..)))
}
