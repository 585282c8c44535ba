//! Clients that go on whatever happens to the server: senders who repeat until their ack, followers who keep a log as an
//! application would. What they do and see is written down for the [checker](crate::checker).

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    checker::{self, Away, Event, Name},
    client::{Closed, ReceiveHalf, SendHalf, Socket, http, new_id},
};

/// How long a client waits for an answer before it tries another gateway.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a follower shows that it is there, and how long it hears nothing before it tries another gateway.
const PING_EVERY: Duration = Duration::from_secs(4);
/// How long a gap may stay before a follower pulls.
const GAP_FOR: Duration = Duration::from_secs(1);

/// What clients did and saw, in order. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct History {
    events: Arc<Mutex<Vec<Event>>>,
    acked: Arc<AtomicUsize>,
}

impl History {
    fn note(&self, event: Event) {
        if matches!(event, Event::Acked { .. }) {
            self.acked.fetch_add(1, Ordering::Relaxed);
        }
        self.events.lock().unwrap().push(event);
    }

    /// Messages acked so far.
    pub fn acked(&self) -> usize {
        self.acked.load(Ordering::Relaxed)
    }

    /// The highest seq that was acked in each conversation so far.
    pub fn heads(&self) -> BTreeMap<String, i64> {
        let mut heads = BTreeMap::new();
        for event in self.events.lock().unwrap().iter() {
            if let Event::Acked { name, seq, .. } = event {
                let head = heads.entry(name.conversation.clone()).or_default();
                *head = (*seq).max(*head);
            }
        }
        heads
    }

    /// Everything, in order.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }
}

/// Somebody who sends to one conversation, and writes down what happens.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Tried one after the other.
    pub gateways: Vec<SocketAddr>,
    pub token: String,
    pub user: String,
    pub conversation: String,
    /// Between two messages.
    pub pause: Duration,
    pub history: History,
}

