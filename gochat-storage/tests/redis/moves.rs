//! A Cluster whose slots move, and one that loses a server.

use std::time::Duration;

use gochat_core::{
    error::Code,
    ids::UserId,
    ports::{Route, Routes},
};
use gochat_storage::redis::{Redis, RedisRoutes};

use crate::support::{LEASE, Server, command, routes, settings, until};

struct Pair {
    lower: Server,
    upper: Server,
}

impl Pair {
    /// Two servers that share the slots.
    async fn start() -> Pair {
        let (lower, upper) = (Server::start_node(), Server::start_node());
        for (server, range) in [(&lower, ["0", "8191"]), (&upper, ["8192", "16383"])] {
            let _: String = command(&server.url(), &["CLUSTER", "ADDSLOTSRANGE", range[0], range[1]]).await;
        }
        let _: String = command(&upper.url(), &["CLUSTER", "SET-CONFIG-EPOCH", "2"]).await;
        let bus = (lower.port + 1000).to_string();
        let _: String = command(&upper.url(), &["CLUSTER", "MEET", "127.0.0.1", &lower.port.to_string(), &bus]).await;
        for server in [&lower, &upper] {
            until(Duration::from_secs(10), async || {
                command::<String>(&server.url(), &["CLUSTER", "INFO"]).await.contains("cluster_state:ok")
                    && command::<String>(&server.url(), &["CLUSTER", "NODES"]).await.lines().count() == 2
            })
            .await;
        }
        Pair { lower, upper }
    }

    fn urls(&self) -> Vec<String> {
        vec![self.lower.url(), self.upper.url()]
    }
}

async fn id(server: &Server) -> String {
    command(&server.url(), &["CLUSTER", "MYID"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_are_found_while_their_slot_moves_and_where_it_has_moved() {
    let pair = Pair::start().await;
    let settings = settings(&pair.urls());
    let of = RedisRoutes::new(Redis::connect(settings.clone()).await.unwrap());
    let all = routes(50);
    let users: Vec<UserId> = all.iter().map(|route| route.user).collect();
    assert!(of.attach(&all, LEASE).await.unwrap().into_iter().all(|attached| attached));
    // One user whose slot is at the lower server.
    let mut moving: Option<(Route, String, String)> = None;
    for route in &all {
        let key = format!("{}user_gateway:{}", settings.prefix, route.user);
        let slot: u64 = command(&pair.lower.url(), &["CLUSTER", "KEYSLOT", &key]).await;
        if slot < 8192 {
            moving = Some((route.clone(), key, slot.to_string()));
        }
    }
    let (route, key, slot) = moving.unwrap();
    let (lower, upper) = (id(&pair.lower).await, id(&pair.upper).await);
    let _: String = command(&pair.upper.url(), &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &lower]).await;
    let _: String = command(&pair.lower.url(), &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &upper]).await;
    let port = pair.upper.port.to_string();
    let _: String = command(&pair.lower.url(), &["MIGRATE", "127.0.0.1", &port, &key, "0", "1000"]).await;
    assert_eq!(of.locate(&users).await.unwrap().len(), 50, "asked for where the slot is going");
    assert_eq!(of.attach(std::slice::from_ref(&route), LEASE).await.unwrap(), [true]);
    for server in [&pair.upper, &pair.lower] {
        let _: String = command(&server.url(), &["CLUSTER", "SETSLOT", &slot, "NODE", &upper]).await;
    }
    assert_eq!(of.locate(&users).await.unwrap().len(), 50, "sent on to where the slot is");
    assert_eq!(of.detach(std::slice::from_ref(&route)).await.unwrap(), [true]);
    assert_eq!(of.locate(&users).await.unwrap().len(), 49);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lost_a_server_says_so_at_once_and_is_used_again_when_it_is_whole() {
    let mut pair = Pair::start().await;
    let redis = Redis::connect(settings(&pair.urls())).await.unwrap();
    let of = RedisRoutes::new(redis.clone());
    let all = routes(50);
    let users: Vec<UserId> = all.iter().map(|route| route.user).collect();
    of.attach(&all, LEASE).await.unwrap();
    pair.upper.kill();
    let began = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(of.locate(&users).await.unwrap_err().code, Code::Unavailable);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(redis.ping().await.unwrap_err().code, Code::Unavailable);
    pair.upper.restart();
    until(Duration::from_secs(15), async || of.attach(&all, LEASE).await.is_ok()).await;
    assert_eq!(of.locate(&users).await.unwrap().len(), 50);
    redis.ping().await.unwrap();
}
