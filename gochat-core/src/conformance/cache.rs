//! The suite of [`Cache`].
//!
//! Values may vanish at any time, so a case never demands that one is there: it demands that what is found is right, and that a
//! cache which keeps nothing at all is noticed by [`a_value_is_found_with_its_version`].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Case, cases};
use crate::{
    ids::{ConversationId, UserId},
    ports::{Cache, CacheKey},
};

/// Every case.
pub const CASES: &[Case<dyn Cache>] = cases![dyn Cache:
    a_value_is_found_with_its_version,
    the_key_shapes_are_kept_apart,
    a_slow_old_writer_loses,
    an_invalidated_value_is_gone_and_does_not_come_back,
    an_invalidation_spares_what_is_newer,
    a_value_outlives_its_ttl_nowhere,
    racing_writers_leave_the_newest_or_nothing,
    a_reader_never_sees_what_was_there_before_an_answered_invalidation,
];

const TTL: Duration = Duration::from_secs(60);

fn key() -> CacheKey {
    CacheKey::User(UserId::from(Uuid::now_v7()))
}

fn value(version: i64) -> Bytes {
    Bytes::from(format!("value {version}"))
}

async fn set(cache: &dyn Cache, key: CacheKey, version: i64) {
    cache.set(&[(key, version, value(version))], TTL).await;
}

/// The version that is found; its bytes are the ones that were set with it.
async fn get(cache: &dyn Cache, key: CacheKey) -> Option<i64> {
    let (version, bytes) = cache.get(&[key]).await.remove(0)?;
    assert_eq!(bytes, value(version), "a version with the bytes of another one");
    Some(version)
}

/// Batches are aligned with their keys, repeated ones too; a value with nothing in it is a value.
pub async fn a_value_is_found_with_its_version(cache: Arc<dyn Cache>) {
    let (a, b, missing) = (key(), key(), key());
    cache.set(&[(a, 1, value(1)), (b, i64::MAX, Bytes::new())], TTL).await;
    let found = cache.get(&[b, missing, a, b]).await;
    assert_eq!(found, [Some((i64::MAX, Bytes::new())), None, Some((1, value(1))), Some((i64::MAX, Bytes::new()))]);
    assert_eq!(cache.get(&[]).await, []);
    cache.set(&[], TTL).await;
    cache.invalidate(&[]).await;
    let large = Bytes::from(vec![7; 64 * 1024]);
    cache.set(&[(missing, 3, large.clone())], TTL).await;
    assert_eq!(cache.get(&[missing]).await, [Some((3, large))]);
}

/// The same id under another noun is another key.
pub async fn the_key_shapes_are_kept_apart(cache: Arc<dyn Cache>) {
    let id = Uuid::now_v7();
    let (user, conversation) = (UserId::from(id), ConversationId::from(id));
    let keys = [
        CacheKey::User(user),
        CacheKey::Conversation(conversation),
        CacheKey::Group(conversation),
        CacheKey::UserGateway(user),
        CacheKey::Message(conversation),
        CacheKey::UserConversations(user),
    ];
    for (version, key) in (1..).zip(keys) {
        set(&*cache, key, version).await;
    }
    for (version, key) in (1..).zip(keys) {
        assert_eq!(get(&*cache, key).await, Some(version), "{key}");
    }
    cache.invalidate(&[(keys[2], 100)]).await;
    assert_eq!((get(&*cache, keys[2]).await, get(&*cache, keys[1]).await), (None, Some(2)));
}

/// A value of the same or a higher version stays (I14).
pub async fn a_slow_old_writer_loses(cache: Arc<dyn Cache>) {
    let key = key();
    set(&*cache, key, 5).await;
    cache.set(&[(key, 4, value(4)), (key, 5, Bytes::from_static(b"another five"))], TTL).await;
    assert_eq!(get(&*cache, key).await, Some(5));
    cache.set(&[(key, 7, value(7)), (key, 6, value(6))], TTL).await;
    assert_eq!(get(&*cache, key).await, Some(7), "also within one batch");
}

