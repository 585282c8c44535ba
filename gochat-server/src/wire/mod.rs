//! Puts the parts together: which role runs on which ports.
//!
//! ```text
//! gateway ── im-upstream-topic ──► logic ── im-task-topic ──► task
//!    ▲ │                            │ ▲                        │
//!    │ └──────── LogicApi ──────────┘ └── Store, Routes ───────┤
//!    └─────────── im-downstream-topic-{gateway} ◄──────────────┘
//! ```
//!
//! A process plays the roles it is told to; what it lacks is another process. The roles cannot tell: a port is the real thing
//! or a client of it (`backends.rs`).
//!
//! A start claims what it can at once (data folder, secrets, addresses, the admin listener with `/readyz`), then waits for what
//! it needs in any order, and listens last. An end goes the other way: nothing new, then what is in flight, then the store.

mod backends;

use std::{
    fmt,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use gochat_core::{
    auth::{PasswordSettings, Passwords, PayloadKey, Secret, TokenAuthenticator, TokenSettings, Tokens},
    dispatch::Dispatcher,
    error::{Code, Error, Result},
    fanout::BySize,
    ids::GatewayId,
    logic::{Logic, LogicPorts, LogicSettings},
    ports::{Bus, Hook, LogicApi, PushProvider, Routes, Store},
    task::{PushSettings, TaskPorts, TaskRole},
    time::{Clock, IdGenerator},
};
use gochat_transport::gateway::{
    Gateway, GatewayPorts, GatewaySettings,
    http::{HttpRates, Rate},
};
#[cfg(feature = "grpc")]
use gochat_transport::grpc;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    admin::{self, AdminState, Operators},
    config::{Config, PushKind},
    metrics::{Metrics, Source},
    push::{LogPush, WebhookPush},
    readiness::Readiness,
    roles::Roles,
    secrets::{self, Secrets},
    system::{self, SystemClock, SystemIds},
    web,
};
#[cfg(feature = "kafka")]
pub use backends::kafka;
use backends::{AnyBus, Database, Shared};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// Pause between two sweeps where several logic roles share the work: what one of them had stored when it crashed, another one
/// finds so soon.
const SHARED_SWEEP: Duration = Duration::from_secs(30);
/// How long a role may take to end once nothing new comes.
const ROLE_END: Duration = Duration::from_secs(5);

/// What whoever starts a server may bring along.
#[derive(Debug)]
pub struct Parts {
    /// The roles that this process plays.
    pub roles: Roles,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// Ids and randomness.
    pub ids: Arc<dyn IdGenerator>,
    /// Own rules about messages.
    pub hooks: Vec<Arc<dyn Hook>>,
    /// A push provider instead of the configured one.
    pub push: Option<Arc<dyn PushProvider>>,
    /// Pass every record between roles through its protobuf form, as between processes. For tests.
    pub records_as_bytes: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Parts { roles: Roles::ALL, clock: Arc::new(SystemClock), ids: Arc::new(SystemIds), hooks: Vec::new(), push: None, records_as_bytes: false }
    }
}

/// A running server.
pub struct Running {
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    admin_token: Secret<String>,
    gateway: Option<Arc<Gateway>>,
    bus: Option<AnyBus>,
    database: Option<Database>,
    readiness: Readiness,
    stop: watch::Sender<bool>,
    fault: watch::Receiver<bool>,
    tasks: Vec<JoinHandle<()>>,
    // The folder stays ours until everything has ended.
    _lock: File,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("address", &self.address).field("admin_address", &self.admin_address).finish_non_exhaustive()
    }
}

impl Running {
    /// The address that others connect to: clients to a gateway (HTTP, WebSocket), roles to a role without one (gRPC). Nobody
    /// connects to a task role: `0.0.0.0:0`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the admin listener.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The token of the admin listener.
    pub fn admin_token(&self) -> &str {
        self.admin_token.reveal()
    }

