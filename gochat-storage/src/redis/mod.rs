//! Redis, one server or a Cluster: routes that all processes share, and the cache tier behind each process's own.
//!
//! ```text
//! a call ─► parts (by slot) ─► one pipeline per server, all at once ─► answers in the order of the items
//!             │ MOVED, ASK ─► once more where the slot is now        NOSCRIPT ─► once more behind SCRIPT LOAD
//!             └ no connection ─► UNAVAILABLE at once; the connection mends itself in the background
//! ```
//!
//! A call costs one round trip, whatever it names: on one server one pipeline, in a Cluster one pipeline for each server
//! concerned, side by side. The Cluster client of the driver refuses pipelines over several slots, so the map of the slots is
//! kept here ([`slots`]).
//!
//! Everything in Redis can be told again: routes by gateways, copies by the store. Losing all of it loses nothing. Dropping single
//! keys is another matter: a refusal of old copies must not go before its time, so Redis runs with `maxmemory-policy noeviction`
//! or `volatile-lru`, not with one that prefers what ends soon.
//!
//! Invariant: a server that is away costs a call one response timeout at most, and only those calls that were on their way;
//! later ones are refused at once until it answers again.

mod cache;
mod node;
mod routes;
mod scripts;
mod slots;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use gochat_core::error::{Code, Error, Result};
use redis::{Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline, ServerError, ServerErrorKind, Value};
use tokio::time::{Instant, sleep, timeout};

use node::Node;
use slots::Slots;

pub use cache::RedisCache;
pub use routes::RedisRoutes;

/// Tries of one command: where it was sent first, where its slot has moved, and once more behind a script's loading.
const TRIES_MAX: usize = 4;
/// Keys of one command on one server: bounds how long one script keeps the others waiting (about half a millisecond).
const PART_KEYS_MAX: usize = 128;
/// How often the map of the slots is asked for at most, whoever finds it wrong.
const REFRESH_EVERY: Duration = Duration::from_millis(250);

/// Which Redis, and for how long it is waited for.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://[[user]:password@]host[:port][/database]`. One: a single server. Several: nodes of a Cluster, of which some must
    /// be reachable at the start; the others are learnt.
    pub urls: Vec<String>,
    /// Stands before every key: deployments that share a Redis differ in it.
    pub prefix: String,
    /// How long an answer may take.
    pub response_timeout: Duration,
    /// How long connecting may take, greeting included.
    pub connect_timeout: Duration,
    /// Pause between two attempts to connect to a server that is away.
    pub reconnect_every: Duration,
}

impl Default for RedisSettings {
    fn default() -> Self {
        RedisSettings {
            urls: vec!["redis://127.0.0.1:6379".into()],
            prefix: "gochat:".into(),
            response_timeout: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(1),
            reconnect_every: Duration::from_millis(250),
        }
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses may hold passwords.
        f.debug_struct("RedisSettings").field("servers", &self.urls.len()).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Connections to Redis. Cheap to clone; the last clone closes them.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    settings: RedisSettings,
    counters: Arc<Counters>,
    /// The servers that the settings name. In a Cluster they are asked for the map.
    seeds: Vec<Arc<Node>>,
    cluster: Option<Cluster>,
    runtime: tokio::runtime::Handle,
}

struct Cluster {
    slots: RwLock<Arc<Slots>>,
    refreshing: AtomicBool,
    /// When the map was last asked for in the background.
    refreshed: Mutex<Option<Instant>>,
}

/// Counters since the connections were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisStats {
    /// Pipelines that were sent to a server.
    pub round_trips: u64,
    /// Pipelines that were not answered, and those that were refused at once because the server is away.
    pub failures: u64,
    /// Connections that were made.
    pub connects: u64,
}

#[derive(Debug, Default)]
struct Counters {
    round_trips: AtomicU64,
    failures: AtomicU64,
    connects: AtomicU64,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("settings", &self.0.settings).field("cluster", &self.0.cluster.is_some()).field("stats", &self.stats()).finish()
    }
}

