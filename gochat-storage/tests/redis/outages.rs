//! What an outage costs, and that it ends by itself.

use std::time::{Duration, Instant};

use bytes::Bytes;
use gochat_core::{
    error::Code,
    ids::DeviceId,
    ports::{Cache, CacheKey, Route, Routes},
};
use gochat_storage::redis::{Redis, RedisCache, RedisRoutes, RedisSettings};
use uuid::Uuid;

use crate::support::{LEASE, Server, command, route, routes, settings, until, user};

const TTL: Duration = Duration::from_secs(60);

async fn refused_within(routes: &RedisRoutes, within: Duration) {
    let began = Instant::now();
    let error = routes.locate(&[user()]).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(began.elapsed() < within, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_costs_nothing_while_it_is_away_and_is_used_again_when_it_is_back() {
    let mut server = Server::start();
    let redis = Redis::connect(settings(&[server.url()])).await.unwrap();
    let (of, cache) = (RedisRoutes::new(redis.clone()), RedisCache::new(redis.clone()));
    let [route] = routes(1).try_into().unwrap();
    let key = CacheKey::User(route.user);
    assert_eq!(of.attach(std::slice::from_ref(&route), LEASE).await.unwrap(), [true]);
    cache.set(&[(key, 1, Bytes::new())], TTL).await;
    server.kill();
    let began = Instant::now();
    for _ in 0..200 {
        refused_within(&of, Duration::from_secs(1)).await;
        assert_eq!(cache.get(&[key]).await, [None]);
        cache.set(&[(key, 1, Bytes::new())], TTL).await;
    }
    assert!(began.elapsed() < Duration::from_secs(1), "six hundred calls took {:?}", began.elapsed());
    assert_eq!(redis.ping().await.unwrap_err().code, Code::Unavailable);
    server.restart();
    let took = until(Duration::from_secs(2), async || of.attach(std::slice::from_ref(&route), LEASE).await.is_ok()).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    redis.ping().await.unwrap();
    assert_eq!(of.locate(&[route.user]).await.unwrap(), [route]);
    cache.set(&[(key, 2, Bytes::new())], TTL).await;
    assert_eq!(cache.get(&[key]).await, [Some((2, Bytes::new()))]);
}

/// A restart while nobody calls is noticed: the next call works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_silence_is_noticed_without_a_call_that_fails() {
    let mut server = Server::start();
    let redis = Redis::connect(settings(&[server.url()])).await.unwrap();
    server.restart();
    until(Duration::from_secs(2), async || redis.stats().connects == 2).await;
    assert_eq!(RedisRoutes::new(redis.clone()).locate(&[user()]).await.unwrap(), []);
    assert_eq!(redis.stats().failures, 0);
}

/// A server that hangs costs those calls one response timeout that were on their way, and the later ones nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_waited_for_once() {
    let server = Server::start();
    let redis = Redis::connect(settings(&[server.url()])).await.unwrap();
    let of = RedisRoutes::new(redis.clone());
    of.locate(&[user()]).await.unwrap();
    server.signal("-STOP");
    refused_within(&of, Duration::from_millis(900)).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2500) {
        refused_within(&of, Duration::from_millis(100)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.signal("-CONT");
    until(Duration::from_secs(2), async || of.locate(&[user()]).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_at_the_start_is_used_when_it_comes() {
    let mut server = Server::start();
    server.kill();
    for urls in [vec![server.url()], vec![server.url(), server.url()]] {
        let began = Instant::now();
        let redis = Redis::connect(settings(&urls)).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
        assert_eq!(redis.ping().await.unwrap_err().code, Code::Unavailable);
        refused_within(&RedisRoutes::new(redis.clone()), Duration::from_millis(100)).await;
        if urls.len() == 1 {
            server.restart();
            until(Duration::from_secs(2), async || redis.ping().await.is_ok()).await;
            server.kill();
        }
    }
    let refused = Redis::connect(RedisSettings { urls: vec!["http://:secret@x".into()], ..RedisSettings::default() }).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidField);
    assert!(!format!("{refused}").contains("secret"));
}

/// Everything in Redis can vanish, scripts included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_flushed_is_told_again_and_scripts_are_brought_again() {
    let server = Server::start();
    let redis = Redis::connect(settings(&[server.url()])).await.unwrap();
    let (of, cache) = (RedisRoutes::new(redis.clone()), RedisCache::new(redis.clone()));
    let all = routes(300);
    let users: Vec<_> = all.iter().map(|route| route.user).collect();
    of.attach(&all, LEASE).await.unwrap();
    let _: String = command(&server.url(), &["FLUSHALL"]).await;
    assert_eq!(of.locate(&users).await.unwrap(), []);
    let _: String = command(&server.url(), &["SCRIPT", "FLUSH"]).await;
    let sent = redis.stats().round_trips;
    assert!(of.attach(&all, LEASE).await.unwrap().into_iter().all(|attached| attached));
    assert_eq!(redis.stats().round_trips - sent, 2, "once more behind the scripts");
    assert_eq!(of.locate(&users).await.unwrap().len(), 300);
    assert_eq!(redis.stats().round_trips - sent, 3, "which are all there now");
    let _: String = command(&server.url(), &["SCRIPT", "FLUSH"]).await;
    let key = CacheKey::User(user());
    cache.set(&[(key, 3, Bytes::from_static(b"x"))], TTL).await;
    assert_eq!(cache.get(&[key]).await, [Some((3, Bytes::from_static(b"x")))]);
    assert_eq!(redis.stats().failures, 0);
}

/// An invalidation that could not be told is not forgotten: this process does not believe the old copy, and Redis learns of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_that_did_not_arrive_is_repeated() {
    let server = Server::start();
    let settings = settings(&[server.url()]);
    let here = RedisCache::new(Redis::connect(settings.clone()).await.unwrap());
    let there = RedisCache::new(Redis::connect(settings).await.unwrap());
    let (key, other) = (CacheKey::User(user()), CacheKey::User(user()));
    here.set(&[(key, 1, Bytes::new()), (other, 1, Bytes::new())], TTL).await;
    assert_eq!(there.get(&[key, other]).await, [Some((1, Bytes::new())), Some((1, Bytes::new()))]);
    server.signal("-STOP");
    here.invalidate(&[(key, 2)]).await;
    server.signal("-CONT");
    until(Duration::from_secs(3), async || here.get(&[other]).await[0].is_some()).await;
    assert_eq!(here.get(&[key]).await, [None], "known here, told or not");
    until(Duration::from_secs(3), async || there.get(&[other]).await[0].is_some()).await;
    until(Duration::from_secs(3), async || there.get(&[key]).await == [None]).await;
    there.set(&[(key, 1, Bytes::new())], TTL).await;
    assert_eq!(there.get(&[key]).await, [None], "and the old copy does not come back");
    there.set(&[(key, 2, Bytes::new())], TTL).await;
    assert_eq!(there.get(&[key]).await, [Some((2, Bytes::new()))]);
    until(Duration::from_secs(3), async || here.get(&[key]).await == [Some((2, Bytes::new()))]).await;
}

