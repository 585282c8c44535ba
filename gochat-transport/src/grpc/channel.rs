//! Which endpoint answers a call, and what happens when it does not.
//!
//! ```text
//! call ─► round robin over the endpoints that are up ─► permit ─► request with a deadline ─► reply
//!   ▲                │ none is up: waits for those that connect                │
//!   │                └ all down: UNAVAILABLE at once                           ├ never sent: the next endpoint
//!   └────────────────── again, on the next endpoint ◄──────────────────────────┴ may have run: only what may be repeated
//!
//! endpoint: Idle ─► Connecting: name, TCP, HTTP/2, health check ─► Up ─► (broken, silent) Idle
//!                         └─► Down for a second ─► Idle
//! ```
//!
//! An endpoint is up only after it has answered a health check: a frozen process still accepts connections, its health does not
//! answer. Connecting runs in a task of its own, so calls go to the other endpoints meanwhile.
//!
//! What is repeated after it may have run:
//! - every call of the store: each of its methods may be repeated by contract, and its `UNAVAILABLE` says so;
//! - reading calls of logic. Its writes (register, create, manage …) are not: a second one would be told `USERNAME_TAKEN`
//!   or make a second group. Who called decides; the error is `TIMEOUT_UNKNOWN`.
//!
//! Invariant: no call waits beyond its deadline, and at most `in_flight_max` calls are under way on one endpoint.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use gochat_core::error::{Code, Error, Result};
use prost::Message;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout, timeout_at},
};
use tonic::{Request, Response, Status, transport};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

pub(super) use tonic::transport::Channel;

use super::{
    CONNECTION_WINDOW_BYTES, MESSAGE_BYTES_MAX, PING_AFTER, PING_TIMEOUT, STREAM_WINDOW_BYTES,
    errors::{self, Failure},
    wire::Wire,
};

/// How long an endpoint that could not be reached is left out.
const DOWN_FOR: Duration = Duration::from_secs(1);
/// Until a TCP connection stands, and until it stands and its health is known.
const TCP_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// When to try again where every endpoint is full.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// How a client calls.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// From a call to its answer; repetitions are included.
    pub deadline: Duration,
    /// The same for calls that hash a password and may queue for that.
    pub hash_deadline: Duration,
    /// Calls that one endpoint has under way; where all are full, `OVERLOADED`.
    pub in_flight_max: usize,
}

impl Default for ClientSettings {
    fn default() -> Self {
        ClientSettings { deadline: Duration::from_secs(5), hash_deadline: Duration::from_secs(15), in_flight_max: 512 }
    }
}

/// What kind of call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Changes nothing.
    Read,
    /// Changes something.
    Write,
    /// Changes something, and hashes a password.
    Hash,
}

/// Whom a client calls, and what that service's contract says of a call whose outcome is unknown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Role {
    /// The role's name for people.
    pub name: &'static str,
    /// Full name of the gRPC service.
    pub service: &'static str,
    /// Whether what changes something may be repeated as well.
    pub repeats_writes: bool,
    /// The error of a call that may have run.
    pub unknown: Code,
}

/// Calls of one service.
#[derive(Debug)]
pub(super) struct Calls {
    role: Role,
    settings: ClientSettings,
    endpoints: Vec<Arc<Endpoint>>,
    next: AtomicUsize,
}

impl Calls {
    pub fn new(role: Role, endpoints: &[String], settings: &ClientSettings) -> Result<Self> {
        if endpoints.is_empty() {
            return Err(Error::new(Code::InvalidField, format!("no endpoint of {} is named", role.name)));
        }
        let changed = watch::Sender::new(());
        let endpoints = endpoints.iter().map(|address| Endpoint::new(address, role.service, settings, changed.clone()).map(Arc::new));
        Ok(Calls { role, settings: settings.clone(), endpoints: endpoints.collect::<Result<_>>()?, next: AtomicUsize::new(0) })
    }

