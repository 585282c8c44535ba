//! A call is one round trip, whatever it names.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use gochat_core::{
    ids::{DeviceId, UserId},
    ports::{Cache, CacheKey, Routes},
};
use gochat_storage::redis::{Redis, RedisCache, RedisRoutes};
use uuid::Uuid;

use crate::support::{LEASE, Server, cluster, command, route, routes, settings, single};

/// Pipelines per call, for calls about a thousand users each.
async fn trips_of_a_thousand(redis: &Redis) -> Vec<u64> {
    let of = RedisRoutes::new(redis.clone());
    let cache = RedisCache::new(redis.clone());
    let all = routes(1000);
    let users: Vec<UserId> = all.iter().map(|route| route.user).collect();
    let keys: Vec<CacheKey> = users.iter().map(|user| CacheKey::User(*user)).collect();
    let entries: Vec<(CacheKey, i64, Bytes)> = keys.iter().map(|key| (*key, 1, Bytes::from_static(b"x"))).collect();
    let older: Vec<(CacheKey, i64)> = keys.iter().map(|key| (*key, 2)).collect();
    let mut trips = Vec::new();
    let mut sent = redis.stats().round_trips;
    let mut count = |trips: &mut Vec<u64>| {
        let now = redis.stats().round_trips;
        trips.push(now - sent);
        sent = now;
    };
    assert!(of.attach(&all, LEASE).await.unwrap().into_iter().all(|attached| attached));
    count(&mut trips);
    let located: HashSet<UserId> = of.locate(&users).await.unwrap().into_iter().map(|route| route.user).collect();
    assert_eq!(located.len(), 1000);
    count(&mut trips);
    assert!(of.detach(&all).await.unwrap().into_iter().all(|detached| detached));
    count(&mut trips);
    cache.set(&entries, Duration::from_secs(60)).await;
    count(&mut trips);
    assert!(cache.get(&keys).await.into_iter().all(|found| found == Some((1, Bytes::from_static(b"x")))));
    count(&mut trips);
    cache.invalidate(&older).await;
    count(&mut trips);
    assert!(cache.get(&keys).await.into_iter().all(|found| found.is_none()));
    trips
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_users_cost_one_round_trip() {
    assert_eq!(trips_of_a_thousand(&single().await).await, [1; 6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_they_cost_one_round_trip_per_server_side_by_side() {
    assert_eq!(trips_of_a_thousand(&cluster().await).await, [3; 6]);
}

/// The server's own count: a few commands that name many users each, one question for the time, and no script.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_sees_a_few_commands_and_none_per_user() {
    let server = Server::start();
    let redis = Redis::connect(settings(&[server.url()])).await.unwrap();
    let of = RedisRoutes::new(redis);
    let all = routes(1000);
    let users: Vec<UserId> = all.iter().map(|route| route.user).collect();
    of.attach(&all, LEASE).await.unwrap();
    let _: String = command(&server.url(), &["CONFIG", "RESETSTAT"]).await;
    let began = std::time::Instant::now();
    assert_eq!(of.locate(&users).await.unwrap().len(), 1000);
    println!("a thousand users located in {:?}", began.elapsed());
    let stats: String = command(&server.url(), &["INFO", "commandstats"]).await;
    let calls = |command: &str| -> u64 {
        let counted = stats.split_once(&format!("cmdstat_{command}:calls=")).and_then(|(_, rest)| rest.split_once(','));
        counted.map_or(0, |(calls, _)| calls.parse().unwrap())
    };
    assert_eq!([calls("mget"), calls("time"), calls("evalsha")], [1000_u64.div_ceil(128), 1, 0], "{stats}");
}

/// Keys are found where an operator looks for them, and none stays for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_have_the_six_shapes_and_an_end() {
    let server = Server::start();
    let settings = settings(&[server.url()]);
    let redis = Redis::connect(settings.clone()).await.unwrap();
    let route = route(crate::support::user(), DeviceId::from(Uuid::now_v7()), 7);
    RedisRoutes::new(redis.clone()).attach(std::slice::from_ref(&route), LEASE).await.unwrap();
    let cache = RedisCache::new(redis);
    let (user, conversation) = (crate::support::user(), crate::support::conversation());
    let kept = [
        CacheKey::User(user),
        CacheKey::Conversation(conversation),
        CacheKey::Group(conversation),
        CacheKey::Message(conversation),
        CacheKey::UserConversations(user),
    ];
    cache.set(&kept.map(|key| (key, 1, Bytes::from_static(b"{}"))), LEASE).await;
    let mut expected: Vec<String> = kept.iter().map(|key| format!("{}{key}", settings.prefix)).collect();
    expected.push(format!("{}user_gateway:{}", settings.prefix, route.user));
    let mut found: Vec<String> = command(&server.url(), &["KEYS", "*"]).await;
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    for key in &found {
        let ttl: i64 = command(&server.url(), &["PTTL", key]).await;
        assert!((1..=72_000).contains(&ttl), "{key} ends in {ttl} ms");
    }
    let lifetimes: HashSet<i64> = {
        let keys: Vec<CacheKey> = (0..50).map(|_| CacheKey::User(crate::support::user())).collect();
        cache.set(&keys.iter().map(|key| (*key, 1, Bytes::new())).collect::<Vec<_>>(), LEASE).await;
        let mut lifetimes = HashSet::new();
        for key in &keys {
            let ttl: i64 = command(&server.url(), &["PTTL", &format!("{}{key}", settings.prefix)]).await;
            assert!((45_000..=72_000).contains(&ttl));
            lifetimes.insert(ttl / 1000);
        }
        lifetimes
    };
    assert!(lifetimes.len() > 10, "what was kept together does not end together");
}