/// A gateway that slept through its lease, wakes, and closes: the newer connection elsewhere keeps its route (I16).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_paused_takes_no_newer_route_away() {
    let server = Server::start();
    let settings = settings(&[server.url()]);
    let paused = RedisRoutes::new(Redis::connect(settings.clone()).await.unwrap());
    let other = RedisRoutes::new(Redis::connect(settings.clone()).await.unwrap());
    let (user, device) = (user(), DeviceId::from(Uuid::now_v7()));
    let old = route(user, device, 5);
    let new = Route { gateway: "gateway-2".parse().unwrap(), connection: 1, ..route(user, device, 6) };
    assert_eq!(paused.attach(std::slice::from_ref(&old), Duration::from_millis(300)).await.unwrap(), [true]);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(other.locate(&[user]).await.unwrap(), [], "its lease is over");
    let key = format!("{}user_gateway:{user}", settings.prefix);
    let there: i64 = command(&server.url(), &["EXISTS", &key]).await;
    assert_eq!(there, 0, "and nothing stays behind");
    assert_eq!(other.attach(std::slice::from_ref(&new), LEASE).await.unwrap(), [true]);
    assert_eq!(paused.attach(std::slice::from_ref(&old), LEASE).await.unwrap(), [false], "renewing says that it was taken over");
    assert_eq!(paused.detach(std::slice::from_ref(&old)).await.unwrap(), [false]);
    assert_eq!(other.locate(&[user]).await.unwrap(), std::slice::from_ref(&new));
    // Another connection under the same epoch is not this very route.
    let twin = Route { connection: 2, ..new.clone() };
    assert_eq!(paused.detach(std::slice::from_ref(&twin)).await.unwrap(), [true]);
    assert_eq!(other.locate(&[user]).await.unwrap(), [new]);
}