    /// One call: `request` makes the message, anew for each try; `send` sends it.
    pub async fn call<P, R, F>(
        &self,
        kind: Kind,
        request: impl Fn() -> P + Send + Sync,
        send: impl Fn(Channel, Request<P>) -> F + Send + Sync,
    ) -> Result<R>
    where
        P: Message,
        R: Wire,
        F: Future<Output = Result<Response<R::Pb>, Status>> + Send,
    {
        let limit = if kind == Kind::Hash { self.settings.hash_deadline } else { self.settings.deadline };
        let deadline = Instant::now() + limit;
        let repeats = kind == Kind::Read || self.role.repeats_writes;
        // Endpoints that do not know the method.
        let mut without = Vec::new();
        let mut failed = None;
        for _ in 0..=self.endpoints.len() {
            let line = match timeout_at(deadline, self.line(&without)).await {
                Ok(Ok(line)) => line,
                Ok(Err(error)) => return Err(failed.unwrap_or(error)),
                Err(_) => return Err(failed.unwrap_or_else(|| self.away("no connection in time"))),
            };
            let message = request();
            let length = message.encoded_len();
            if length > MESSAGE_BYTES_MAX {
                return Err(Error::new(Code::TooLarge, format!("a call of {length} bytes, but {MESSAGE_BYTES_MAX} is the limit")));
            }
            let mut message = Request::new(message);
            let began = Instant::now();
            message.set_timeout(deadline.saturating_duration_since(began));
            let failure = match timeout_at(deadline, send(line.channel.clone(), message)).await {
                Ok(Ok(reply)) => {
                    line.answered();
                    return R::back(reply.into_inner())
                        .map_err(|error| self.unknown(kind, &line, "answered with something that is not understood", error));
                }
                Ok(Err(status)) => errors::failure(status),
                Err(_) => Failure::Silent(Status::cancelled("no answer")),
            };
            match failure {
                Failure::Refused(error) => {
                    line.answered();
                    return Err(error);
                }
                Failure::Late(status) => {
                    line.answered();
                    return Err(self.unknown(kind, &line, format!("did not finish within {} ms", limit.as_millis()), status));
                }
                Failure::Silent(status) => {
                    line.silent_since(began);
                    return Err(self.unknown(kind, &line, format!("did not answer within {} ms", limit.as_millis()), status));
                }
                Failure::NotThere(status) => {
                    line.answered();
                    without.push(line.at);
                    failed = Some(self.away("an endpoint is of another version and does not know the call").with_source(status));
                }
                Failure::Unsent(status) => {
                    line.broken(None);
                    failed.get_or_insert_with(|| self.away(format!("{} has gone", line.endpoint.address)).with_source(status));
                }
                Failure::Unreachable(status) => {
                    line.broken(Some(&status));
                    failed.get_or_insert_with(|| self.away(format!("{} cannot be reached", line.endpoint.address)).with_source(status));
                }
                Failure::Lost(status) => {
                    line.broken(None);
                    let lost = self.unknown(kind, &line, "was lost before it answered", status);
                    if !repeats {
                        return Err(lost);
                    }
                    failed = Some(lost);
                }
            }
        }
        Err(failed.unwrap_or_else(|| self.away("no endpoint answered")))
    }

