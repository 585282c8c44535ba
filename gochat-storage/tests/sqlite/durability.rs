use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use gochat_core::{
    ids::{ConversationId, Seq, UserId},
    ports::{AppendBatch, Conversations, Messages, Store, Users},
};
use gochat_storage::sqlite::{self, SqliteSettings};
use rusqlite::Connection;

use crate::support::{code, draft, store, store_with};

/// Names the database that a child of this test writes to until it is killed.
const CHILD: &str = "GOCHAT_STORAGE_CHILD";

#[tokio::test]
async fn what_was_acked_survives_a_killed_process() {
    let store = store();
    let [a, b] = store.users_of().await;
    let group = store.group(a, &[b]).await;
    let path = store.path();
    store.close();

    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "durability::child_that_is_killed", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{}\n{group}\n{a}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acked = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((seq, text)) = line.strip_prefix("acked ").and_then(|acked| acked.split_once(' ')) else { continue };
        acked.push((seq.parse::<i64>().unwrap(), text.to_owned()));
        if acked.len() == 300 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(acked.len() >= 300);

    let store = sqlite::open(&path, &SqliteSettings::default()).unwrap();
    let log = store.log(group, Seq(0), Seq(i64::MAX), 1_000_000).await.unwrap();
    let head = store.conversations(&[group]).await.unwrap().remove(0).unwrap().head_seq;
    assert_eq!(log.iter().map(|message| message.seq.0).collect::<Vec<_>>(), (1..=head.0).collect::<Vec<_>>());
    for (seq, text) in acked {
        assert_eq!(log[usize::try_from(seq - 1).unwrap()].body.content, text);
    }
    assert_eq!(store.stats().failed_groups, 0);
}

#[tokio::test]
#[ignore = "run by what_was_acked_survives_a_killed_process"]
async fn child_that_is_killed() {
    let told = std::env::var(CHILD).unwrap();
    let [path, group, sender] = told.split('\n').collect::<Vec<_>>().try_into().unwrap();
    let (group, sender): (ConversationId, UserId) = (group.parse().unwrap(), sender.parse().unwrap());
    let store = sqlite::open(path.as_ref(), &SqliteSettings::default()).unwrap();
    for n in 0.. {
        let text = format!("message-{n}");
        let batch = AppendBatch { drafts: vec![draft(group, sender, &text)], dispatched: vec![] };
        let stored = store.append(&batch).await.unwrap().remove(0).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "acked {} {text}", stored.message.seq).unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn closing_empties_the_log_and_refuses_what_comes_later() {
    let store = store();
    let [a] = store.users_of().await;
    let group = store.group(a, &[]).await;
    let other = store.database.clone();
    store.close();
    store.close();
    assert_eq!(code(other.users(&[a]).await), "UNAVAILABLE");
    assert_eq!(code(other.set_dispatched(&[(group, Seq(1))]).await), "UNAVAILABLE");
    let wal = store.path().with_extension("db-wal");
    assert!(std::fs::metadata(&wal).map_or(0, |file| file.len()) == 0);
    let reopened = sqlite::open(&store.path(), &SqliteSettings::default()).unwrap();
    assert!(reopened.users(&[a]).await.unwrap()[0].is_some());
    let store: Arc<dyn Store> = Arc::new(reopened);
    assert_eq!(store.conversations(&[group]).await.unwrap()[0].as_ref().unwrap().dispatched_seq, Seq(0));
}

#[tokio::test]
async fn the_schema_of_a_newer_version_is_refused() {
    let store = store();
    let path = store.path();
    store.close();
    let raw = Connection::open(&path).unwrap();
    raw.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')", []).unwrap();
    drop(raw);
    let error = sqlite::open(&path, &SqliteSettings::default()).unwrap_err();
    assert_eq!(error.code.as_str(), "UNAVAILABLE");
    assert!(error.message.contains("99990101000000") && error.message.contains("newer version"), "{error}");
}

#[tokio::test]
async fn a_path_that_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = sqlite::open(&directory.path().join("missing/gochat.db"), &SqliteSettings::default()).unwrap_err();
    assert!(error.message.contains("missing/gochat.db"), "{error}");
    assert_eq!(code(sqlite::open(":memory:".as_ref(), &SqliteSettings::default())), "UNAVAILABLE", "nothing in memory is durable");
}