/// What a dead gateway left is removed by whoever touches the user next; the live routes beside it stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_whose_lease_is_over_are_removed_when_the_user_is_touched() {
    let server = Server::start();
    let settings = settings(&[server.url()]);
    let of = RedisRoutes::new(Redis::connect(settings.clone()).await.unwrap());
    let user = user();
    let [dead, live, new] = [1, 2, 3].map(|epoch| route(user, DeviceId::from(Uuid::now_v7()), epoch));
    of.attach(std::slice::from_ref(&live), LEASE).await.unwrap();
    of.attach(std::slice::from_ref(&dead), Duration::from_millis(50)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let key = format!("{}user_gateway:{user}", settings.prefix);
    assert_eq!(command::<String>(&server.url(), &["GET", &key]).await.lines().count(), 2);
    assert_eq!(of.locate(&[user]).await.unwrap(), std::slice::from_ref(&live));
    of.attach(std::slice::from_ref(&new), LEASE).await.unwrap();
    assert_eq!(command::<String>(&server.url(), &["GET", &key]).await.lines().count(), 2);
    assert!(command::<i64>(&server.url(), &["PTTL", &key]).await > 50_000, "it ends with its longest lease");
    assert_eq!(of.detach(&[live, new]).await.unwrap(), [true, true]);
    assert_eq!(command::<i64>(&server.url(), &["EXISTS", &key]).await, 0);
}

/// Whatever stands under the key: nobody is located by it, the live route beside it is, and the next attach writes it anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_value_hides_no_route_and_is_written_anew() {
    let server = Server::start();
    let settings = settings(&[server.url()]);
    let of = RedisRoutes::new(Redis::connect(settings.clone()).await.unwrap());
    let user = user();
    let key = format!("{}user_gateway:{user}", settings.prefix);
    let [live, new] = [1, 2].map(|epoch| route(user, DeviceId::from(Uuid::now_v7()), epoch));
    of.attach(std::slice::from_ref(&live), LEASE).await.unwrap();
    let _: i64 = command(&server.url(), &["APPEND", &key, "\nneither a route\n\n"]).await;
    assert_eq!(of.locate(&[user]).await.unwrap(), std::slice::from_ref(&live));
    assert_eq!(of.attach(std::slice::from_ref(&new), LEASE).await.unwrap(), [true]);
    assert_eq!(command::<String>(&server.url(), &["GET", &key]).await.lines().count(), 2);
    assert_eq!(of.locate(&[user, user]).await.unwrap(), [live, new.clone()], "a user who is named twice is located once");
    let _: i64 = command(&server.url(), &["DEL", &key]).await;
    let _: i64 = command(&server.url(), &["HSET", &key, "not", "a string"]).await;
    assert_eq!(of.locate(&[user]).await.unwrap(), []);
    assert_eq!(of.detach(std::slice::from_ref(&new)).await.unwrap(), [true]);
    assert_eq!(of.attach(std::slice::from_ref(&new), LEASE).await.unwrap(), [true]);
    assert_eq!(of.locate(&[user]).await.unwrap(), [new]);
}