    /// Whether some endpoint serves now.
    pub async fn ready(&self) -> Result<()> {
        let waited = timeout(CONNECT_TIMEOUT + TCP_TIMEOUT, async {
            let mut last = self.away("no endpoint is up");
            for _ in 0..=self.endpoints.len() {
                let line = self.line(&[]).await?;
                match timeout(TCP_TIMEOUT, health(line.channel.clone(), self.role.service)).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(why)) => last = self.away(why),
                    Err(_) => last = self.away("its health check does not answer"),
                }
                line.broken(None);
            }
            Err(last)
        });
        waited.await.unwrap_or_else(|_| Err(self.away("no connection in time")))
    }

    /// An endpoint that is up, in turn. Waits for endpoints that connect where none is.
    async fn line(&self, without: &[usize]) -> Result<Line> {
        match self.look(without) {
            Look::Line(line) => return Ok(line),
            Look::Full => return Err(Error::from(Code::Overloaded).retry_after(RETRY_AFTER)),
            Look::Down(why) => return Err(self.away(why)),
            Look::Connecting => {}
        }
        let mut changed = self.endpoints[0].changed.subscribe();
        loop {
            match self.look(without) {
                Look::Line(line) => return Ok(line),
                Look::Full => return Err(Error::from(Code::Overloaded).retry_after(RETRY_AFTER)),
                Look::Down(why) => return Err(self.away(why)),
                // The sender lives in the endpoints.
                Look::Connecting => drop(changed.changed().await),
            }
        }
    }

    fn look(&self, without: &[usize]) -> Look {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let (mut full, mut connecting, mut down) = (false, false, Vec::new());
        for step in 0..self.endpoints.len() {
            let at = first.wrapping_add(step) % self.endpoints.len();
            let endpoint = &self.endpoints[at];
            if without.contains(&at) {
                continue;
            }
            match endpoint.look() {
                Up::Now(channel, number) => match endpoint.permits.clone().try_acquire_owned() {
                    Ok(permit) => return Look::Line(Line { endpoint: endpoint.clone(), at, channel, number, _permit: permit }),
                    Err(_) => full = true,
                },
                Up::Soon => connecting = true,
                Up::Not(why) => down.push(why),
            }
        }
        match (full, connecting) {
            (true, _) => Look::Full,
            (false, true) => Look::Connecting,
            (false, false) => Look::Down(down.join("; ")),
        }
    }

    /// The call did not run.
    fn away(&self, why: impl fmt::Display) -> Error {
        let addresses: Vec<&str> = self.endpoints.iter().map(|endpoint| &*endpoint.address).collect();
        Error::new(Code::Unavailable, format!("waits for {} at {}: {why}", self.role.name, addresses.join(", ")))
    }

    /// The call may have run.
    fn unknown(&self, kind: Kind, line: &Line, what: impl fmt::Display, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        let code = if kind == Kind::Read { Code::Unavailable } else { self.role.unknown };
        Error::new(code, format!("{} at {} {what}", self.role.name, line.endpoint.address)).with_source(source)
    }
}

enum Look {
    Line(Line),
    Full,
    Connecting,
    Down(String),
}

enum Up {
    Now(Channel, u64),
    Soon,
    Not(String),
}

