//! Who is connected here: tokens are verified, connections registered, routes set, renewed and removed; all in batches.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use gochat_core::{
    error::{Code, Error, Result},
    ids::{DeviceId, UserId},
    model::Connected,
    ports::{Credentials, Identity, Route, Signal},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Shared, connection::Connection, shard::Shard, websocket::close};

/// Tokens that wait to be verified, per worker.
pub(super) const AUTH_JOBS_MAX: usize = 8192;
/// Connections that are registered in one call.
const CONNECT_MAX: usize = 128;
/// Routes in one call.
const ROUTES_MAX: usize = 1000;
/// Pause between tries to renew a lease that is over.
const LEASE_TRY: Duration = Duration::from_secs(1);
/// Pause between two requests to all clients to sync while presence is unknown (decision 8: within 20 s everybody knows).
const RESYNC_EVERY: Duration = Duration::from_secs(10);
/// Connections that are asked to sync in a row.
const RESYNC_STEP: usize = 128;
/// Routes that wait to be removed; beyond it they end with their lease.
pub(super) const DETACHED_MAX: usize = 65_536;

/// A token to be verified.
pub(super) struct AuthJob {
    pub(super) token: String,
    pub(super) connection: u64,
    /// The connection is authenticated; it shows a newer token.
    pub(super) renews: bool,
    pub(super) reply: oneshot::Sender<Outcome>,
}

/// How a verification ended: with who it is, or why not and the code to close with.
pub(super) type Outcome = std::result::Result<Verified, (Error, u16)>;

/// Who a token belongs to, and the connection's epoch.
pub(super) struct Verified {
    pub(super) identity: Identity,
    pub(super) epoch: i64,
    route: Option<Route>,
}

impl Verified {
    /// The connection has gone meanwhile: its route goes too.
    pub(super) fn give_back(self, connection: &Connection) {
        if let Some(route) = self.route {
            connection.shard.shared.detach(route);
        }
    }
}

/// The connection of each device that is connected here.
#[derive(Default)]
pub(super) struct Devices(Mutex<HashMap<(UserId, DeviceId), Arc<Connection>>>);

impl Devices {
    fn lock(&self) -> MutexGuard<'_, HashMap<(UserId, DeviceId), Arc<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this gateway knows of its own routes.
#[derive(Default)]
pub(super) struct Lease {
    /// When they were last renewed and tried to be, in milliseconds since the start. The clock is monotonic and goes on while
    /// the process is stopped.
    renewed: AtomicU64,
    tried: AtomicU64,
    /// When every client was last asked to sync.
    resynced: AtomicU64,
    /// Routes could not be set: others may not know who is connected here, and what is said meanwhile reaches nobody.
    unknown: AtomicBool,
}

impl Shared {
    /// Hands a token to the workers; `OVERLOADED` when too many wait.
    pub(super) fn authenticate(&self, job: AuthJob) -> Result<()> {
        let worker = job.connection as usize % self.auth_jobs.len();
        self.auth_jobs[worker].try_send(job).map_err(|_| Error::from(Code::Overloaded).retry_after(Duration::from_secs(10)))
    }

    /// Makes an authenticated connection its device's one; an older one gives way. `false`: a newer one is there.
    pub(super) fn register(&self, connection: &Arc<Connection>) -> bool {
        let Some(session) = connection.session() else { return false };
        self.counters.authenticated.one();
        let older = match self.devices.lock().entry((session.caller.user, session.caller.device)) {
            Entry::Vacant(entry) => {
                entry.insert(connection.clone());
                None
            }
            Entry::Occupied(entry) if entry.get().session().is_some_and(|other| other.epoch > session.epoch) => {
                self.counters.takeovers.one();
                return false;
            }
            Entry::Occupied(mut entry) => Some(entry.insert(connection.clone())),
        };
        if let Some(older) = older {
            self.counters.takeovers.one();
            older.close(close::TAKEN_OVER);
        }
        true
    }

    /// Forgets a connection that has ended.
    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        let Some(session) = connection.session() else { return };
        self.counters.authenticated.less_one();
        let removed = match self.devices.lock().entry((session.caller.user, session.caller.device)) {
            Entry::Occupied(entry) if Arc::ptr_eq(entry.get(), connection) => Some(entry.remove()),
            _ => None,
        };
        drop(removed);
        if let Some(route) = self.route(connection) {
            self.detach(route);
        }
    }

    /// Ends what a signal is about.
    pub(super) fn heed(&self, signal: &Signal) {
        let Signal::Revoked { user, device, session_epoch } = *signal;
        self.ports.authenticator.revoked(&gochat_core::model::Caller { user, device, session_epoch });
        let connection = self.devices.lock().get(&(user, device)).cloned();
        if let Some(connection) = connection.filter(|it| it.session().is_some_and(|session| session.caller.session_epoch < session_epoch)) {
            connection.close(close::REVOKED);
        }
    }