impl Redis {
    /// Connects. Answers after `connect_timeout` at the latest (in a Cluster two of them, since its map is fetched, too): a Redis
    /// that is away then is connected to when it comes, and until then [`ping`](Self::ping) and every call say so. Must be called
    /// on the runtime that shall carry the connections.
    ///
    /// # Errors
    /// `INVALID_FIELD` for an address that is none.
    pub async fn connect(settings: RedisSettings) -> Result<Redis> {
        if settings.urls.is_empty() {
            return Err(Error::new(Code::InvalidField, "redis needs at least one address"));
        }
        let runtime = tokio::runtime::Handle::current();
        let counters = Arc::new(Counters::default());
        let mut seeds = Vec::with_capacity(settings.urls.len());
        for url in &settings.urls {
            let info = url.as_str().into_connection_info().map_err(|error| {
                // Without the address itself: it may hold a password.
                Error::new(Code::InvalidField, "an address of redis is not of the form redis://host:port").with_source(error)
            })?;
            seeds
                .push(Node::start(info, &settings, counters.clone(), runtime.clone()).map_err(|error| {
                    Error::new(Code::InvalidField, "an address of redis cannot be used (TLS is not built in)").with_source(error)
                })?);
        }
        let cluster = (settings.urls.len() > 1).then(|| Cluster {
            slots: RwLock::new(Arc::new(Slots::unknown())),
            refreshing: AtomicBool::new(false),
            refreshed: Mutex::new(None),
        });
        let patience = settings.connect_timeout;
        let redis = Redis(Arc::new(Inner { settings, counters, seeds, cluster, runtime }));
        if timeout(patience * if redis.0.cluster.is_some() { 2 } else { 1 }, redis.ready()).await.is_err() {
            tracing::warn!("redis does not answer; it is connected to when it does");
        }
        Ok(redis)
    }

    /// Whether every server that keys may be on answers now.
    ///
    /// # Errors
    /// `UNAVAILABLE`, within the response timeout.
    pub async fn ping(&self) -> Result<()> {
        let nodes = match &self.0.cluster {
            None => self.0.seeds.clone(),
            Some(cluster) => {
                let slots = cluster.current();
                if !slots.complete() {
                    self.refresh_soon();
                    return Err(Error::new(Code::Unavailable, "the redis cluster does not serve all slots"));
                }
                slots.nodes().to_vec()
            }
        };
        let mut ping = Pipeline::new();
        ping.cmd("PING");
        for answer in join_all(nodes.iter().map(|node| node.call(&ping))).await {
            match answer?.first() {
                Some(Value::ServerError(refusal)) => return Err(refused(refusal)),
                Some(_) => {}
                None => return Err(Error::new(Code::Unavailable, "redis answered nothing")),
            }
        }
        Ok(())
    }

    /// Counters since the connections were made.
    pub fn stats(&self) -> RedisStats {
        let Counters { round_trips, failures, connects } = &*self.0.counters;
        RedisStats {
            round_trips: round_trips.load(Ordering::Relaxed),
            failures: failures.load(Ordering::Relaxed),
            connects: connects.load(Ordering::Relaxed),
        }
    }

    /// The full name of a key.
    fn key(&self, name: impl fmt::Display) -> String {
        format!("{}{name}", self.0.settings.prefix)
    }

