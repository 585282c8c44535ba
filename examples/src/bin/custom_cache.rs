//! A backend of one's own: a cache in a plain map, proved by the suite of its port.
//!
//! `cargo run -p gochat-examples --bin custom_cache`

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use gochat_core::{
    async_trait, conformance,
    ports::{Cache, CacheKey},
};

/// How long an invalidated version is refused: longer than a read is on its way.
const REFUSED_FOR: Duration = Duration::from_secs(2);

/// Keeps values without a bound on their number: for the example only.
#[derive(Debug, Default)]
struct MapCache(Mutex<HashMap<CacheKey, Slot>>);

#[derive(Debug)]
struct Slot {
    value: Option<(i64, Bytes, Instant)>,
    refused: Option<(i64, Instant)>,
}

impl MapCache {
    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Cache for MapCache {
    async fn get(&self, keys: &[CacheKey]) -> Vec<Option<(i64, Bytes)>> {
        let (now, slots) = (Instant::now(), self.lock());
        let live = |key| slots.get(key).and_then(|slot: &Slot| slot.value.as_ref()).filter(|(.., until)| now < *until);
        keys.iter().map(|key| live(key).map(|(version, bytes, _)| (*version, bytes.clone()))).collect()
    }

    async fn set(&self, entries: &[(CacheKey, i64, Bytes)], ttl: Duration) {
        let (now, mut slots) = (Instant::now(), self.lock());
        for (key, version, bytes) in entries {
            let slot = slots.entry(*key).or_insert(Slot { value: None, refused: None });
            let refused = slot.refused.is_some_and(|(below, until)| *version < below && now < until);
            let newer = slot.value.as_ref().is_none_or(|(present, _, until)| present < version || now >= *until);
            if newer && !refused {
                slot.value = Some((*version, bytes.clone(), now + ttl));
            }
        }
    }

    async fn invalidate(&self, entries: &[(CacheKey, i64)]) {
        let (now, mut slots) = (Instant::now(), self.lock());
        for (key, version) in entries {
            let slot = slots.entry(*key).or_insert(Slot { value: None, refused: None });
            let below = slot.refused.map_or(*version, |(below, _)| below.max(*version));
            slot.refused = Some((below, now + REFUSED_FOR));
            if slot.value.as_ref().is_some_and(|(present, ..)| present < version) {
                slot.value = None;
            }
        }
    }
}

#[tokio::main]
async fn main() {
    conformance::run_all::<dyn Cache>(conformance::cache::CASES, Arc::new(MapCache::default())).await;
    println!("all {} cases passed", conformance::cache::CASES.len());
}
