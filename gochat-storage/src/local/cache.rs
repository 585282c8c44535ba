//! A cache in this process, bounded by bytes.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use gochat_core::{
    async_trait,
    ports::{Cache, CacheKey},
};
use moka::Expiry;

/// Locks between writers of different keys.
const SHARDS: usize = 16;
/// How long an invalidation refuses older values: longer than any read takes from the store to here.
const REFUSED_FOR: Duration = Duration::from_secs(2);
/// Invalidations that one shard remembers. When more come within [`REFUSED_FOR`], the shard takes no value at all for
/// that time: a miss is always right.
const REFUSALS_MAX: usize = 8192;
/// Bytes that an entry costs beside its value.
const ENTRY_BYTES: u32 = 160;

/// A [`Cache`] of at most so many bytes.
pub struct LocalCache {
    values: moka::sync::Cache<CacheKey, Value>,
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

#[derive(Clone)]
struct Value {
    version: i64,
    bytes: Bytes,
    ttl: Duration,
}

/// What was invalidated lately. Guards the order of `set` and `invalidate` of its keys; reads do not come here.
#[derive(Default)]
struct Shard {
    refused: HashMap<CacheKey, (i64, Instant)>,
    closed_until: Option<Instant>,
}

impl LocalCache {
    /// A cache of at most `bytes` for values and their overhead.
    pub fn new(bytes: u64) -> Self {
        let values = moka::sync::Cache::builder()
            .max_capacity(bytes)
            .weigher(|_, value: &Value| u32::try_from(value.bytes.len()).unwrap_or(u32::MAX).saturating_add(ENTRY_BYTES))
            .expire_after(OwnTtl)
            .build();
        LocalCache { values, shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(), hasher: RandomState::new() }
    }

    fn shard(&self, key: &CacheKey) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LocalCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCache").field("entries", &self.values.entry_count()).field("bytes", &self.values.weighted_size()).finish()
    }
}

#[async_trait]
impl Cache for LocalCache {
    async fn get(&self, keys: &[CacheKey]) -> Vec<Option<(i64, Bytes)>> {
        keys.iter().map(|key| self.values.get(key).map(|value| (value.version, value.bytes))).collect()
    }

    async fn set(&self, entries: &[(CacheKey, i64, Bytes)], ttl: Duration) {
        let now = Instant::now();
        for (key, version, bytes) in entries {
            let shard = self.shard(key);
            if shard.refuses(key, *version, now) || self.values.get(key).is_some_and(|present| present.version >= *version) {
                continue;
            }
            self.values.insert(*key, Value { version: *version, bytes: bytes.clone(), ttl });
        }
    }

    async fn invalidate(&self, entries: &[(CacheKey, i64)]) {
        let now = Instant::now();
        for (key, version) in entries {
            let mut shard = self.shard(key);
            shard.refuse(*key, *version, now);
            if self.values.get(key).is_some_and(|present| present.version < *version) {
                self.values.invalidate(key);
            }
        }
    }
}

impl Shard {
    fn refuses(&self, key: &CacheKey, version: i64, now: Instant) -> bool {
        self.closed_until.is_some_and(|until| now < until) || self.refused.get(key).is_some_and(|(below, until)| version < *below && now < *until)
    }

    fn refuse(&mut self, key: CacheKey, version: i64, now: Instant) {
        if self.refused.len() >= REFUSALS_MAX {
            self.refused.retain(|_, (_, until)| now < *until);
        }
        if self.refused.len() >= REFUSALS_MAX {
            self.refused.clear();
            self.closed_until = Some(now + REFUSED_FOR);
        }
        let refusal = self.refused.entry(key).or_insert((version, now));
        *refusal = (refusal.0.max(version), now + REFUSED_FOR);
    }
}

/// Each value lives as long as its writer said.
struct OwnTtl;

impl Expiry<CacheKey, Value> for OwnTtl {
    fn expire_after_create(&self, _: &CacheKey, value: &Value, _: Instant) -> Option<Duration> {
        Some(value.ttl)
    }

    fn expire_after_update(&self, _: &CacheKey, value: &Value, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(value.ttl)
    }
}

#[cfg(test)]
mod tests {
    use gochat_core::ids::UserId;

    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn key(n: u8) -> CacheKey {
        CacheKey::User(UserId::from_bytes([n; 16]))
    }

    async fn version(cache: &LocalCache, key: CacheKey) -> Option<i64> {
        cache.get(&[key]).await[0].as_ref().map(|(version, _)| *version)
    }

    #[tokio::test]
    async fn an_older_value_never_replaces_a_newer_one() {
        let cache = LocalCache::new(1 << 20);
        cache.set(&[(key(1), 5, Bytes::from_static(b"five"))], TTL).await;
        cache.set(&[(key(1), 4, Bytes::from_static(b"four")), (key(1), 5, Bytes::from_static(b"other five"))], TTL).await;
        assert_eq!(cache.get(&[key(1), key(2)]).await, [Some((5, Bytes::from_static(b"five"))), None]);
        cache.set(&[(key(1), 6, Bytes::from_static(b"six"))], TTL).await;
        assert_eq!(version(&cache, key(1)).await, Some(6));
    }

    #[tokio::test]
    async fn an_invalidated_value_does_not_come_back() {
        let cache = LocalCache::new(1 << 20);
        cache.set(&[(key(1), 5, Bytes::new())], TTL).await;
        cache.invalidate(&[(key(1), 6)]).await;
        assert_eq!(version(&cache, key(1)).await, None);
        cache.set(&[(key(1), 5, Bytes::new())], TTL).await;
        assert_eq!(version(&cache, key(1)).await, None, "a slow reader put the old value back");
        cache.set(&[(key(1), 6, Bytes::new())], TTL).await;
        assert_eq!(version(&cache, key(1)).await, Some(6));
        cache.invalidate(&[(key(1), 6)]).await;
        assert_eq!(version(&cache, key(1)).await, Some(6), "the value is not older than the version");
    }

    #[tokio::test]
    async fn more_invalidations_than_are_remembered_close_the_shard_instead_of_forgetting() {
        let cache = LocalCache::new(1 << 20);
        let keys: Vec<CacheKey> = (0..(SHARDS * REFUSALS_MAX * 2) as u128).map(|n| CacheKey::User(UserId::from_bytes(n.to_be_bytes()))).collect();
        cache.invalidate(&keys.iter().map(|key| (*key, 2)).collect::<Vec<_>>()).await;
        cache.set(&keys.iter().map(|key| (*key, 1, Bytes::new())).collect::<Vec<_>>(), TTL).await;
        assert!(cache.get(&keys).await.iter().all(Option::is_none));
    }

    #[tokio::test]
    async fn values_vanish_when_their_time_is_over_or_the_room_is_used_up() {
        let cache = LocalCache::new(10 * 1024);
        cache.set(&[(key(1), 1, Bytes::new())], Duration::from_millis(20)).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert_eq!(version(&cache, key(1)).await, None);
        for n in 0..100 {
            cache.set(&[(key(n), 1, Bytes::from(vec![0; 1024]))], TTL).await;
        }
        cache.values.run_pending_tasks();
        assert!(cache.values.weighted_size() <= 10 * 1024);
    }
}