    /// Parts the items of a call by where their keys are: each part becomes one command. Items of one key stay in one part, in
    /// their order.
    fn parts(&self, keys: impl Iterator<Item = String>) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let mut places: HashMap<String, (usize, usize)> = HashMap::new();
        let mut open: HashMap<u16, usize> = HashMap::new();
        for (item, key) in keys.enumerate() {
            let (part, place) = match places.get(&key) {
                Some(place) => *place,
                None => {
                    let slot = if self.0.cluster.is_some() { slots::slot_of(key.as_bytes()) } else { 0 };
                    let part = match open.get(&slot) {
                        Some(&part) if parts[part].keys.len() < PART_KEYS_MAX => part,
                        _ => {
                            parts.push(Part { slot, keys: Vec::new(), items: Vec::new() });
                            open.insert(slot, parts.len() - 1);
                            parts.len() - 1
                        }
                    };
                    parts[part].keys.push(key.clone());
                    places.insert(key, (part, parts[part].keys.len()));
                    (part, parts[part].keys.len())
                }
            };
            parts[part].items.push((item, place));
        }
        parts
    }

    /// Sends one command per part, all in one round trip, and answers in their order.
    async fn run(&self, commands: Vec<(u16, Cmd)>) -> Vec<Result<Value>> {
        self.deliver(commands, false).await.into_iter().map(|answer| answer.map(|(value, _)| value)).collect()
    }

    /// Like [`run`](Self::run). Each answer comes with the time of the server that gave it, in ms, taken in the same pipeline just
    /// before.
    async fn run_timed(&self, commands: Vec<(u16, Cmd)>) -> Vec<Result<(Value, u64)>> {
        self.deliver(commands, true).await
    }

    async fn deliver(&self, commands: Vec<(u16, Cmd)>, timed: bool) -> Vec<Result<(Value, u64)>> {
        let mut answers: Vec<Option<Result<(Value, u64)>>> = commands.iter().map(|_| None).collect();
        let mut waiting: Vec<Sending> = Vec::with_capacity(commands.len());
        let slots = self.0.cluster.as_ref().map(Cluster::current);
        for (index, (slot, command)) in commands.into_iter().enumerate() {
            match slots.as_ref().map_or(Some(&self.0.seeds[0]), |slots| slots.node(slot)) {
                Some(node) => waiting.push(Sending { index, command, node: node.clone(), asking: false, load: false }),
                None => {
                    self.refresh_soon();
                    answers[index] = Some(Err(Error::new(Code::Unavailable, "the redis cluster does not serve this slot")));
                }
            }
        }
        for _ in 0..TRIES_MAX {
            if waiting.is_empty() {
                break;
            }
            waiting = self.send(waiting, timed, &mut answers).await;
        }
        for unanswered in waiting {
            answers[unanswered.index] = Some(Err(Error::new(Code::Unavailable, "redis sends from server to server")));
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(Code::Unavailable.into()))).collect()
    }

    /// One round: a pipeline for each server. What has to be sent once more comes back.
    async fn send(&self, waiting: Vec<Sending>, timed: bool, answers: &mut [Option<Result<(Value, u64)>>]) -> Vec<Sending> {
        let mut batches: Vec<Batch> = Vec::with_capacity(1);
        for sending in waiting {
            let at = batches.iter().position(|batch| Arc::ptr_eq(&batch.node, &sending.node)).unwrap_or_else(|| {
                batches.push(Batch::new(sending.node.clone(), timed));
                batches.len() - 1
            });
            batches[at].add(sending);
        }
        let outcomes = join_all(batches.iter().map(|batch| batch.node.call(&batch.pipeline))).await;
        let mut again = Vec::new();
        for (batch, outcome) in batches.into_iter().zip(outcomes) {
            match outcome {
                Ok(values) => {
                    let now = if timed { values.first().and_then(time_of) } else { Some(0) };
                    let mut values: Vec<Option<Value>> = values.into_iter().map(Some).collect();
                    for (index, at) in &batch.sent {
                        match values.get_mut(*at).and_then(Option::take) {
                            Some(Value::ServerError(refusal)) => match self.once_more(&batch, *index, *at, &refusal) {
                                Some(sending) => again.push(sending),
                                None => answers[*index] = Some(Err(refused(&refusal))),
                            },
                            Some(value) => answers[*index] = Some(now.map(|now| (value, now)).ok_or_else(misunderstood)),
                            None => answers[*index] = Some(Err(Error::new(Code::Unavailable, "redis answered too little"))),
                        }
                    }
                }
                Err(error) => {
                    self.refresh_soon();
                    for (index, _) in &batch.sent {
                        answers[*index] = Some(Err(error.same()));
                    }
                }
            }
        }
        again
    }

    /// What a refusal asks for, if it is to be sent once more.
    fn once_more(&self, batch: &Batch, index: usize, at: usize, refusal: &ServerError) -> Option<Sending> {
        let kind = refusal.kind()?;
        let command = batch.pipeline.cmd_iter().nth(at)?.clone();
        let sending = Sending { index, command, node: batch.node.clone(), asking: false, load: false };
        match kind {
            ServerErrorKind::NoScript => Some(Sending { load: true, ..sending }),
            ServerErrorKind::Moved | ServerErrorKind::Ask => {
                self.0.cluster.as_ref()?;
                if kind == ServerErrorKind::Moved {
                    self.refresh_soon();
                }
                // "<slot> <host>:<port>"
                let (host, port) = refusal.details()?.split_once(' ')?.1.rsplit_once(':')?;
                let node = self.node_at(&batch.node, host, port.parse().ok()?)?;
                Some(Sending { node, asking: kind == ServerErrorKind::Ask, ..sending })
            }
            ServerErrorKind::ReadOnly => {
                // It has become a replica: its name may lead to another server by now.
                batch.node.reconnect();
                self.refresh_soon();
                None
            }
            ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown => {
                self.refresh_soon();
                None
            }
            _ => None,
        }
    }

    /// The known server at this address. One that is not known yet is learnt with the next map.
    fn node_at(&self, asked: &Arc<Node>, host: &str, port: u16) -> Option<Arc<Node>> {
        let host = if host.is_empty() { asked.host() } else { host };
        let slots = self.0.cluster.as_ref()?.current();
        slots.nodes().iter().chain(&self.0.seeds).find(|node| node.is_at(host, port)).cloned()
    }

    /// Waits until the first calls can be answered.
    async fn ready(&self) {
        loop {
            for node in &self.0.seeds {
                let known = self.0.cluster.is_none();
                if known {
                    node.connected().await;
                    return;
                }
                if node.is_connected() && self.refresh().await {
                    let slots = self.0.cluster.as_ref().map(Cluster::current);
                    for node in slots.iter().flat_map(|slots| slots.nodes()) {
                        node.connected().await;
                    }
                    return;
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks for the map of the slots in the background, unless that has just been done.
    fn refresh_soon(&self) {
        let Some(cluster) = &self.0.cluster else { return };
        if cluster.refreshed.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|last| last.elapsed() < REFRESH_EVERY) {
            return;
        }
        if !cluster.refreshing.swap(true, Ordering::AcqRel) {
            *cluster.refreshed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            let redis = self.clone();
            self.0.runtime.spawn(async move {
                let _ = redis.refresh().await;
                if let Some(cluster) = &redis.0.cluster {
                    cluster.refreshing.store(false, Ordering::Release);
                }
            });
        }
    }

    /// Asks one server after the other for the map of the slots, until one knows it.
    async fn refresh(&self) -> bool {
        let Some(cluster) = &self.0.cluster else { return true };
        let mut ask = Pipeline::new();
        ask.cmd("CLUSTER").arg("SLOTS");
        let known = cluster.current();
        for node in known.nodes().iter().chain(&self.0.seeds).filter(|node| node.is_connected()) {
            let Ok(mut answer) = node.call(&ask).await else { continue };
            let Some(ranges) = answer.pop().and_then(|answer| slots::parse(&answer, node.host())) else { continue };
            let find = |host: &str, port: u16| {
                if let Some(found) = known.nodes().iter().chain(&self.0.seeds).find(|node| node.is_at(host, port)) {
                    return Some(found.clone());
                }
                let info: ConnectionInfo = node.info().clone().set_addr(ConnectionAddr::Tcp(host.to_owned(), port));
                Node::start(info, &self.0.settings, self.0.counters.clone(), self.0.runtime.clone()).ok()
            };
            let slots = Slots::of(&ranges, find);
            if !slots.nodes().is_empty() {
                *cluster.slots.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(slots);
                return true;
            }
        }
        false
    }
}

impl Cluster {
    fn current(&self) -> Arc<Slots> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Items whose keys one command can name.
struct Part {
    slot: u16,
    keys: Vec<String>,
    /// The number of the item in the call and the place of its key here, counted from 1 as in Lua.
    items: Vec<(usize, usize)>,
}

/// A command on its way.
struct Sending {
    index: usize,
    command: Cmd,
    node: Arc<Node>,
    /// Its slot is just moving: the server wants to hear that we know.
    asking: bool,
    /// The server does not know the script.
    load: bool,
}

/// What one server gets in one round.
struct Batch {
    node: Arc<Node>,
    pipeline: Pipeline,
    /// Which command stands where in the pipeline.
    sent: Vec<(usize, usize)>,
}

impl Batch {
    /// Nothing yet but the question for the time, if that is wanted.
    fn new(node: Arc<Node>, timed: bool) -> Self {
        let mut pipeline = Pipeline::new();
        if timed {
            pipeline.cmd("TIME");
        }
        Batch { node, pipeline, sent: Vec::new() }
    }

    fn add(&mut self, sending: Sending) {
        if sending.load && self.sent.is_empty() {
            for load in scripts::load_all() {
                self.pipeline.add_command(load);
            }
        }
        if sending.asking {
            self.pipeline.cmd("ASKING");
        }
        self.sent.push((sending.index, self.pipeline.len()));
        self.pipeline.add_command(sending.command);
    }
}

fn refused(refusal: &ServerError) -> Error {
    let hint = match refusal.kind() {
        Some(ServerErrorKind::Moved) => "this redis is part of a cluster: name several of its nodes",
        _ => "redis refused a command",
    };
    Error::new(Code::Unavailable, hint).with_source(refusal.to_string())
}

fn misunderstood() -> Error {
    Error::new(Code::Unavailable, "redis answered in another form than was asked for")
}

/// The answer to `TIME`, in ms.
fn time_of(answer: &Value) -> Option<u64> {
    let Value::Array(parts) = answer else { return None };
    let [Value::BulkString(seconds), Value::BulkString(micros)] = parts.as_slice() else { return None };
    number(seconds)?.checked_mul(1000)?.checked_add(number(micros)? / 1000)
}

/// A number in decimal digits, and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// A number as text that sorts like it: Lua's own numbers are exact to 2^53 only.
fn sortable(number: i64) -> String {
    format!("{:020}", number.cast_unsigned() ^ (1 << 63))
}

fn from_sortable(text: &[u8]) -> Option<i64> {
    Some((number(text)? ^ (1 << 63)).cast_signed())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_or_refused_whole() {
        let time = |seconds: &str, micros: &str| Value::Array([seconds, micros].map(|part| Value::BulkString(part.into())).to_vec());
        assert_eq!(time_of(&time("1700000000", "123999")), Some(1_700_000_000_123));
        for (seconds, micros) in [("", "1"), ("1", "x"), ("-1", "1"), ("+1", "1"), ("18446744073709551615", "1"), ("18446744073709551616", "1")] {
            assert_eq!(time_of(&time(seconds, micros)), None);
        }
        assert_eq!(time_of(&Value::Nil), None);
    }

    #[test]
    fn numbers_sort_as_text_like_themselves() {
        let numbers = [i64::MIN, -1, 0, 1, 9, 10, (1 << 53) - 1, 1 << 53, (1 << 53) + 1, i64::MAX];
        let texts: Vec<String> = numbers.iter().map(|number| sortable(*number)).collect();
        assert!(texts.is_sorted() && texts.iter().all(|text| text.len() == 20));
        for (number, text) in numbers.iter().zip(&texts) {
            assert_eq!(from_sortable(text.as_bytes()), Some(*number));
        }
    }
}
