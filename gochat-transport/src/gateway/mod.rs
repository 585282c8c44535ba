//! The gateway: HTTP and WebSocket for clients, on an axum router that a host can nest in its own.
//!
//! ```text
//! accept -> http1 -> routes                                        any runtime
//!                 -> upgrade -> shard: a thread with its connections
//!                                 reader (per connection): frames -> requests -> im-upstream-topic, LogicApi
//!                                 turn: im-downstream-topic-{gateway} -> one write per connection
//!                                 sweep: pings, deadlines, stalls
//! ```
//!
//! Owns sockets, who is connected here, and the limits of the wire (docs/protocol.md §6). Decides nothing about messages:
//! an ack is passed on when logic sends it, never made here. Queues are bounded; when one is full the client is refused.
//!
//! | file | what it holds |
//! |---|---|
//! | `accept`, `upgrade` | the way in |
//! | `websocket` | frames: header check, fragments, parser |
//! | `reader`, `requests` | what a connection reads, and what it leads to |
//! | `connection`, `shard` | what a connection is told, and by whom |
//! | `presence`, `marks` | authentication, routes; marks |
//! | `frames`, `codec`, `json`, `protobuf`, [`wire`] | what is said, and its forms |
//! | [`http`] | everything that is asked over HTTP |

mod accept;
mod codec;
mod connection;
#[cfg(feature = "echo")]
#[doc(hidden)]
pub mod echo;
mod frames;
pub mod http;
mod json;
mod marks;
mod presence;
mod protobuf;
mod reader;
mod requests;
mod settings;
mod shard;
mod stats;
mod upgrade;
mod websocket;
pub mod wire;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use gochat_core::{
    error::{Code, Error, Result},
    ids::GatewayId,
    model::Caller,
    ports::{Ack, Authenticator, Bus, Downstream, LogicApi, Record, Refusal, Route, Routes, SendRequest, Stored, Subscription, Topic},
    rules,
    time::{Clock, IdGenerator},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

pub use accept::{Peer, listen};
pub use settings::GatewaySettings;
pub use stats::GatewayStats;

use accept::Admissions;
use marks::Marks;
use presence::{AUTH_JOBS_MAX, AuthJob, DETACHED_MAX, Devices, Lease};
use shard::{Command, SHARDS_MAX, Shard, shard_of};
use stats::Counters;
use websocket::close;

/// Downstream records that are taken at once.
const RECORDS_MAX: usize = 256;
/// Tasks that verify tokens.
const AUTH_WORKERS: usize = 2;
/// In the place of a shard: the answer is for an HTTP request that waits.
const WAITING: u64 = (SHARDS_MAX as u64) << 56;
/// How often a drain looks whether it is done.
const DRAIN_STEP: Duration = Duration::from_millis(10);
/// Silence of all clients after which nothing of theirs is on the wire, as far as can be told, and how long it is waited for.
const QUIET: Duration = Duration::from_millis(150);
const QUIET_WITHIN: Duration = Duration::from_secs(1);

/// What a gateway needs.
#[derive(Clone, Debug)]
pub struct GatewayPorts {
    /// Its stable name.
    pub id: GatewayId,
    /// Carries messages up and everything down.
    pub bus: Arc<dyn Bus>,
    /// Where it says who is connected here.
    pub routes: Arc<dyn Routes>,
    /// Serves everything but sending.
    pub api: Arc<dyn LogicApi>,
    /// Knows who a token belongs to.
    pub authenticator: Arc<dyn Authenticator>,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// Ids of messages.
    pub ids: Arc<dyn IdGenerator>,
}

/// A gateway. Its threads end when it is dropped.
pub struct Gateway {
    shared: Arc<Shared>,
    shards: Vec<(Arc<Shard>, mpsc::Sender<Command>)>,
    next_shard: AtomicU64,
    queues: Mutex<Option<Queues>>,
}

/// What every part of a gateway sees.
struct Shared {
    ports: GatewayPorts,
    settings: GatewaySettings,
    counters: Counters,
    started: Instant,
    /// Tells this run's connections from those of other runs.
    boot: u32,
    draining: AtomicBool,
    admissions: Arc<Admissions>,
    devices: Devices,
    lease: Lease,
    marks: Marks,
    auth_jobs: Vec<mpsc::Sender<AuthJob>>,
    detached: mpsc::Sender<Route>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<std::result::Result<Stored, Refusal>>>>,
    next_waiting: AtomicU64,
}

/// The other ends of what [`Shared`] sends to; [`Gateway::run`] takes them.
struct Queues {
    auth_jobs: Vec<mpsc::Receiver<AuthJob>>,
    detached: mpsc::Receiver<Route>,
}

impl Gateway {
    /// A gateway with its threads. It authenticates and delivers once [`run`](Self::run) runs.
    pub fn new(ports: GatewayPorts, settings: GatewaySettings) -> Arc<Gateway> {
        let (auth_jobs, auth_queues) = (0..AUTH_WORKERS).map(|_| mpsc::channel(AUTH_JOBS_MAX)).unzip();
        let (detached, detached_queue) = mpsc::channel(DETACHED_MAX);
        let mut boot = [0; 4];
        ports.ids.random(&mut boot);
        let boot = u32::from_le_bytes(boot);
        let shared = Arc::new(Shared {
            counters: Counters::default(),
            started: Instant::now(),
            boot,
            draining: AtomicBool::new(false),
            admissions: Arc::default(),
            devices: Devices::default(),
            lease: Lease::default(),
            marks: Marks::new(settings.marks_waiting_max),
            auth_jobs,
            detached,
            waiting: Mutex::default(),
            next_waiting: AtomicU64::new(u64::from(boot) << 24),
            ports,
            settings,
        });
        let mut shards = Vec::new();
        for index in 0..shared.settings.shards.clamp(1, SHARDS_MAX) {
            match Shard::start(index, shared.clone()) {
                Ok(shard) => shards.push(shard),
                // With none at all, upgrades are answered with UNAVAILABLE.
                Err(error) => tracing::error!(%error, "a shard's thread could not be started"),
            }
        }
        let queues = Mutex::new(Some(Queues { auth_jobs: auth_queues, detached: detached_queue }));
        Arc::new(Gateway { shared, shards, next_shard: AtomicU64::new(0), queues })
    }

