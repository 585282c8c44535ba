use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use gochat_core::{
    ids::{ConversationId, UserId},
    model::Draft,
    ports::{AppendBatch, Conversations, Messages, Users},
};
use gochat_storage::mysql::{self, Database, MysqlSettings};

use crate::{
    proxy::Proxy,
    support::{TestDatabase, assert_dense, code, draft, group, hex, on_a_database, send, users},
};

async fn two_groups(store: &Database) -> (UserId, ConversationId, ConversationId) {
    let [a] = users(store).await;
    let mut groups = [group(store, a, &[]).await, group(store, a, &[]).await];
    groups.sort_unstable();
    (a, groups[0], groups[1])
}

fn lock(id: ConversationId) -> String {
    format!("SELECT head_seq AS value FROM conversations WHERE id = {} FOR UPDATE", hex(id.as_bytes()))
}

fn sending(store: &Database, drafts: Vec<Draft>) -> tokio::task::JoinHandle<gochat_core::error::Result<Vec<i64>>> {
    let store = store.clone();
    tokio::spawn(async move {
        let outcomes = store.append(&AppendBatch { drafts, dispatched: vec![] }).await?;
        outcomes.into_iter().map(|outcome| outcome.map(|stored| stored.message.seq.0)).collect()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_broken_and_the_loser_runs_again() {
    on_a_database(async |database| {
        let store = database.store().await;
        let (a, low, high) = two_groups(&store).await;
        let mut beside = database.beside().await;
        beside.run("BEGIN").await;
        // The server sacrifices whoever has changed less.
        beside.run("INSERT INTO login_log (username, outcome, address, at) VALUES ('', 0, '', 0), ('', 0, '', 0), ('', 0, '', 0)").await;
        beside.numbers(&lock(high)).await;
        let append = sending(&store, vec![draft(low, a, "x"), draft(high, a, "y")]);
        database.beside().await.waiting("SELECT id, kind").await;
        beside.numbers(&lock(low)).await;
        beside.run("COMMIT").await;
        assert_eq!(append.await.unwrap().unwrap(), [2, 2]);
        assert!(store.stats().repeats >= 1, "{:?}", store.stats());
        assert_eq!((assert_dense(&store, low).await, assert_dense(&store, high).await), (2, 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_too_long_is_waited_for_again() {
    on_a_database(async |database| {
        let settings = MysqlSettings { lock_wait: Duration::from_secs(1), ..database.settings() };
        let store = mysql::connect(&settings).await.unwrap();
        let (a, low, _) = two_groups(&store).await;
        let mut beside = database.beside().await;
        beside.run("BEGIN").await;
        beside.numbers(&lock(low)).await;
        let append = sending(&store, vec![draft(low, a, "x")]);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        beside.run("COMMIT").await;
        assert_eq!(append.await.unwrap().unwrap(), [2]);
        assert_eq!(store.stats().repeats, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_never_ends_is_given_up_in_time_and_nothing_is_stored() {
    on_a_database(async |database| {
        let settings = MysqlSettings { lock_wait: Duration::from_secs(1), unit_limit: Duration::from_millis(2500), ..database.settings() };
        let store = mysql::connect(&settings).await.unwrap();
        let (a, low, _) = two_groups(&store).await;
        let mut beside = database.beside().await;
        beside.run("BEGIN").await;
        beside.numbers(&lock(low)).await;
        let began = Instant::now();
        assert_eq!(code(sending(&store, vec![draft(low, a, "x")]).await.unwrap()), "UNAVAILABLE");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        beside.run("COMMIT").await;
        assert_eq!(assert_dense(&store, low).await, 1);
        assert_eq!(sending(&store, vec![draft(low, a, "x")]).await.unwrap().unwrap(), [2]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_killed_in_the_middle_is_replaced_and_the_unit_runs_once() {
    on_a_database(async |database| {
        let store = database.store().await;
        let (a, low, high) = two_groups(&store).await;
        let mut beside = database.beside().await;
        beside.run("BEGIN").await;
        beside.numbers(&lock(high)).await;
        let append = sending(&store, vec![draft(low, a, "x"), draft(high, a, "y")]);
        let victim = beside.waiting("SELECT id, kind").await;
        beside.run(&format!("KILL {victim}")).await;
        beside.run("COMMIT").await;
        assert_eq!(append.await.unwrap().unwrap(), [2, 2]);
        assert_eq!((assert_dense(&store, low).await, assert_dense(&store, high).await), (2, 2));
        assert_eq!(store.stats().lost_connections, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_that_died_are_noticed() {
    on_a_database(async |database| {
        let store = database.store().await;
        let (a, low, _) = two_groups(&store).await;
        let mut beside = database.beside().await;
        for pause in [Duration::ZERO, Duration::from_millis(1200)] {
            let both = (sending(&store, vec![draft(low, a, "x")]), store.user_by_name("nobody"));
            both.0.await.unwrap().unwrap();
            both.1.await.unwrap();
            for id in beside.connections("").await {
                beside.run(&format!("KILL {id}")).await;
            }
            tokio::time::sleep(pause).await;
            assert_eq!(store.user_by_name("nobody").await.unwrap(), None);
            assert!(send(&store, vec![draft(low, a, "y")]).await[0].is_ok());
        }
        assert_eq!(assert_dense(&store, low).await, 5);
    })
    .await;
}

async fn through(database: &TestDatabase, proxy: &Proxy) -> Database {
    database.store().await.close().await;
    mysql::connect(&MysqlSettings { url: database.url_by(proxy.port), migrate: false, ..database.settings() }).await.unwrap()
}

/// The COMMIT is done and its answer lost: the outcome is unknown, and the same call, repeated, tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_an_answer_is_unknown_and_its_repetition_is_a_repeat() {
    on_a_database(async |database| {
        let proxy = Proxy::start(database.address()).await;
        let store = through(database, &proxy).await;
        let (a, low, _) = two_groups(&store).await;
        let sent = draft(low, a, "x");
        proxy.traffic.cut_at_commit.store(true, Ordering::SeqCst);
        assert_eq!(code(sending(&store, vec![sent.clone()]).await.unwrap()), "UNAVAILABLE");
        assert!(!proxy.traffic.cut_at_commit.load(Ordering::SeqCst), "no COMMIT was seen");
        let repeated = send(&store, vec![sent]).await.remove(0).unwrap();
        assert!(repeated.repeated);
        assert_eq!(assert_dense(&store, low).await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_told_at_once_and_found_again() {
    on_a_database(async |database| {
        let mut proxy = Proxy::start(database.address()).await;
        let store = through(database, &proxy).await;
        let (a, low, _) = two_groups(&store).await;
        proxy.close().await;
        let began = Instant::now();
        for _ in 0..10 {
            assert_eq!(code(sending(&store, vec![draft(low, a, "x")]).await.unwrap()), "UNAVAILABLE");
            assert_eq!(code(store.conversations(&[low]).await), "UNAVAILABLE");
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        proxy.open().await;
        assert_eq!(sending(&store, vec![draft(low, a, "x")]).await.unwrap().unwrap(), [2]);
        assert_eq!(store.conversations(&[low]).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_may_wait_are_refused_and_nobody_waits_for_ever() {
    on_a_database(async |database| {
        let settings = MysqlSettings { writers: 1, writes_waiting_max: 1, wait: Duration::from_millis(400), ..database.settings() };
        let store = mysql::connect(&settings).await.unwrap();
        let (a, low, high) = two_groups(&store).await;
        let mut beside = database.beside().await;
        beside.run("BEGIN").await;
        beside.numbers(&lock(low)).await;
        let running = sending(&store, vec![draft(low, a, "x")]);
        beside.waiting("SELECT id, kind").await;
        // Appends wait for each other; every other write waits for a connection.
        let muting = || {
            let store = store.clone();
            tokio::spawn(async move { store.set_muted(high, a, true).await })
        };
        let waiting = muting();
        while store.stats().writes_waiting == 0 {
            tokio::task::yield_now().await;
        }
        let began = Instant::now();
        assert_eq!(code(muting().await.unwrap()), "OVERLOADED");
        assert!(began.elapsed() < Duration::from_millis(200), "refused at once");
        assert_eq!(code(waiting.await.unwrap()), "OVERLOADED");
        beside.run("COMMIT").await;
        assert_eq!(running.await.unwrap().unwrap(), [2]);
        assert_eq!((assert_dense(&store, high).await, store.stats().writes_waiting), (1, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_lets_what_runs_end_and_refuses_what_comes_later() {
    on_a_database(async |database| {
        let store = database.store().await;
        let (a, low, high) = two_groups(&store).await;
        let mut beside = database.beside().await;
        beside.run("BEGIN").await;
        beside.numbers(&lock(low)).await;
        let running = sending(&store, vec![draft(low, a, "x")]);
        beside.waiting("SELECT id, kind").await;
        let closing = tokio::spawn({
            let store = store.clone();
            async move { store.close().await }
        });
        while code(store.users(&[a]).await) == "OK" && !closing.is_finished() {
            tokio::task::yield_now().await;
            if code(store.set_muted(high, a, true).await) == "UNAVAILABLE" {
                break;
            }
        }
        assert!(!closing.is_finished());
        beside.run("COMMIT").await;
        assert_eq!(running.await.unwrap().unwrap(), [2]);
        closing.await.unwrap();
        assert_eq!(code(store.users(&[a]).await), "UNAVAILABLE");
        for _ in 0..100 {
            if beside.connections("").await.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("connections are left");
    })
    .await;
}
