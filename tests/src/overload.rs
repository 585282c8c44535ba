//! Twice what the server can store, whatever it answers (an open loop): it refuses before it accepts, loses and reorders nothing
//! that it acked, keeps its memory bounded and is as usable as before two seconds after the end.
//!
//! `GOCHAT_TEST_OVERLOAD_SECONDS` says how long (default 5; the full run takes 20).

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::Barrier,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    checker::{self, Dump, Event, Name, read_log},
    client::{ReceiveHalf, SendHalf, Socket, new_id},
    process::Process,
    sandbox::provision,
};

/// Clients in pairs that talk to each other: the row "p2p, 200 clients x 1" of the figures.
const CLIENTS: usize = 200;
/// How long the rate of the closed loop is measured.
const MEASURED: Duration = Duration::from_secs(3);
/// What a loaded server may take beside what it takes idle: full queues, 200 outboxes and the store's caches are far below.
const GROWTH_BYTES_MAX: u64 = 256 << 20;
/// Time after which the server must be as before.
const RECOVERED_AFTER: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Client {
    user: String,
    conversation: String,
    token: String,
}

impl Client {
    /// A message of 128 bytes, as in the figures.
    fn message(&self, number: usize) -> (Name, String, Value) {
        let name = Name { sender: self.user.clone(), conversation: self.conversation.clone(), client_msg_id: new_id() };
        let body = format!("{number:<128}");
        let frame = json!({"type": "send", "conversation_id": name.conversation, "client_msg_id": name.client_msg_id, "text": body});
        (name, body, frame)
    }