    /// The routes of `/api/v1`, to be served or nested.
    pub fn router(self: &Arc<Self>) -> Router {
        http::routes(self, get(upgrade::upgrade).with_state(self.clone()))
    }

    /// Sends a message for an HTTP request and waits until it is stored. `TIMEOUT_UNKNOWN`: no answer in time; the same
    /// request may be repeated. `OVERLOADED`: nothing was accepted.
    pub async fn send(&self, caller: &Caller, request: SendRequest) -> Result<Stored> {
        let shared = &self.shared;
        shared.accepts_sends()?;
        rules::check_body(&request.body)?;
        let waiting = Waiting::new(shared)?;
        let record = shared.upstream(caller, request, waiting.id, 0);
        shared.ports.bus.offer(&Topic::Upstream, vec![record]).map_err(|error| {
            shared.counters.overloaded.one();
            requests::overloaded(error)
        })?;
        shared.counters.sends.one();
        waiting.answer().await
    }

    /// Takes the gateway's own topic: what is said from now on reaches its connections. To be done before it serves.
    pub async fn subscribe(&self) -> Result<Arc<dyn Subscription>> {
        let topic = Topic::Downstream(self.shared.ports.id.clone());
        self.shared.ports.bus.subscribe(&topic, &format!("im-gateway-{}", self.shared.ports.id)).await
    }