    /// Resolves when a role has ended by itself: the process is of no use any more. Cancel-safe.
    pub async fn failed(&self) {
        let mut fault = self.fault.clone();
        // The sender lives in the tasks: when all have ended without a fault, this was a shutdown.
        if fault.wait_for(|fault| *fault).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Drains and ends: nothing new is accepted, what is in flight is answered, sockets are told to reconnect, the store is
    /// closed. Takes at most about `deadline`, and then [`ROLE_END`] for what does not end.
    pub async fn shutdown(mut self, deadline: Duration) {
        self.readiness.draining();
        let _ = self.stop.send(true);
        if let Some(gateway) = &self.gateway {
            gateway.drain(deadline).await;
        }
        if let Some(bus) = &self.bus {
            bus.close().await;
        }
        let end = tokio::time::Instant::now() + ROLE_END;
        for task in self.tasks.drain(..) {
            let mut task = task;
            if tokio::time::timeout_at(end, &mut task).await.is_err() {
                task.abort();
            }
        }
        if let Some(database) = self.database.take() {
            database.close().await;
        }
    }
}

/// Starts the roles of this process; ends when they serve. Until then `/readyz` of the admin listener tells what is waited for.
///
/// # Errors
/// With a message for the operator: a setting is missing, the data folder cannot be used or is in use, an address is taken, the
/// database is of a newer version. What is merely away is waited for.
pub async fn start(config: Config, parts: Parts) -> Result<Running> {
    let roles = parts.roles;
    config.check_roles(roles).map_err(|error| refuse(error.to_string(), error))?;
    let lock = claim(&config.data)?;
    let secrets = secrets::load(&config.secrets_folder(), &*parts.ids).map_err(|error| refuse(format!("secrets: {error}"), error))?;
    let public = roles.gateway.then(|| bind(config.listen)).transpose()?;
    let internal = (roles != Roles::ALL && (roles.logic || roles.repo)).then(|| bind(config.grpc_listen)).transpose()?;
    let address = match public.as_ref().or(internal.as_ref()) {
        Some(socket) => socket.local_addr().map_err(Error::internal)?,
        None => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
    };
    let (stop, stopped) = watch::channel(false);
    let (faulty, fault) = watch::channel(false);
    let mut start = Start { roles, config, parts, secrets, readiness: Readiness::default(), stopped, faulty, tasks: Vec::new() };
    let (admin_address, operators, metrics) = start.admin()?;

    let database = match roles.repo {
        true => Some(Database::open(&start.config, &start.readiness).await?),
        false => None,
    };
    let shared = Shared::connect(&start.config).await?;
    let store = match &database {
        Some(database) => Some(database.store(&start.config, &shared)),
        None if roles.logic || roles.task => Some(backends::remote_store(&start.config, &start.readiness).await?),
        None => None,
    };
    let gateway_id: GatewayId = start.config.gateway_id.parse()?;
    let bus = match roles == Roles::REPO {
        true => None,
        false => Some(AnyBus::open(&start.config, roles.gateway.then_some(&gateway_id), &start.readiness).await?),
    };
    let sources = [database.as_ref().map(Database::source), bus.as_ref().map(AnyBus::source), shared.source()];
    sources.into_iter().flatten().for_each(|source| metrics.add(source));

    let mut gateway = None;
    let mut served = Served { store: roles.repo.then(|| store.clone()).flatten(), api: None };
    if let Some(bus) = &bus {
        let ports = Ports { bus: bus.port(start.parts.records_as_bytes), routes: shared.routes(), tokens: start.tokens()? };
        let mut logic = None;
        if let Some(store) = store.filter(|_| roles.logic || roles.task) {
            let policy = Arc::new(BySize { threshold: start.config.fanout_threshold });
            let dispatcher = Arc::new(Dispatcher::new(store.clone(), ports.bus.clone(), ports.routes.clone(), policy));
            if roles.logic {
                logic = Some(start.logic(&ports, store.clone(), dispatcher.clone(), &operators)?);
            }
            if roles.task {
                start.task(&ports, store, dispatcher)?;
            }
        }
        if roles.gateway {
            let api: Arc<dyn LogicApi> = match &logic {
                Some(logic) => logic.clone(),
                None => backends::remote_logic(&start.config, &start.readiness).await?,
            };
            gateway = Some(start.gateway(&ports, gateway_id, api).await?);
        }
        served.api = logic.map(|logic| logic as Arc<dyn LogicApi>);
    }
    // Listening comes last: whoever gets through is served.
    if let Some(socket) = internal {
        start.serve_roles(socket, served)?;
    }
    if let (Some(gateway), Some(socket)) = (&gateway, public) {
        metrics.add(Source::Gateway(gateway.clone()));
        start.serve_clients(socket, gateway)?;
    }
    start.readiness.ready();
    let Start { secrets, readiness, tasks, .. } = start;
    Ok(Running { address, admin_address, admin_token: secrets.admin_token, gateway, bus, database, readiness, stop, fault, tasks, _lock: lock })
}

/// Brings the schema of the store up to date, and closes it again.
pub async fn migrate(config: &Config) -> Result<()> {
    let _lock = claim(&config.data)?;
    let database = Database::open(config, &Readiness::default()).await?;
    database.close().await;
    Ok(())
}

/// What every role but repo runs on.
struct Ports {
    bus: Arc<dyn Bus>,
    routes: Arc<dyn Routes>,
    tokens: Arc<Tokens>,
}

/// What other roles ask this process for.
struct Served {
    store: Option<Arc<dyn Store>>,
    api: Option<Arc<dyn LogicApi>>,
}

/// A start on its way.
struct Start {
    roles: Roles,
    config: Config,
    parts: Parts,
    secrets: Secrets,
    readiness: Readiness,
    stopped: watch::Receiver<bool>,
    faulty: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Start {
    /// Answers operators from now on, above all what is waited for.
    fn admin(&mut self) -> Result<(Option<SocketAddr>, Arc<OnceLock<Operators>>, Arc<Metrics>)> {
        let (operators, metrics) = (Arc::<OnceLock<Operators>>::default(), Arc::<Metrics>::default());
        let Some(wanted) = self.config.admin_listen.0 else { return Ok((None, operators, metrics)) };
        let listener = listen(bind(wanted)?)?;
        let address = listener.local_addr().map_err(Error::internal)?;
        let router = admin::routes(AdminState {
            token: self.secrets.admin_token.clone(),
            readiness: self.readiness.clone(),
            metrics: metrics.clone(),
            operators: operators.clone(),
        });
        let stopped = self.stopped.clone();
        self.spawn(
            "admin listener",
            async move { axum::serve(listener, router).with_graceful_shutdown(until(stopped)).await.map_err(Error::internal) },
        );
        let file = self.config.data.join("admin-address");
        fs::write(file, address.to_string()).map_err(|error| refuse(format!("admin-address: {error}"), error))?;
        Ok((Some(address), operators, metrics))
    }

    fn tokens(&self) -> Result<Arc<Tokens>> {
        let settings =
            TokenSettings { access_seconds: self.config.access_seconds, refresh_seconds: self.config.refresh_seconds, ..TokenSettings::default() };
        Ok(Arc::new(Tokens::new(settings, std::slice::from_ref(&self.secrets.token_seed))?))
    }

    fn logic(&mut self, ports: &Ports, store: Arc<dyn Store>, dispatcher: Arc<Dispatcher>, operators: &OnceLock<Operators>) -> Result<Arc<Logic>> {
        let config = &self.config;
        let mut passwords =
            PasswordSettings { iterations: config.password_iterations, thread_start: system::give_way, ..PasswordSettings::default() };
        if config.password_workers > 0 {
            passwords.workers = config.password_workers;
        }
        let usual = LogicSettings::default();
        let sweep_every = if self.roles == Roles::ALL { usual.sweep_every } else { SHARED_SWEEP };
        let (clock, ids) = (self.parts.clock.clone(), self.parts.ids.clone());
        let logic = Logic::new(
            LogicPorts {
                store: store.clone(),
                bus: ports.bus.clone(),
                routes: ports.routes.clone(),
                hooks: std::mem::take(&mut self.parts.hooks),
                clock: clock.clone(),
                ids: ids.clone(),
            },
            dispatcher,
            Arc::new(Passwords::new(passwords, ids.clone())?),
            ports.tokens.clone(),
            LogicSettings { search_by_prefix: config.search_by_prefix, sweep_every },
            PayloadKey::new(1, *self.secrets.payload_key.reveal()),
        );
        self.spawn("logic role", logic.clone().run());
        // It is set once: a process has one logic role.
        let _ = operators.set(Operators { accounts: logic.clone(), store, tokens: ports.tokens.clone(), clock, ids });
        Ok(logic)
    }

    fn task(&mut self, ports: &Ports, store: Arc<dyn Store>, dispatcher: Arc<Dispatcher>) -> Result<()> {
        let config = &self.config;
        let push = match self.parts.push.take() {
            Some(push) => push,
            None => provider(config, self.parts.clock.clone())?,
        };
        let settings = PushSettings { title: config.push_title.clone(), text: config.push_text.clone(), include_text: config.push_include_text };
        let ports = TaskPorts {
            store,
            bus: ports.bus.clone(),
            routes: ports.routes.clone(),
            push,
            clock: self.parts.clock.clone(),
            ids: self.parts.ids.clone(),
        };
        let task = TaskRole::new(ports, dispatcher, settings);
        self.spawn("task role", task.run());
        Ok(())
    }

    async fn gateway(&mut self, ports: &Ports, id: GatewayId, api: Arc<dyn LogicApi>) -> Result<Arc<Gateway>> {
        let clock = self.parts.clock.clone();
        let gateway = Gateway::new(
            GatewayPorts {
                id,
                bus: ports.bus.clone(),
                routes: ports.routes.clone(),
                api: api.clone(),
                authenticator: Arc::new(TokenAuthenticator::new(ports.tokens.clone(), api, clock.clone())),
                clock,
                ids: self.parts.ids.clone(),
            },
            gateway_settings(&self.config),
        );
        let downstream = self.readiness.wait_for("the gateway's topic", || gateway.subscribe()).await?;
        self.spawn("gateway", gateway.clone().run(downstream));
        Ok(gateway)
    }

    fn serve_clients(&mut self, socket: TcpSocket, gateway: &Arc<Gateway>) -> Result<()> {
        let listener = listen(socket)?;
        let router = gateway.router().merge(self.readiness.routes()).merge(web::routes());
        let (gateway, stopped) = (gateway.clone(), self.stopped.clone());
        self.spawn("listener", async move { gateway.serve(listener, router, until(stopped)).await });
        Ok(())
    }

    #[cfg(feature = "grpc")]
    fn serve_roles(&mut self, socket: TcpSocket, served: Served) -> Result<()> {
        let listener = listen(socket)?;
        let mut services = grpc::Services::default();
        if let Some(store) = served.store {
            services = services.repo(store);
        }
        if let Some(api) = served.api {
            services = services.logic(api);
        }
        let stopped = until(self.stopped.clone());
        self.spawn("gRPC listener", async move { grpc::serve(listener, services, &grpc::ServeSettings::default(), stopped).await });
        Ok(())
    }

    #[cfg(not(feature = "grpc"))]
    fn serve_roles(&mut self, _: TcpSocket, Served { store, api }: Served) -> Result<()> {
        drop((store, api));
        Err(Error::new(Code::InvalidRequest, "roles that are processes of their own need a build with `--features distributed`"))
    }

    fn spawn(&mut self, name: &'static str, role: impl Future<Output = Result<()>> + Send + 'static) {
        let faulty = self.faulty.clone();
        self.tasks.push(tokio::spawn(async move {
            if let Err(error) = role.await {
                tracing::error!(?error, "the {name} ended");
                let _ = faulty.send(true);
            }
        }));
    }
}

fn gateway_settings(config: &Config) -> GatewaySettings {
    let sign_ins = Rate { per_minute: config.sign_ins_per_minute, burst: config.sign_ins_burst };
    let refresh = Rate { per_minute: sign_ins.per_minute.saturating_mul(2), burst: sign_ins.burst.saturating_mul(2) };
    let mut settings = GatewaySettings {
        allowed_origins: config.allowed_origins.0.clone(),
        connections_per_address: config.connections_per_address,
        sends_per_second: config.sends_per_second,
        send_burst: config.sends_burst,
        connections_max: config.connections,
        http_connections_max: config.http_connections,
        frame_bytes_max: config.frame_bytes,
        http_body_bytes_max: config.http_body_bytes,
        outbox_bytes_max: config.outbox_bytes,
        requests_in_flight_max: config.requests_in_flight,
        http_rates: HttpRates { register: sign_ins, login: sign_ins, refresh, ..HttpRates::default() },
        ..GatewaySettings::default()
    };
    if config.gateway_shards > 0 {
        settings.shards = config.gateway_shards;
    }
    settings
}

fn provider(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn PushProvider>> {
    Ok(match config.push_provider {
        PushKind::Log => Arc::new(LogPush),
        PushKind::Webhook => Arc::new(WebhookPush::new(&config.push_webhook_url, config.push_webhook_secret.clone(), clock)?),
    })
}

/// Makes the data folder and takes it for this process.
fn claim(data: &Path) -> Result<File> {
    let named = |error: std::io::Error| refuse(format!("the data folder {} cannot be used: {error}", data.display()), error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(named)?;
    let lock = File::options().create(true).write(true).truncate(false).mode(0o600).open(data.join("lock")).map_err(named)?;
    lock.try_lock().map_err(|error| refuse(format!("the data folder {} is in use by another server", data.display()), error))?;
    Ok(lock)
}

/// Takes an address. Nobody gets through before [`listen`].
fn bind(address: SocketAddr) -> Result<TcpSocket> {
    let bound = || -> std::io::Result<TcpSocket> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    bound().map_err(|error| refuse(format!("cannot listen on {address}: {error}"), error))
}

fn listen(socket: TcpSocket) -> Result<TcpListener> {
    socket.listen(BACKLOG).map_err(|error| refuse(format!("cannot listen: {error}"), error))
}

fn refuse(message: String, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Code::Unavailable, message).with_source(source)
}

async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