#[tokio::test]
async fn a_full_disk_is_said_stores_nothing_and_ends_with_new_space() {
    let store = store();
    let [a] = store.users_of().await;
    let group = store.group(a, &[]).await;
    let path = store.path();
    store.close();
    let limited = SqliteSettings { page_count_max: 120, ..SqliteSettings::default() };
    let small = sqlite::open(&path, &limited).unwrap();
    let body = "x".repeat(16_000);
    let mut stored = 1;
    let refused = loop {
        let batch = AppendBatch { drafts: vec![draft(group, a, &body), draft(group, a, &body)], dispatched: vec![] };
        match small.append(&batch).await {
            Ok(outcomes) => stored = outcomes[1].as_ref().unwrap().message.seq.0,
            Err(error) => break error,
        }
        assert!(stored < 200, "the limit was not reached");
    };
    assert_eq!(refused.code.as_str(), "STORAGE_FULL", "{refused:?}");
    // Reads go on. A group with a unit that does not fit is given up as a whole, and each of its units is told so.
    assert_eq!(small.conversations(&[group]).await.unwrap()[0].as_ref().unwrap().head_seq, Seq(stored));
    let big = AppendBatch { drafts: vec![draft(group, a, &body), draft(group, a, &body)], dispatched: vec![] };
    let beside = [(group, Seq(stored))];
    let (bigs, smalls) = tokio::join!(join_all((0..20).map(|_| small.append(&big))), join_all((0..20).map(|_| small.set_dispatched(&beside))));
    assert!(bigs.into_iter().all(|outcome| code(outcome) == "STORAGE_FULL"));
    assert!(smalls.into_iter().all(|outcome| matches!(code(outcome), "OK" | "STORAGE_FULL")));
    assert_eq!(small.log(group, Seq(0), Seq(i64::MAX), 1000).await.unwrap().len() as i64, stored);
    small.close();
    let wide = sqlite::open(&path, &SqliteSettings::default()).unwrap();
    assert_eq!(wide.append(&big).await.unwrap().remove(0).unwrap().message.seq, Seq(stored + 1));
}

#[tokio::test]
async fn a_full_queue_is_refused_at_once() {
    let store = store_with(&SqliteSettings { writes_waiting_max: 4, ..SqliteSettings::default() });
    let [a] = store.users_of().await;
    let group = store.group(a, &[]).await;
    // Somebody else holds the database: the writer waits, the queue fills.
    let holder = Connection::open(store.path()).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    let mut refused = 0;
    for _ in 0..20 {
        let database = store.database.clone();
        waiting.spawn(async move { database.append(&AppendBatch { drafts: vec![draft(group, a, "x")], dispatched: vec![] }).await });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    holder.execute_batch("ROLLBACK").unwrap();
    drop(holder);
    let mut stored = 0;
    while let Some(outcome) = waiting.join_next().await {
        match outcome.unwrap() {
            Ok(outcomes) => stored += outcomes.len(),
            Err(error) => {
                assert_eq!(error.code.as_str(), "OVERLOADED", "{error:?}");
                assert!(error.retry_after.is_some());
                refused += 1;
            }
        }
    }
    assert!(stored >= 4 && refused >= 1, "{stored} stored, {refused} refused");
    assert_eq!(store.seen(a, group).await.len(), 1 + stored);
}

#[tokio::test]
async fn a_dropped_caller_does_not_cut_a_transaction_in_half() {
    let store = store();
    let [a] = store.users_of().await;
    let group = store.group(a, &[]).await;
    for _ in 0..50 {
        let batch = AppendBatch { drafts: vec![draft(group, a, "x"), draft(group, a, "y")], dispatched: vec![] };
        let _ = tokio::time::timeout(Duration::ZERO, store.append(&batch)).await;
    }
    store.say(group, a, "last").await;
    let log = store.seen(a, group).await;
    assert_eq!(log.len() % 2, 0, "the event, whole pairs and the last one");
    assert_eq!(log, (1..=log.len() as i64).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_write_ahead_log_is_copied_while_it_grows() {
    let store = store();
    let [a] = store.users_of().await;
    let group = store.group(a, &[]).await;
    let body = "x".repeat(16_000);
    for _ in 0..10 {
        store.send((0..100).map(|_| draft(group, a, &body)).collect()).await.into_iter().for_each(|outcome| drop(outcome.unwrap()));
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let copied = std::fs::metadata(store.path()).unwrap().len();
    assert!(copied > 12_000_000, "only {copied} bytes are in the file: {:?}", store.stats());
}