    pub(super) fn detach(&self, route: Route) {
        if self.detached.try_send(route).is_err() {
            tracing::debug!("too many routes wait to be removed: this one ends with its lease");
        }
    }

    fn route(&self, connection: &Connection) -> Option<Route> {
        let session = connection.session()?;
        Some(Route {
            user: session.caller.user,
            device: session.caller.device,
            gateway: self.ports.id.clone(),
            connection: connection.id,
            epoch: session.epoch,
        })
    }

    /// A worker: verifies tokens and registers their connections, many in one call.
    pub(super) async fn verify_tokens(self: Arc<Self>, mut jobs: mpsc::Receiver<AuthJob>) {
        let mut batch = Vec::with_capacity(CONNECT_MAX);
        while jobs.recv_many(&mut batch, CONNECT_MAX).await > 0 {
            let mut fresh = Vec::with_capacity(batch.len());
            for job in batch.drain(..) {
                if job.reply.is_closed() {
                    continue;
                }
                match self.verify(&job).await {
                    Ok(identity) if job.renews => {
                        let _ = job.reply.send(Ok(Verified { identity, epoch: 0, route: None }));
                    }
                    Ok(identity) => fresh.push((job, identity)),
                    Err(error) => {
                        let _ = job.reply.send(refused(error));
                    }
                }
            }
            if !fresh.is_empty() {
                self.connect(fresh).await;
            }
        }
    }

    async fn verify(&self, job: &AuthJob) -> Result<Identity> {
        // The channel's memory outlives the token; it is moved no further than this.
        let identity = self.ports.authenticator.verify(&Credentials { token: job.token.clone() }).await?;
        if job.renews {
            self.ports.authenticator.check(&identity.caller).await?;
        }
        Ok(identity)
    }

    async fn connect(&self, jobs: Vec<(AuthJob, Identity)>) {
        let callers: Vec<_> = jobs.iter().map(|(_, identity)| identity.caller).collect();
        let connected: Vec<Result<Connected>> = match timeout(self.settings.auth_deadline, self.ports.api.connect(&callers)).await {
            Ok(Ok(connected)) if connected.len() == jobs.len() => connected,
            Ok(Ok(connected)) => {
                let error = Error::internal(format!("connect answered {} of {} devices", connected.len(), jobs.len()));
                jobs.iter().map(|_| Err(error.same())).collect()
            }
            Ok(Err(error)) => jobs.iter().map(|_| Err(error.same())).collect(),
            Err(_) => jobs.iter().map(|_| Err(Code::Unavailable.into())).collect(),
        };
        let mut replies = Vec::with_capacity(jobs.len());
        let mut routes = Vec::with_capacity(jobs.len());
        for ((job, identity), connected) in jobs.into_iter().zip(connected) {
            match connected {
                Ok(Connected { connection_epoch }) => {
                    routes.push(Route {
                        user: identity.caller.user,
                        device: identity.caller.device,
                        gateway: self.ports.id.clone(),
                        connection: job.connection,
                        epoch: connection_epoch,
                    });
                    replies.push((job.reply, identity));
                }
                Err(error) => {
                    let _ = job.reply.send(refused(error));
                }
            }
        }
        let attached = match timeout(self.settings.auth_deadline, self.ports.routes.attach(&routes, self.settings.route_lease)).await {
            Ok(Ok(attached)) if attached.len() == routes.len() => attached,
            outcome => {
                // Presence is unknown now; an outage of the routes closes no socket (decision 8). The next renewal sets them.
                tracing::warn!(?outcome, "routes could not be set");
                self.lease.unknown.store(true, Ordering::Relaxed);
                vec![true; routes.len()]
            }
        };
        for (((reply, identity), route), attached) in replies.into_iter().zip(routes).zip(attached) {
            let outcome = match attached {
                true => Ok(Verified { identity, epoch: route.epoch, route: Some(route) }),
                false => Err((Error::new(Code::SessionRevoked, "the same device connected again elsewhere"), close::TAKEN_OVER)),
            };
            if let Err(Ok(verified)) = reply.send(outcome) {
                verified.route.into_iter().for_each(|route| self.detach(route));
            }
        }
    }

    /// Removes the routes of connections that have ended.
    pub(super) async fn detach_routes(self: Arc<Self>, mut detached: mpsc::Receiver<Route>) {
        let mut batch = Vec::with_capacity(ROUTES_MAX);
        while detached.recv_many(&mut batch, ROUTES_MAX).await > 0 {
            if let Err(error) = self.ports.routes.detach(&batch).await {
                tracing::debug!(%error, "routes were not removed; they end with their lease");
            }
            batch.clear();
        }
    }

