//! `kill -9` at random instants under load: every acked message is there exactly once, seqs are 1..head, each sender's
//! order is kept, and whoever was told of nothing is told after the restart (I1, I2, I5, I6, I9).
//!
//! `GOCHAT_TEST_CRASHES` says how often the server is killed (default 4; the full run takes 20).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    checker::{self, Dump, read_log},
    load::{History, Sender, id, pairs, pushes, token},
    process::Process,
    sandbox::provision,
};

const PAIRS: usize = 12;
/// One group whose members are told directly and one that goes through the task role.
const GROUPS: [usize; 2] = [5, 120];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_it_loses_nothing_that_was_acked() {
    let crashes: usize = std::env::var("GOCHAT_TEST_CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let folder = tempfile::tempdir().unwrap();
    let mut server = tokio::task::block_in_place(|| Process::start(folder.path(), &[("GOCHAT_LOG_LEVEL", "warn")]));
    let crowd = provision(
        server.admin,
        &server.admin_token(),
        json!({"users": 130, "prefix": "crash", "groups": GROUPS.iter().map(|size| json!({"members": size})).collect::<Vec<_>>()}),
    )
    .await;
    let pairs = pairs(server.address, &crowd, PAIRS).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = JoinSet::new();
    let history = History::default();
    let groups: Vec<String> = crowd["conversations"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    for (user, conversation) in
        pairs.iter().cloned().chain([(0, groups[0].clone()), (3, groups[0].clone()), (1, groups[1].clone()), (2, groups[1].clone())])
    {
        // Two senders of one device would take each other's connection: each of these users has one task.
        let sender = Sender {
            gateways: vec![server.address],
            token: token(&crowd, user),
            user: id(&crowd, user),
            conversation,
            pause: Duration::ZERO,
            history: history.clone(),
        };
        let stop = stop.clone();
        senders.spawn(async move { sender.keep_sending(&stop).await });
    }
    for round in 0..crashes {
        tokio::time::sleep(Duration::from_millis(300 + 137 * (round as u64 * 7 % 11))).await;
        server = tokio::task::block_in_place(|| server.kill_and_restart());
    }
    tokio::time::sleep(Duration::from_millis(800)).await;
    stop.store(true, Ordering::Relaxed);
    while senders.join_next().await.transpose().expect("no sender fails").is_some() {}
    server = tokio::task::block_in_place(|| server.kill_and_restart());

    let mut history = history.take();
    let mut dump = Dump { logs: BTreeMap::new(), away: Vec::new() };
    for (user, conversation) in pairs.iter().cloned().chain([(0, groups[0].clone()), (1, groups[1].clone())]) {
        let log = read_log(server.address, &token(&crowd, user), &conversation).await;
        dump.logs.insert(conversation, log);
    }
    for conversation in &groups {
        let (away, recorded) = pushes(server.address, &crowd, conversation, &dump.logs[conversation]).await;
        dump.away.push(away);
        history.extend(recorded);
    }
    let report = checker::check(&history, &dump).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{report:?}");
    assert_eq!(report.unknown + report.refused, 0, "every sender repeated until its ack");
    assert!(report.acked > 100 * crashes.max(1), "the test did not load the server: {report:?}");
}