/// A reader that fetched before a change cannot put the old value back behind it, for at least a second; the new one is taken.
pub async fn an_invalidated_value_is_gone_and_does_not_come_back(cache: Arc<dyn Cache>) {
    let (there, absent) = (key(), key());
    set(&*cache, there, 5).await;
    cache.invalidate(&[(there, 6), (absent, 6)]).await;
    for _ in 0..9 {
        for key in [there, absent] {
            assert_eq!(get(&*cache, key).await, None);
            set(&*cache, key, 5).await;
            assert_eq!(get(&*cache, key).await, None, "the old value came back");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for key in [there, absent] {
        set(&*cache, key, 6).await;
        assert_eq!(get(&*cache, key).await, Some(6));
        set(&*cache, key, 5).await;
        assert_eq!(get(&*cache, key).await, Some(6));
    }
}

/// Forgetting below a version touches neither that version nor a higher one, and a lower invalidation does not weaken a higher.
pub async fn an_invalidation_spares_what_is_newer(cache: Arc<dyn Cache>) {
    let key = key();
    set(&*cache, key, 5).await;
    cache.invalidate(&[(key, 5)]).await;
    cache.invalidate(&[(key, 3)]).await;
    assert_eq!(get(&*cache, key).await, Some(5));
    cache.invalidate(&[(key, 9)]).await;
    cache.invalidate(&[(key, 7)]).await;
    set(&*cache, key, 8).await;
    assert_eq!(get(&*cache, key).await, None, "refused below 9, whatever was said later");
    set(&*cache, key, 9).await;
    assert_eq!(get(&*cache, key).await, Some(9));
}

/// A value that nobody renews is gone when its time is over.
pub async fn a_value_outlives_its_ttl_nowhere(cache: Arc<dyn Cache>) {
    let (short, long) = (key(), key());
    cache.set(&[(short, 1, value(1))], Duration::from_millis(50)).await;
    set(&*cache, long, 1).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!((get(&*cache, short).await, get(&*cache, long).await), (None, Some(1)));
    set(&*cache, short, 1).await;
    assert_eq!(get(&*cache, short).await, Some(1), "it may be set again");
}

/// Whatever the order of racing writers, no version is followed by a lower one.
pub async fn racing_writers_leave_the_newest_or_nothing(cache: Arc<dyn Cache>) {
    let key = key();
    let mut tasks = JoinSet::new();
    for writer in 0..8 {
        let cache = cache.clone();
        tasks.spawn(async move {
            let mut seen = 0;
            for n in 0..200 {
                // Each writer in an order of its own.
                let version = 1 + (n * (2 * writer + 3) + writer) % 200;
                match n % 7 {
                    0 => cache.invalidate(&[(key, version)]).await,
                    _ => set(&*cache, key, version).await,
                }
                if let Some(found) = get(&*cache, key).await {
                    assert!(found >= seen, "{found} behind {seen}");
                    seen = found;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    tasks.join_all().await;
    set(&*cache, key, 1000).await;
    assert_eq!(get(&*cache, key).await, Some(1000));
}

/// Once a writer's invalidation has answered, nobody reads a value from before the change, whatever readers put back.
pub async fn a_reader_never_sees_what_was_there_before_an_answered_invalidation(cache: Arc<dyn Cache>) {
    let key = key();
    let committed = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let (cache, committed) = (cache.clone(), committed.clone());
        tasks.spawn(async move {
            for _ in 0..500 {
                let before = committed.load(std::sync::atomic::Ordering::SeqCst);
                if let Some(found) = get(&*cache, key).await {
                    assert!(found >= before, "{found} is older than {before}, whose invalidation had answered");
                }
                // What a reader does that fetched `before` and then was slow.
                tokio::task::yield_now().await;
                set(&*cache, key, before).await;
            }
        });
    }
    for version in 1..=200 {
        cache.invalidate(&[(key, version)]).await;
        committed.store(version, std::sync::atomic::Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
    while let Some(done) = tasks.join_next().await {
        if let Err(panic) = done {
            std::panic::resume_unwind(panic.into_panic());
        }
    }
}