impl Sender {
    /// Sends one message after the other, each until its ack; reconnects as a client does.
    pub async fn keep_sending(&self, stop: &AtomicBool) {
        let mut number = 0;
        let mut pending: Option<(Name, String)> = None;
        let mut gateways = self.gateways.iter().cycle();
        'connection: while pending.is_some() || !stop.load(Ordering::Relaxed) {
            let Some(mut socket) = connect(*gateways.next().unwrap(), &self.token).await else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            while pending.is_some() || !stop.load(Ordering::Relaxed) {
                let (name, body) = pending.clone().unwrap_or_else(|| {
                    number += 1;
                    let name = Name { sender: self.user.clone(), conversation: self.conversation.clone(), client_msg_id: new_id() };
                    (name, format!("message {number}"))
                });
                pending = Some((name.clone(), body.clone()));
                self.history.note(Event::Sent { name: name.clone(), body: body.clone() });
                let send = json!({"type": "send", "conversation_id": name.conversation, "client_msg_id": name.client_msg_id, "text": body});
                let Some(answer) = exchange(&mut socket, send).await else { continue 'connection };
                if answer["type"] == "ack" {
                    self.history.note(Event::Acked { name, body, seq: answer["seq"].as_i64().unwrap() });
                    pending = None;
                    sleep(self.pause).await;
                    continue;
                }
                let code = answer["code"].as_str().unwrap_or("");
                match code {
                    "OVERLOADED" | "RATE_LIMITED" | "DRAINING" => self.history.note(Event::Refused { name }),
                    _ => assert!(["UNAVAILABLE", "TIMEOUT_UNKNOWN"].contains(&code), "{answer}"),
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// An authenticated connection; `None` if there is none to be had now.
async fn connect(gateway: SocketAddr, token: &str) -> Option<Socket> {
    let connecting = async {
        let mut socket = Socket::try_open(gateway, "/api/v1/ws", &[]).await.ok()?;
        let ready = exchange(&mut socket, json!({"type": "auth", "token": token})).await?;
        (ready["type"] == "ready").then_some(socket)
    };
    timeout(PATIENCE, connecting).await.ok().flatten()
}

/// A request and its answer; `None` if the connection broke.
async fn exchange(socket: &mut Socket, request: Value) -> Option<Value> {
    timeout(PATIENCE, socket.try_request(request)).await.ok()?.ok()
}

/// How far the logs of the followers' applications have got, by user and conversation. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<HashMap<(String, String), i64>>>);

impl Progress {
    /// Who lacks something below these heads: user, conversation, what they have, what there is.
    pub fn behind(&self, heads: &BTreeMap<String, i64>) -> Vec<(String, String, i64, i64)> {
        let progress = self.0.lock().unwrap();
        let open = progress.iter().filter_map(|((user, conversation), have)| {
            let head = *heads.get(conversation)?;
            (*have < head).then(|| (user.clone(), conversation.clone(), *have, head))
        });
        open.collect()
    }
}

/// Somebody who is connected and keeps the log of each conversation as an application would (docs/protocol.md 7): in order,
/// without gaps, once. Pulls only when a push, a head or a resync says that there is something.
#[derive(Clone, Debug)]
pub struct Follower {
    pub gateways: Vec<SocketAddr>,
    pub token: String,
    pub user: String,
    pub conversations: Vec<String>,
    pub history: History,
    pub progress: Progress,
}

impl Follower {
    /// Follows until it is aborted.
    pub async fn follow(self) {
        let mut log = Log { have: self.conversations.iter().map(|id| (id.clone(), 0)).collect(), gap_since: None };
        self.conversations.iter().for_each(|id| self.advance(id, 0));
        for gateway in self.gateways.iter().cycle() {
            if let Some(socket) = connect(*gateway, &self.token).await {
                self.listen(socket, &mut log).await;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends when the connection does, or when nothing comes over it any more.
    async fn listen(&self, socket: Socket, log: &mut Log) {
        let (mut out, frames) = socket.split();
        if !log.pull(&mut out).await {
            return;
        }
        // Kept over all turns: a frame that has half arrived must not be dropped.
        let mut reading = Box::pin(receive(frames));
        let (mut heard, mut pinged) = (Instant::now(), Instant::now());
        loop {
            let wake = (pinged + PING_EVERY).min(log.gap_since.map_or(pinged + PING_EVERY, |since| since + GAP_FOR));
            tokio::select! {
                (frame, rest) = &mut reading => {
                    let Ok(frame) = frame else { return };
                    heard = Instant::now();
                    reading = Box::pin(receive(rest));
                    if !self.heed(&frame, log, &mut out).await {
                        return;
                    }
                }
                () = sleep_until(wake) => {
                    if heard.elapsed() > PATIENCE {
                        return;
                    }
                    if log.gap_since.is_some_and(|since| since.elapsed() >= GAP_FOR) && !log.pull(&mut out).await {
                        return;
                    }
                    if pinged.elapsed() >= PING_EVERY {
                        pinged = Instant::now();
                        if !out.send(json!({"type": "ping"})).await {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// `false`: the connection broke.
    async fn heed(&self, frame: &Value, log: &mut Log, out: &mut SendHalf) -> bool {
        match frame["type"].as_str() {
            Some("message") => self.keep(frame, log),
            Some("heads") => {
                let behind = |(id, head): (&String, &Value)| log.have.get(id).is_some_and(|have| *have < head.as_i64().unwrap_or(0));
                if frame["heads"].as_object().is_some_and(|heads| heads.iter().any(behind)) {
                    return log.pull(out).await;
                }
            }
            Some("resync") => return log.pull(out).await,
            Some("synced") => {
                let conversations = frame["conversations"].as_array().unwrap();
                conversations.iter().flat_map(|synced| synced["messages"].as_array().unwrap()).for_each(|message| self.keep(message, log));
                log.gap_since = None;
                if conversations.iter().any(|synced| synced["more"] == true) {
                    return log.pull(out).await;
                }
            }
            // What could not be answered now is asked for again.
            Some("error") => log.gap_since = Some(Instant::now()),
            _ => {}
        }
        true
    }

    /// Hands what comes next to the application, once and in order.
    fn keep(&self, message: &Value, log: &mut Log) {
        let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
        let (conversation, seq) = (text("conversation_id"), message["seq"].as_i64().unwrap());
        let Some(have) = log.have.get_mut(&conversation) else { return };
        if seq > *have + 1 {
            log.gap_since.get_or_insert_with(Instant::now);
        }
        if seq != *have + 1 {
            return;
        }
        *have = seq;
        if message["kind"] == "text" {
            let name = Name { sender: text("sender_id"), conversation: conversation.clone(), client_msg_id: text("client_msg_id") };
            self.history.note(Event::Received { name, body: text("text"), seq });
        }
        self.advance(&conversation, seq);
    }

    fn advance(&self, conversation: &str, seq: i64) {
        self.progress.0.lock().unwrap().insert((self.user.clone(), conversation.to_owned()), seq);
    }
}

async fn receive(mut frames: ReceiveHalf) -> (Result<Value, Closed>, ReceiveHalf) {
    (frames.next().await, frames)
}

/// What an application has.
struct Log {
    have: HashMap<String, i64>,
    /// Something is missing since then.
    gap_since: Option<Instant>,
}

impl Log {
    /// Asks for what is missing; `false`: the connection broke.
    async fn pull(&mut self, out: &mut SendHalf) -> bool {
        self.gap_since = None;
        out.send(json!({"type": "sync", "have": self.have})).await
    }
}

/// The access token of a provisioned user's first device.
pub fn token(crowd: &Value, user: usize) -> String {
    crowd["users"][user]["access_token"].as_str().unwrap().to_owned()
}

/// The id of a provisioned user.
pub fn id(crowd: &Value, user: usize) -> String {
    crowd["users"][user]["id"].as_str().unwrap().to_owned()
}

/// Users 10 and 11, 12 and 13, … talk to each other; both send.
pub async fn pairs(address: SocketAddr, crowd: &Value, count: usize) -> Vec<(usize, String)> {
    let mut pairs = Vec::new();
    for first in (10..10 + 2 * count).step_by(2) {
        let body = json!({"kind": "single", "participants": [id(crowd, first + 1)]});
        let chat = http(address, Method::POST, "/api/v1/conversations", Some(&token(crowd, first)), &[], Some(&body)).await.expect(201);
        let chat = chat["id"].as_str().unwrap().to_owned();
        pairs.extend([(first, chat.clone()), (first + 1, chat)]);
    }
    pairs
}

/// The pushes of a member of the group who was never connected: every message has one, also those whose dispatch a crash cut off.
pub async fn pushes(address: SocketAddr, crowd: &Value, conversation: &str, log: &[checker::Entry]) -> (Away, Vec<Event>) {
    // The last member of the group never connected.
    let members = crowd["conversations"].as_array().unwrap().iter().find(|item| item["id"] == conversation).unwrap()["members"].as_array().unwrap();
    let absent = members.last().unwrap().as_u64().unwrap() as usize;
    // The push log answers with its 200 newest entries, which are those of several conversations and devices.
    let newest: Vec<i64> = log.iter().rev().filter(|entry| entry.body.is_some()).map(|entry| entry.seq).take(20).collect();
    let away = Away { user: id(crowd, absent), conversation: conversation.into(), from: newest.last().copied().unwrap_or(0) };
    let began = tokio::time::Instant::now();
    loop {
        let found = http(address, Method::GET, "/api/v1/push/log?limit=200", Some(&token(crowd, absent)), &[], None).await.expect(200);
        let found: Vec<i64> = found["items"]
            .as_array()
            .unwrap()
            .iter()
            // One push for each device: those of the first one are looked at.
            .filter(|item| item["conversation_id"] == conversation && item["device_id"] == crowd["users"][absent]["device_id"])
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