/// A call's hold on an endpoint.
struct Line {
    endpoint: Arc<Endpoint>,
    at: usize,
    channel: Channel,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Line {
    /// The endpoint lives.
    fn answered(&self) {
        self.endpoint.answered.fetch_max(self.endpoint.age(Instant::now()), Ordering::Relaxed);
    }

    /// Nothing came of this call before its deadline. If nothing came of any other since, the endpoint may be frozen: its next
    /// connection has to answer a health check first.
    fn silent_since(&self, began: Instant) {
        if self.endpoint.answered.load(Ordering::Relaxed) < self.endpoint.age(began) {
            self.endpoint.leave(self.number, State::Idle);
        }
    }

    /// The connection is gone; with a status, a new one was tried and failed.
    fn broken(&self, unreachable: Option<&Status>) {
        let state = match unreachable {
            Some(status) => State::Down { until: Instant::now() + DOWN_FOR, why: format!("{}: {}", self.endpoint.address, status.message()) },
            None => State::Idle,
        };
        self.endpoint.leave(self.number, state);
    }
}

struct Endpoint {
    address: String,
    target: transport::Endpoint,
    service: &'static str,
    state: Mutex<State>,
    /// Tells waiting calls that some endpoint's state is another one.
    changed: watch::Sender<()>,
    permits: Arc<Semaphore>,
    made: Instant,
    /// Nanoseconds from `made` to the newest answer.
    answered: AtomicU64,
    numbers: AtomicU64,
}

enum State {
    Idle,
    Connecting,
    Up { channel: Channel, number: u64 },
    Down { until: Instant, why: String },
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl Endpoint {
    fn new(address: &str, service: &'static str, settings: &ClientSettings, changed: watch::Sender<()>) -> Result<Self> {
        let address = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let target = transport::Endpoint::from_shared(address.clone())
            .map_err(|error| Error::new(Code::InvalidField, format!("{address} is no address of an endpoint")).with_source(error))?;
        if target.uri().scheme_str() != Some("http") || target.uri().host().is_none() {
            return Err(Error::new(Code::InvalidField, format!("{address} is no address of an endpoint: http://host:port is")));
        }
        let target = target
            .connect_timeout(TCP_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        Ok(Endpoint {
            address,
            target,
            service,
            state: Mutex::new(State::Idle),
            changed,
            permits: Arc::new(Semaphore::new(settings.in_flight_max)),
            made: Instant::now(),
            answered: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn age(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.made).as_nanos()).unwrap_or(u64::MAX)
    }

    /// The state as a call sees it; begins to connect where that is due.
    fn look(self: &Arc<Self>) -> Up {
        let mut state = self.state();
        match &*state {
            State::Up { channel, number } => return Up::Now(channel.clone(), *number),
            State::Connecting => return Up::Soon,
            State::Down { until, why } if Instant::now() < *until => return Up::Not(why.clone()),
            State::Down { .. } | State::Idle => *state = State::Connecting,
        }
        drop(state);
        let connecting = Connecting(self.clone());
        tokio::spawn(async move {
            let outcome = timeout(CONNECT_TIMEOUT, connecting.0.connect()).await;
            connecting.0.connected(outcome.unwrap_or_else(|_| Err("accepts connections but does not answer".to_owned())));
        });
        Up::Soon
    }

    async fn connect(&self) -> Result<Channel, String> {
        let channel = self.target.connect().await.map_err(|error| chain(&error))?;
        health(channel.clone(), self.service).await?;
        Ok(channel)
    }

    fn connected(&self, outcome: Result<Channel, String>) {
        let address = &self.address;
        let state = match outcome {
            Ok(channel) => {
                tracing::info!(%address, service = self.service, "connected");
                State::Up { channel, number: self.numbers.fetch_add(1, Ordering::Relaxed) }
            }
            Err(why) => {
                tracing::debug!(%address, service = self.service, %why, "cannot connect");
                State::Down { until: Instant::now() + DOWN_FOR, why: format!("{address}: {why}") }
            }
        };
        *self.state() = state;
        self.changed.send_replace(());
    }

    /// From `Up` with this connection to another state; a newer connection stays.
    fn leave(&self, left: u64, to: State) {
        let mut state = self.state();
        if matches!(&*state, State::Up { number, .. } if *number == left) {
            tracing::warn!(address = %self.address, service = self.service, "lost the connection");
            *state = to;
            drop(state);
            self.changed.send_replace(());
        }
    }
}

/// An endpoint that connects. If its task is cut short, the next call begins anew instead of waiting for ever.
struct Connecting(Arc<Endpoint>);

impl Drop for Connecting {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if matches!(*state, State::Connecting) {
            *state = State::Idle;
            drop(state);
            self.0.changed.send_replace(());
        }
    }
}

/// Whether the endpoint says that it serves; one without a health service is taken at its word.
async fn health(channel: Channel, service: &str) -> Result<(), String> {
    let request = HealthCheckRequest { service: service.to_owned() };
    match HealthClient::new(channel).check(request).await {
        Ok(reply) if reply.get_ref().status == ServingStatus::Serving as i32 => Ok(()),
        Ok(_) => Err("is not serving".to_owned()),
        Err(status) if status.code() == tonic::Code::Unimplemented => Ok(()),
        Err(status) if status.code() == tonic::Code::NotFound => Err(format!("does not serve {service}")),
        Err(status) => Err(chain(&status)),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