    /// Authenticates and delivers what comes over `downstream`; ends when the bus closes. To be run once, for as long as the
    /// gateway serves.
    pub async fn run(self: Arc<Self>, downstream: Arc<dyn Subscription>) -> Result<()> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Queues { auth_jobs, detached }) = queues else {
            return Err(Error::internal("this gateway runs already"));
        };
        let mut upkeep = JoinSet::new();
        for jobs in auth_jobs {
            upkeep.spawn(self.shared.clone().verify_tokens(jobs));
        }
        upkeep.spawn(self.shared.clone().detach_routes(detached));
        upkeep.spawn(self.shared.clone().renew_routes(self.shards().collect()));
        upkeep.spawn(self.shared.clone().raise_marks());
        let ended = self.deliver(&*downstream).await;
        upkeep.shutdown().await;
        self.shared.flush_marks().await;
        ended
    }

    /// Ends the connections: takes no new ones, refuses what is sent from now on, lets sends that are under way be answered, also
    /// those that are still on the wire, closes every socket with 4000. Answers when all are closed, or at the deadline.
    pub async fn drain(&self, deadline: Duration) {
        self.shared.draining.store(true, Ordering::Relaxed);
        let end = Instant::now() + deadline;
        let shards: Vec<Arc<Shard>> = self.shards().collect();
        let last_answer = end - self.shared.settings.linger.min(deadline / 2);
        while Instant::now() < last_answer && (self.shared.sends_waiting(&shards) || !self.shared.lock_waiting().is_empty()) {
            sleep(DRAIN_STEP).await;
        }
        self.quiet(last_answer.min(Instant::now() + QUIET_WITHIN)).await;
        let _ = timeout(end.saturating_duration_since(Instant::now()) / 2, self.shared.flush_marks()).await;
        self.each_connection(|connection| connection.close(close::DRAIN)).await;
        while Instant::now() < end && self.shared.counters.connections.get() > 0 {
            sleep(DRAIN_STEP).await;
        }
        self.each_connection(|connection| connection.kill()).await;
    }

    /// Waits until nothing more comes that clients had sent before they could know of the drain.
    async fn quiet(&self, end: Instant) {
        let frames = || self.shared.counters.frames_in.get();
        let (mut seen, mut since) = (frames(), Instant::now());
        while Instant::now() < end && since.elapsed() < QUIET {
            sleep(DRAIN_STEP).await;
            if frames() != seen {
                (seen, since) = (frames(), Instant::now());
            }
        }
    }

    /// What it has counted.
    pub fn stats(&self) -> GatewayStats {
        self.shared.counters.read()
    }

    /// What it was given.
    pub fn ports(&self) -> &GatewayPorts {
        &self.shared.ports
    }

    /// Its limits.
    pub fn settings(&self) -> &GatewaySettings {
        &self.shared.settings
    }

    fn shards(&self) -> impl Iterator<Item = Arc<Shard>> {
        self.shards.iter().map(|(shard, _)| shard.clone())
    }

    fn shard_for_next(&self) -> Option<mpsc::Sender<Command>> {
        let next = self.next_shard.fetch_add(1, Ordering::Relaxed) as usize;
        self.shards.get(next % self.shards.len().max(1)).map(|(_, commands)| commands.clone())
    }

    /// Feeds the shards from the gateway's own topic.
    async fn deliver(&self, subscription: &dyn Subscription) -> Result<()> {
        let shards: Vec<Arc<Shard>> = self.shards().collect();
        loop {
            let batch = match subscription.next(RECORDS_MAX).await {
                Ok(batch) => batch,
                Err(error) if error.code == Code::Unavailable => return Ok(()),
                Err(error) => return Err(error),
            };
            let records = batch.records.into_iter().filter_map(|record| match record {
                Record::Downstream(downstream) => Some(downstream),
                other => {
                    tracing::error!(?other, "not a downstream record");
                    None
                }
            });
            let records: Arc<[Arc<Downstream>]> = records.collect();
            self.shared.hold_lease(&shards).await;
            for record in records.iter() {
                record.signals.iter().for_each(|signal| self.shared.heed(signal));
                record.acks.iter().filter(|ack| shard_of(ack.connection) == SHARDS_MAX).for_each(|ack| self.shared.resolve(ack));
            }
            for (_, commands) in &self.shards {
                // The shard always drains: its outboxes never wait for a peer.
                let _ = commands.send(Command::Deliver(records.clone())).await;
            }
            if let Err(error) = subscription.commit(batch.position).await {
                tracing::debug!(%error, "commit refused: these records may come again");
            }
        }
    }

    async fn each_connection(&self, act: impl Fn(&Arc<connection::Connection>)) {
        const STEP: usize = 128;
        for (shard, _) in &self.shards {
            let mut from = 0;
            while let Some(connections) = shard.connections(from, STEP) {
                from += STEP;
                connections.iter().for_each(&act);
                tokio::task::yield_now().await;
            }
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("id", &self.shared.ports.id).field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl Shared {
    fn accepts_sends(&self) -> Result<()> {
        if self.draining.load(Ordering::Relaxed) { Err(Error::from(Code::Draining).retry_after(Duration::from_secs(1))) } else { Ok(()) }
    }

    fn accepts_connections(&self) -> Result<()> {
        self.accepts_sends()?;
        if self.counters.connections.get() >= self.settings.connections_max as u64 {
            return Err(Error::from(Code::TooManyConnections).retry_after(Duration::from_secs(10)));
        }
        Ok(())
    }

    fn resolve(&self, ack: &Ack) {
        // Absent: the answer came too late, or for the second time.
        if let Some(waiting) = self.lock_waiting().remove(&ack.connection) {
            let _ = waiting.send(ack.outcome.clone());
        }
    }

    fn lock_waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<std::result::Result<Stored, Refusal>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An HTTP request that waits for its message to be stored.
struct Waiting<'a> {
    id: u64,
    shared: &'a Shared,
    answer: oneshot::Receiver<std::result::Result<Stored, Refusal>>,
}

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Result<Self> {
        let (sender, answer) = oneshot::channel();
        let id = WAITING | (shared.next_waiting.fetch_add(1, Ordering::Relaxed) & (u64::MAX >> 8));
        let mut waiting = shared.lock_waiting();
        if waiting.len() >= shared.settings.sends_waiting_max {
            return Err(requests::overloaded(Code::Overloaded.into()));
        }
        waiting.insert(id, sender);
        Ok(Waiting { id, shared, answer })
    }

    async fn answer(mut self) -> Result<Stored> {
        match timeout(self.shared.settings.send_deadline, &mut self.answer).await {
            Ok(Ok(Ok(stored))) => Ok(stored),
            Ok(Ok(Err(Refusal { code, message, retry_after_ms }))) => {
                let error = Error::new(code, message);
                Err(match retry_after_ms {
                    Some(wait) => error.retry_after(Duration::from_millis(wait)),
                    None => error,
                })
            }
            Ok(Err(_)) | Err(_) => Err(Code::TimeoutUnknown.into()),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.lock_waiting().remove(&self.id);
    }
}
