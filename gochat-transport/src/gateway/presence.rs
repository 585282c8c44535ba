//! Who is connected here: tokens are verified, connections registered, routes set, renewed and removed; all in batches.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
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

impl Shared {
    /// Hands a token to the workers; `OVERLOADED` when too many wait.
    pub(super) fn authenticate(&self, job: AuthJob) -> Result<()> {
        let worker = job.connection as usize % self.auth_jobs.len();
        self.auth_jobs[worker].try_send(job).map_err(|_| Error::from(Code::Overloaded).retry_after(std::time::Duration::from_secs(10)))
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
            for shard in &shards {
                let mut from = 0;
                while let Some(connections) = shard.connections(from, ROUTES_MAX) {
                    from += ROUTES_MAX;
                    self.renew(connections).await;
                }
            }
        }
    }

    async fn renew(&self, connections: Vec<Arc<Connection>>) {
        let open = connections.into_iter().filter(|connection| !connection.is_closing());
        let (connections, routes): (Vec<_>, Vec<_>) = open.filter_map(|connection| self.route(&connection).map(|route| (connection, route))).unzip();
        if routes.is_empty() {
            return;
        }
        let attached = match self.ports.routes.attach(&routes, self.settings.route_lease).await {
            Ok(attached) => attached,
            Err(error) => return tracing::warn!(%error, "routes were not renewed"),
        };
        for ((connection, route), attached) in connections.into_iter().zip(routes).zip(attached) {
            if !attached {
                self.counters.takeovers.one();
                connection.close(close::TAKEN_OVER);
            } else if connection.is_closing() {
                // It ended while its route was renewed: the removal may have come first.
                self.detach(route);
            }
        }
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
