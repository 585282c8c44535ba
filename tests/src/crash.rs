//! `kill -9` at random instants under load: every acked message is there exactly once, seqs are 1..head, each sender's
//! order is kept, and whoever was told of nothing is told after the restart (I1, I2, I5, I6, I9).
//!
//! `GOCHAT_TEST_CRASHES` says how often the server is killed (default 4; the full run takes 20).

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Method;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    client::{Socket, http, new_id},
    process::Process,
    sandbox::provision,
};

const PAIRS: usize = 12;
/// One group whose members are told directly and one that goes through the task role.
const GROUPS: [usize; 2] = [5, 120];

/// What one sender knows of its own messages in one conversation.
#[derive(Debug, Default)]
struct Sent {
    /// (client message id, text) in the order in which they were first sent.
    order: Vec<(String, String)>,
    /// Client message id to the seq of its ack.
    acked: HashMap<String, i64>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_it_loses_nothing_that_was_acked() {
    let crashes: usize = std::env::var("GOCHAT_TEST_CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let folder = tempfile::tempdir().unwrap();
    let mut server = tokio::task::block_in_place(|| Process::start(folder.path(), &[]));
    let crowd = provision(
        server.admin,
        &server.admin_token(),
        json!({"users": 130, "prefix": "crash", "groups": GROUPS.iter().map(|size| json!({"members": size})).collect::<Vec<_>>()}),
    )
    .await;
    let pairs = pairs(server.address, &crowd).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = JoinSet::new();
    let ledger: Arc<Mutex<Vec<((usize, String), Sent)>>> = Arc::default();
    let groups: Vec<String> = crowd["conversations"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    for (user, conversation) in
        pairs.iter().cloned().chain([(0, groups[0].clone()), (3, groups[0].clone()), (1, groups[1].clone()), (2, groups[1].clone())])
    {
        // Two senders of one device would take each other's connection: each of these users has one task.
        let (address, token) = (server.address, token(&crowd, user));
        let (stop, ledger) = (stop.clone(), ledger.clone());
        senders.spawn(async move {
            let sent = keep_sending(address, &token, &conversation, &stop).await;
            ledger.lock().unwrap().push(((user, conversation), sent));
        });
    }
    for round in 0..crashes {
        tokio::time::sleep(Duration::from_millis(300 + 137 * (round as u64 * 7 % 11))).await;
        server = tokio::task::block_in_place(|| server.kill_and_restart());
    }
    tokio::time::sleep(Duration::from_millis(800)).await;
    stop.store(true, Ordering::Relaxed);
    while senders.join_next().await.transpose().expect("no sender fails").is_some() {}
    server = tokio::task::block_in_place(|| server.kill_and_restart());

    let ledger = std::mem::take(&mut *ledger.lock().unwrap());
    let mut acked = 0;
    for ((user, conversation), sent) in &ledger {
        acked += sent.acked.len();
        verify(server.address, &token(&crowd, *user), &id(&crowd, *user), conversation, sent).await;
    }
    assert!(acked > 100 * crashes.max(1), "only {acked} messages were acked: the test did not load the server");
    for conversation in &groups {
        pushes_are_complete(server.address, &crowd, conversation).await;
    }
}

fn token(crowd: &Value, user: usize) -> String {
    crowd["users"][user]["access_token"].as_str().unwrap().to_owned()
}

fn id(crowd: &Value, user: usize) -> String {
    crowd["users"][user]["id"].as_str().unwrap().to_owned()
}

/// Users 10 and 11, 12 and 13, … talk to each other; both send.
async fn pairs(address: SocketAddr, crowd: &Value) -> Vec<(usize, String)> {
    let mut pairs = Vec::new();
    for first in (10..10 + 2 * PAIRS).step_by(2) {
        let body = json!({"kind": "single", "participants": [id(crowd, first + 1)]});
        let chat = http(address, Method::POST, "/api/v1/conversations", Some(&token(crowd, first)), &[], Some(&body)).await.expect(201);
        let chat = chat["id"].as_str().unwrap().to_owned();
        pairs.extend([(first, chat.clone()), (first + 1, chat)]);
    }
    pairs
}

/// Sends one message after the other, each until its ack; reconnects as a client does.
async fn keep_sending(address: SocketAddr, token: &str, conversation: &str, stop: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    let mut pending: Option<(String, String)> = None;
    'connection: loop {
        if stop.load(Ordering::Relaxed) && pending.is_none() {
            return sent;
        }
        let Ok(mut socket) = Socket::try_open(address, "/api/v1/ws", &[]).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if exchange(&mut socket, json!({"type": "auth", "token": token})).await.is_none_or(|ready| ready["type"] != "ready") {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        loop {
            if pending.is_none() {
                if stop.load(Ordering::Relaxed) {
                    return sent;
                }
                let next = (new_id(), format!("message {}", sent.order.len()));
                sent.order.push(next.clone());
                pending = Some(next);
            }
            let (client_msg_id, text) = pending.clone().unwrap();
            let send = json!({"type": "send", "conversation_id": conversation, "client_msg_id": client_msg_id, "text": text});
            let Some(answer) = exchange(&mut socket, send).await else { continue 'connection };
            match answer["type"].as_str() {
                Some("ack") => {
                    sent.acked.insert(client_msg_id, answer["seq"].as_i64().unwrap());
                    pending = None;
                }
                _ => {
                    let code = answer["code"].as_str().unwrap_or("");
                    assert!(["OVERLOADED", "UNAVAILABLE", "DRAINING", "RATE_LIMITED", "TIMEOUT_UNKNOWN"].contains(&code), "{answer}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

/// A request and its answer; `None` if the connection broke.
async fn exchange(socket: &mut Socket, request: Value) -> Option<Value> {
    timeout(Duration::from_secs(10), socket.try_request(request)).await.ok()?.ok()
}

async fn verify(address: SocketAddr, token: &str, sender: &str, conversation: &str, sent: &Sent) {
    let log = read_all(address, token, conversation).await;
    let seqs: Vec<i64> = log.iter().map(|message| message["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (1..=log.len() as i64).collect::<Vec<_>>(), "seqs are 1..head without gaps");
    let own: Vec<&Value> = log.iter().filter(|message| message["sender_id"] == sender && message["kind"] == "text").collect();
    let ids: Vec<&str> = own.iter().map(|message| message["client_msg_id"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "no message is there twice");
    for (client_msg_id, seq) in &sent.acked {
        let stored = &log[usize::try_from(*seq - 1).unwrap()];
        assert_eq!(stored["client_msg_id"], json!(client_msg_id), "acked at {seq}");
    }
    // One in flight at a time: what is stored is a prefix of what was sent, in that order.
    for (stored, (client_msg_id, text)) in own.iter().zip(&sent.order) {
        assert_eq!((&stored["client_msg_id"], &stored["text"]), (&json!(client_msg_id), &json!(text)));
    }
    assert!(own.len() == sent.order.len() || own.len() + 1 == sent.order.len());
}

async fn read_all(address: SocketAddr, token: &str, conversation: &str) -> Vec<Value> {
    let mut log: Vec<Value> = Vec::new();
    loop {
        let after = log.last().map_or(0, |message| message["seq"].as_i64().unwrap());
        let path = format!("/api/v1/conversations/{conversation}/messages?after={after}&limit=200");
        let page = http(address, Method::GET, &path, Some(token), &[], None).await.expect(200);
        log.extend(page["messages"].as_array().unwrap().iter().cloned());
        if !page["more"].as_bool().unwrap() {
            return log;
        }
    }
}

/// Members who were never connected have one push for every message, also for those whose dispatch a crash cut off.
async fn pushes_are_complete(address: SocketAddr, crowd: &Value, conversation: &str) {
    // The last member of the group never connected.
    let members = crowd["conversations"].as_array().unwrap().iter().find(|item| item["id"] == conversation).unwrap()["members"].as_array().unwrap();
    let absent = token(crowd, members.last().unwrap().as_u64().unwrap() as usize);
    let texts: HashSet<i64> = read_all(address, &absent, conversation)
        .await
        .iter()
        .filter(|message| message["kind"] == "text")
        .map(|message| message["seq"].as_i64().unwrap())
        .collect();
    let began = tokio::time::Instant::now();
    loop {
        let log = http(address, Method::GET, "/api/v1/push/log?limit=200", Some(&absent), &[], None).await.expect(200);
        let pushed: Vec<i64> = log["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|item| item["conversation_id"] == conversation)
            .map(|item| item["seq"].as_i64().unwrap())
            .collect();
        let unique: HashSet<i64> = pushed.iter().copied().collect();
        assert_eq!(unique.len(), pushed.len(), "one push for each message");
        // The log answers with its newest entries: the newest messages must be among them.
        let newest: HashSet<i64> = {
            let mut all: Vec<i64> = texts.iter().copied().collect();
            all.sort_unstable();
            all.into_iter().rev().take(50).collect()
        };
        if newest.is_subset(&unique) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no push for {:?}", newest.difference(&unique).collect::<Vec<_>>());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
