//! `kill -9` at random instants under load: every acked message is there exactly once, seqs are 1..head, each sender's
//! order is kept, and whoever was told of nothing is told after the restart (I1, I2, I5, I6, I9).
//!
//! `GOCHAT_TEST_CRASHES` says how often the server is killed (default 4; the full run takes 20).

use std::{
    collections::BTreeMap,
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
    checker::{self, Away, Dump, Event, Name, read_log},
    client::{Socket, http, new_id},
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
    let pairs = pairs(server.address, &crowd).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = JoinSet::new();
    let history: Arc<Mutex<Vec<Event>>> = Arc::default();
    let groups: Vec<String> = crowd["conversations"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    for (user, conversation) in
        pairs.iter().cloned().chain([(0, groups[0].clone()), (3, groups[0].clone()), (1, groups[1].clone()), (2, groups[1].clone())])
    {
        // Two senders of one device would take each other's connection: each of these users has one task.
        let sender = Sender { address: server.address, token: token(&crowd, user), user: id(&crowd, user), conversation, history: history.clone() };
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

    let mut history = std::mem::take(&mut *history.lock().unwrap());
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

/// Somebody who sends to one conversation, and writes down what happens.
struct Sender {
    address: SocketAddr,
    token: String,
    user: String,
    conversation: String,
    history: Arc<Mutex<Vec<Event>>>,
}

impl Sender {
    fn note(&self, event: Event) {
        self.history.lock().unwrap().push(event);
    }

    /// Sends one message after the other, each until its ack; reconnects as a client does.
    async fn keep_sending(&self, stop: &AtomicBool) {
        let mut number = 0;
        let mut pending: Option<(Name, String)> = None;
        'connection: while pending.is_some() || !stop.load(Ordering::Relaxed) {
            let Ok(mut socket) = Socket::try_open(self.address, "/api/v1/ws", &[]).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            if exchange(&mut socket, json!({"type": "auth", "token": self.token})).await.is_none_or(|ready| ready["type"] != "ready") {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            while pending.is_some() || !stop.load(Ordering::Relaxed) {
                let (name, body) = pending.clone().unwrap_or_else(|| {
                    number += 1;
                    let name = Name { sender: self.user.clone(), conversation: self.conversation.clone(), client_msg_id: new_id() };
                    (name, format!("message {number}"))
                });
                pending = Some((name.clone(), body.clone()));
                self.note(Event::Sent { name: name.clone(), body: body.clone() });
                let send = json!({"type": "send", "conversation_id": name.conversation, "client_msg_id": name.client_msg_id, "text": body});
                let Some(answer) = exchange(&mut socket, send).await else { continue 'connection };
                if answer["type"] == "ack" {
                    self.note(Event::Acked { name, body, seq: answer["seq"].as_i64().unwrap() });
                    pending = None;
                    continue;
                }
                let code = answer["code"].as_str().unwrap_or("");
                match code {
                    "OVERLOADED" | "RATE_LIMITED" | "DRAINING" => self.note(Event::Refused { name }),
                    _ => assert!(["UNAVAILABLE", "TIMEOUT_UNKNOWN"].contains(&code), "{answer}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// A request and its answer; `None` if the connection broke.
async fn exchange(socket: &mut Socket, request: Value) -> Option<Value> {
    timeout(Duration::from_secs(10), socket.try_request(request)).await.ok()?.ok()
}

/// The pushes of a member of the group who was never connected: every message has one, also those whose dispatch a crash cut off.
async fn pushes(address: SocketAddr, crowd: &Value, conversation: &str, log: &[checker::Entry]) -> (Away, Vec<Event>) {
    // The last member of the group never connected.
    let members = crowd["conversations"].as_array().unwrap().iter().find(|item| item["id"] == conversation).unwrap()["members"].as_array().unwrap();
    let absent = members.last().unwrap().as_u64().unwrap() as usize;
    // The push log answers with its newest entries, which are those of several conversations.
    let newest: Vec<i64> = log.iter().rev().filter(|entry| entry.body.is_some()).map(|entry| entry.seq).take(50).collect();
    let away = Away { user: id(crowd, absent), conversation: conversation.into(), from: newest.last().copied().unwrap_or(0) };
    let began = tokio::time::Instant::now();
    loop {
        let found = http(address, Method::GET, "/api/v1/push/log?limit=200", Some(&token(crowd, absent)), &[], None).await.expect(200);
        let found: Vec<i64> = found["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|item| item["conversation_id"] == conversation)
            .map(|item| item["seq"].as_i64().unwrap())
            .collect();
        // The sweeper needs a while; what is missing then is for the checker to say.
        if newest.iter().all(|seq| found.contains(seq)) || began.elapsed() > Duration::from_secs(60) {
            let user = away.user.clone();
            let recorded = found.into_iter().map(|seq| Event::PushRecorded { user: user.clone(), conversation: conversation.into(), seq });
            return (away, recorded.collect());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