    async fn connect(&self, address: SocketAddr) -> Socket {
        let mut socket = Socket::open(address).await;
        let ready = socket.request(json!({"type": "auth", "token": self.token})).await;
        assert_eq!(ready["type"], "ready", "{ready}");
        socket
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overloaded_it_refuses_early_loses_nothing_and_recovers_at_once() {
    let seconds: u64 = std::env::var("GOCHAT_TEST_OVERLOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let folder = tempfile::tempdir().unwrap();
    // The limits of one connection and of one address shall not hide the limit of the whole.
    let mut settings = vec![
        ("GOCHAT_LOG_LEVEL", "error".to_owned()),
        ("GOCHAT_LIMITS_SENDS_PER_SECOND", "100000".to_owned()),
        ("GOCHAT_LIMITS_SENDS_BURST", "100000".to_owned()),
        ("GOCHAT_LIMITS_CONNECTIONS_PER_ADDRESS", "1000".to_owned()),
    ];
    let server = start(folder.path(), &settings);
    let wanted = json!({"users": CLIENTS + 2, "prefix": "load", "pairs": true});
    let mut clients = clients(&provision(server.admin, &server.admin_token(), wanted).await);
    let probe = clients.pop().unwrap();
    clients.truncate(CLIENTS);
    let (rate, mut history) = closed_loop(server.address, &clients).await;
    println!("{rate} messages/s in a closed loop");
    assert!(rate > 100, "too slow to be overloaded on purpose");
    assert_eq!(tokio::task::block_in_place(|| server.terminate()).0, Some(0));

    // Little may wait, so that a few seconds are enough to fill it.
    settings.push(("GOCHAT_BUS_UPSTREAM_RECORDS_MAX", (rate / 100).clamp(32, 4096).to_string()));
    let server = start(folder.path(), &settings);
    let idle_bytes = resident_bytes_max(&server);
    let mut refused = 0;
    // A server that batches may store twice what it stores for clients that wait: then it is offered more.
    for factor in [2, 4, 8] {
        let (codes, seen) = open_loop(server.address, &clients, factor * rate, Duration::from_secs(seconds)).await;
        history.extend(seen);
        println!("{factor} times as many: {codes:?}");
        assert!(codes.keys().all(|code| ["ack", "OVERLOADED"].contains(&code.as_str())), "{codes:?}");
        refused = codes.get("OVERLOADED").copied().unwrap_or_default();
        if refused > 0 {
            break;
        }
    }
    assert!(refused > 0, "nothing was refused");

    let mut socket = probe.connect(server.address).await;
    sleep(RECOVERED_AFTER).await;
    for number in 0..20 {
        let (.., frame) = probe.message(number);
        let answer = timeout(Duration::from_secs(2), socket.request(frame)).await.expect("an answer as before");
        assert_eq!(answer["type"], "ack", "{answer}");
    }

    let grown = resident_bytes_max(&server).saturating_sub(idle_bytes);
    println!("{} MiB more than idle at most", grown >> 20);
    assert!(grown < GROWTH_BYTES_MAX, "the memory grew by {} MiB", grown >> 20);

    let mut dump = Dump { logs: BTreeMap::new(), away: Vec::new() };
    for client in clients.iter().step_by(2) {
        let log = read_log(server.address, &client.token, &client.conversation).await;
        dump.logs.insert(client.conversation.clone(), log);
    }
    let report = checker::check(&history, &dump).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{report:?}");
    assert_eq!(report.unknown, 0, "every send is acked or refused: {report:?}");
    assert!(report.acked > CLIENTS && report.received > CLIENTS, "{report:?}");
}

fn start(data: &Path, settings: &[(&str, String)]) -> Process {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    tokio::task::block_in_place(|| Process::start(data, &settings))
}

/// In the order of the pairs.
fn clients(made: &Value) -> Vec<Client> {
    let users = made["users"].as_array().unwrap();
    let of = |conversation: &Value, user: &Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let user = &users[user.as_u64().unwrap() as usize];
        Client { user: text(&user["id"]), conversation: text(&conversation["id"]), token: text(&user["access_token"]) }
    };
    let pairs = made["conversations"].as_array().unwrap().iter();
    pairs.flat_map(|pair| pair["members"].as_array().unwrap().iter().map(move |user| of(pair, user))).collect()
}

/// The most memory that the process had so far.
fn resident_bytes_max(server: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Each client sends one message after the other, each after its ack: messages per second of all, and what happened.
async fn closed_loop(address: SocketAddr, clients: &[Client]) -> (usize, Vec<Event>) {
    let together = Arc::new(Barrier::new(clients.len()));
    let mut tasks = JoinSet::new();
    for client in clients {
        let client = client.clone();
        let together = together.clone();
        tasks.spawn(async move {
            let mut socket = client.connect(address).await;
            together.wait().await;
            let end = Instant::now() + MEASURED;
            let mut history = Vec::new();
            for number in 0.. {
                if Instant::now() > end {
                    break;
                }
                let (name, body, frame) = client.message(number);
                history.push(Event::Sent { name: name.clone(), body: body.clone() });
                let answer = socket.try_request(frame).await.expect("the connection holds");
                assert_eq!(answer["type"], "ack", "{answer}");
                history.push(Event::Acked { name, body, seq: answer["seq"].as_i64().unwrap() });
            }
            history
        });
    }
    let history: Vec<Event> = tasks.join_all().await.into_iter().flatten().collect();
    (history.len() / 2 / MEASURED.as_secs() as usize, history)
}

/// What one client has under way, by the number of the request, and what it has seen.
#[derive(Default)]
struct Seen {
    open: HashMap<u64, (Name, String)>,
    history: Vec<Event>,
    codes: BTreeMap<String, usize>,
}

/// All clients together send so many messages per second and wait for nothing: answers by their kind, and what happened.
async fn open_loop(address: SocketAddr, clients: &[Client], per_second: usize, lasts: Duration) -> (BTreeMap<String, usize>, Vec<Event>) {
    let pause = Duration::from_secs_f64(clients.len() as f64 / per_second as f64);
    let together = Arc::new(Barrier::new(clients.len()));
    let under_way = Arc::new(AtomicUsize::new(clients.len()));
    let mut tasks = JoinSet::new();
    for (at, client) in clients.iter().cloned().enumerate() {
        let (together, under_way) = (together.clone(), under_way.clone());
        tasks.spawn(async move {
            let (send, receive) = client.connect(address).await.split();
            together.wait().await;
            let begin = Instant::now() + pause * at as u32 / CLIENTS as u32;
            let seen = Arc::new(Mutex::new(Seen::default()));
            let reader = tokio::spawn(listen(receive, seen.clone()));
            offer(&client, send, &seen, begin, pause, lasts).await;
            // The answers to the last ones are still to come.
            let end = Instant::now() + Duration::from_secs(30);
            while !seen.lock().unwrap().open.is_empty() && Instant::now() < end {
                sleep(Duration::from_millis(50)).await;
            }
            // And what the others say until they have all of theirs.
            under_way.fetch_sub(1, Ordering::SeqCst);
            while under_way.load(Ordering::SeqCst) > 0 {
                sleep(Duration::from_millis(50)).await;
            }
            assert!(!reader.is_finished(), "the server closed a connection: {:?}", reader.await);
            reader.abort();
            std::mem::take(&mut *seen.lock().unwrap())
        });
    }
    let (mut codes, mut history) = (BTreeMap::new(), Vec::new());
    for seen in tasks.join_all().await {
        seen.codes.into_iter().for_each(|(code, count)| *codes.entry(code).or_default() += count);
        history.extend(seen.history);
    }
    (codes, history)
}

async fn offer(client: &Client, mut send: SendHalf, seen: &Mutex<Seen>, begin: Instant, pause: Duration, lasts: Duration) {
    let mut next = begin;
    let mut number = 0;
    while next < begin + lasts {
        // Who is late does not wait: the rate is kept.
        sleep_until(next).await;
        next += pause;
        let (name, body, frame) = client.message(number);
        number += 1;
        {
            let mut seen = seen.lock().unwrap();
            seen.history.push(Event::Sent { name: name.clone(), body: body.clone() });
            seen.open.insert(send.next_id(), (name, body));
        }
        assert!(send.send(frame).await, "the connection holds");
        if Instant::now() > begin + lasts {
            return;
        }
    }
}

async fn listen(mut receive: ReceiveHalf, seen: Arc<Mutex<Seen>>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    while let Ok(frame) = receive.next().await {
        let mut seen = seen.lock().unwrap();
        let seq = frame["seq"].as_i64().unwrap_or_default();
        if frame["type"] == "message" {
            let name = Name {
                sender: text(&frame["sender_id"]),
                conversation: text(&frame["conversation_id"]),
                client_msg_id: text(&frame["client_msg_id"]),
            };
            seen.history.push(Event::Received { name, body: text(&frame["text"]), seq });
            continue;
        }
        let Some((name, body)) = frame["id"].as_u64().and_then(|id| seen.open.remove(&id)) else { continue };
        let code = if frame["type"] == "ack" { "ack".to_owned() } else { text(&frame["code"]) };
        match code.as_str() {
            "ack" => seen.history.push(Event::Acked { name, body, seq }),
            "OVERLOADED" => {
                assert!(frame["retry_after_ms"].is_u64(), "{frame}");
                seen.history.push(Event::Refused { name });
            }
            _ => {}
        }
        *seen.codes.entry(code).or_default() += 1;
    }
}
