//! Two caches, one behind the other: this process's own, and the one that all processes share.
//!
//! ```text
//! get:        local ─► what is missing: one call to remote ─► kept in local for LOCAL_TTL
//! set:        local, remote
//! invalidate: local, remote: what a reader fetched from remote in between is refused by local
//! ```
//!
//! Invariant: what another process has changed is found here no longer than [`LOCAL_TTL`] after its invalidation has answered;
//! what this process has changed not at all.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gochat_core::{
    async_trait,
    ports::{Cache, CacheKey},
};

/// How long a copy in this process is used without asking the remote tier: other processes' invalidations do not come here, so
/// this is how far a copy may lag (I14). What must not lag at all is verified by the store.
pub const LOCAL_TTL: Duration = Duration::from_secs(2);

/// A [`Cache`] of two tiers.
#[derive(Clone, Debug)]
pub struct TieredCache {
    local: Arc<dyn Cache>,
    remote: Arc<dyn Cache>,
}

impl TieredCache {
    /// Puts `local` in front of `remote`.
    pub fn new(local: Arc<dyn Cache>, remote: Arc<dyn Cache>) -> Self {
        TieredCache { local, remote }
    }
}

#[async_trait]
impl Cache for TieredCache {
    async fn get(&self, keys: &[CacheKey]) -> Vec<Option<(i64, Bytes)>> {
        let mut found = self.local.get(keys).await;
        let missing: Vec<usize> = (0..keys.len()).filter(|&index| found[index].is_none()).collect();
        if missing.is_empty() {
            return found;
        }
        let fetched = self.remote.get(&missing.iter().map(|&index| keys[index]).collect::<Vec<_>>()).await;
        let mut fresh = Vec::new();
        for (index, value) in missing.into_iter().zip(fetched) {
            if let Some((version, bytes)) = &value {
                fresh.push((keys[index], *version, bytes.clone()));
            }
            found[index] = value;
        }
        if !fresh.is_empty() {
            self.local.set(&fresh, LOCAL_TTL).await;
        }
        found
    }

    async fn set(&self, entries: &[(CacheKey, i64, Bytes)], ttl: Duration) {
        self.local.set(entries, ttl.min(LOCAL_TTL)).await;
        self.remote.set(entries, ttl).await;
    }

    async fn invalidate(&self, entries: &[(CacheKey, i64)]) {
        self.local.invalidate(entries).await;
        self.remote.invalidate(entries).await;
    }
}

#[cfg(test)]
mod tests {
    use gochat_core::ids::UserId;

    use super::*;
    use crate::local::LocalCache;

    const TTL: Duration = Duration::from_secs(60);

    fn key(n: u8) -> CacheKey {
        CacheKey::User(UserId::from_bytes([n; 16]))
    }

    fn tiers() -> (Arc<LocalCache>, TieredCache, TieredCache) {
        let remote = Arc::new(LocalCache::new(1 << 20));
        let tiered = || TieredCache::new(Arc::new(LocalCache::new(1 << 20)), remote.clone());
        (remote.clone(), tiered(), tiered())
    }

    async fn version(cache: &impl Cache, key: CacheKey) -> Option<i64> {
        cache.get(&[key]).await[0].as_ref().map(|(version, _)| *version)
    }

    #[tokio::test]
    async fn what_one_process_keeps_the_other_finds_and_keeps_for_a_short_time() {
        let (remote, here, there) = tiers();
        here.set(&[(key(1), 5, Bytes::from_static(b"five")), (key(2), 1, Bytes::new())], TTL).await;
        assert_eq!(there.get(&[key(2), key(3), key(1)]).await, [Some((1, Bytes::new())), None, Some((5, Bytes::from_static(b"five")))]);
        remote.invalidate(&[(key(1), i64::MAX), (key(2), i64::MAX)]).await;
        assert_eq!((version(&there, key(1)).await, version(&here, key(1)).await), (Some(5), Some(5)), "their own copies");
        tokio::time::sleep(LOCAL_TTL + Duration::from_millis(200)).await;
        assert_eq!((version(&there, key(1)).await, version(&here, key(1)).await), (None, None), "a copy lags for that long at most");
    }

    #[tokio::test]
    async fn an_invalidation_reaches_both_tiers_at_once() {
        let (remote, here, there) = tiers();
        here.set(&[(key(1), 5, Bytes::new())], TTL).await;
        here.invalidate(&[(key(1), 6)]).await;
        assert_eq!((version(&here, key(1)).await, version(&*remote, key(1)).await, version(&there, key(1)).await), (None, None, None));
        // A reader in this process that fetched the old value before.
        here.set(&[(key(1), 5, Bytes::new())], TTL).await;
        assert_eq!((version(&here, key(1)).await, version(&*remote, key(1)).await), (None, None));
    }
}