    /// Renews every connection's route, three times in a lease.
    pub(super) async fn renew_routes(self: Arc<Self>, shards: Vec<Arc<Shard>>) {
        let mut tick = interval(self.settings.route_lease / 3);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.renew_all(&shards).await;
        }
    }

    /// A gateway that was paused past its lease renews it before it pushes again: whoever connected elsewhere meanwhile is told
    /// nothing more here (decision 8). While the routes are away there is nobody to learn that from, and one try a second is enough.
    pub(super) async fn hold_lease(&self, shards: &[Arc<Shard>]) {
        let (now, lease) = (self.elapsed_ms(), self.settings.route_lease.as_millis() as u64);
        let since = |stamp: &AtomicU64| now.saturating_sub(stamp.load(Ordering::Relaxed));
        if since(&self.lease.renewed) > lease && since(&self.lease.tried) > LEASE_TRY.as_millis() as u64 {
            self.renew_all(shards).await;
        }
    }

    /// Renews all routes. While that fails, and once when it succeeds again, every client is asked to sync: messages go on, but
    /// nobody knows where to push them (decision 8).
    async fn renew_all(&self, shards: &[Arc<Shard>]) {
        let now = self.elapsed_ms();
        self.lease.tried.store(now, Ordering::Relaxed);
        let lapsed = now.saturating_sub(self.lease.renewed.load(Ordering::Relaxed)) > self.settings.route_lease.as_millis() as u64;
        let missed = lapsed || self.lease.unknown.load(Ordering::Relaxed);
        let mut renewed = Ok(());
        'shards: for shard in shards {
            let mut from = 0;
            while let Some(connections) = shard.connections(from, ROUTES_MAX) {
                from += ROUTES_MAX;
                renewed = self.renew(connections).await;
                if renewed.is_err() {
                    break 'shards;
                }
            }
        }
        match renewed {
            Ok(()) => {
                self.lease.renewed.store(now, Ordering::Relaxed);
                self.lease.unknown.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(%error, "routes were not renewed: presence is unknown, clients are asked to sync");
                self.lease.unknown.store(true, Ordering::Relaxed);
            }
        }
        let unknown = self.lease.unknown.load(Ordering::Relaxed);
        let resynced = now.saturating_sub(self.lease.resynced.load(Ordering::Relaxed));
        if (missed && !unknown) || (unknown && resynced >= RESYNC_EVERY.as_millis() as u64) {
            self.lease.resynced.store(now, Ordering::Relaxed);
            self.resync_all(shards).await;
        }
    }

    async fn resync_all(&self, shards: &[Arc<Shard>]) {
        for shard in shards {
            let mut from = 0;
            while let Some(connections) = shard.connections(from, RESYNC_STEP) {
                from += RESYNC_STEP;
                connections.iter().filter(|connection| connection.session().is_some()).for_each(|connection| connection.resync());
                tokio::task::yield_now().await;
            }
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn renew(&self, connections: Vec<Arc<Connection>>) -> Result<()> {
        let open = connections.into_iter().filter(|connection| !connection.is_closing());
        let (connections, routes): (Vec<_>, Vec<_>) = open.filter_map(|connection| self.route(&connection).map(|route| (connection, route))).unzip();
        if routes.is_empty() {
            return Ok(());
        }
        let attached = self.ports.routes.attach(&routes, self.settings.route_lease).await?;
        for ((connection, route), attached) in connections.into_iter().zip(routes).zip(attached) {
            if !attached {
                self.counters.takeovers.one();
                connection.close(close::TAKEN_OVER);
            } else if connection.is_closing() {
                // It ended while its route was renewed: the removal may have come first.
                self.detach(route);
            }
        }
        Ok(())
    }

    /// Sends that wait for their acks.
    pub(super) fn sends_waiting(&self, shards: &[Arc<Shard>]) -> bool {
        shards.iter().any(|shard| {
            let open = shard.connections(0, usize::MAX / 2).unwrap_or_default();
            open.iter().any(|connection| !connection.is_closing() && connection.sends.load(Ordering::Relaxed) > 0)
        })
    }
}

fn refused(error: Error) -> Outcome {
    let code = match error.code {
        Code::TokenExpired => close::EXPIRED,
        Code::SessionRevoked => close::REVOKED,
        Code::Overloaded | Code::RateLimited | Code::TooManyConnections => close::TOO_MANY,
        Code::Internal => {
            tracing::error!(?error, "a connection could not be authenticated");
            close::FAULT
        }
        Code::Unavailable | Code::TimeoutUnknown | Code::StorageFull => close::FAULT,
        _ => close::UNAUTHENTICATED,
    };
    Err((error, code))
}
