//! Puts the parts together: the only file that names concrete backends.
//!
//! ```text
//! gateway ── im-upstream-topic ──► logic ── im-task-topic ──► task
//!    ▲ │                            │ ▲                        │
//!    │ └──────── LogicApi ──────────┘ └── Store, Routes ───────┤
//!    └─────────── im-downstream-topic-{gateway} ◄──────────────┘
//! ```
//!
//! Here all roles live in one process, on SQLite, an in-process bus and in-process routes. The roles cannot tell.

use std::{
    fmt,
    fs::{self, File},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, routing::get};
use gochat_core::{
    auth::{PasswordSettings, Passwords, PayloadKey, Secret, TokenAuthenticator, TokenSettings, Tokens},
    cached::CachedStore,
    dispatch::Dispatcher,
    error::{Code, Error, Result},
    fanout::BySize,
    logic::{AccountSettings, Logic, LogicPorts},
    ports::{Bus, Hook, PushProvider, Routes, Store},
    task::{PushSettings, TaskPorts, TaskRole},
    time::{Clock, IdGenerator},
};
use gochat_storage::{
    local::{LocalCache, LocalRoutes},
    sqlite,
};
use gochat_transport::{
    bus::{LocalBus, LocalBusSettings, WireBus},
    gateway::{
        Gateway, GatewayPorts, GatewaySettings,
        http::{HttpRates, Rate},
    },
};
use http::StatusCode;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    admin::{self, AdminState},
    config::{Config, PushKind},
    metrics::Metrics,
    push::{LogPush, WebhookPush},
    secrets,
    system::{self, SystemClock, SystemIds},
    web,
};

/// Name of the one gateway of this form.
const GATEWAY: &str = "main";
/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// What whoever starts a server may bring along.
#[derive(Debug)]
pub struct Parts {
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
        Parts { clock: Arc::new(SystemClock), ids: Arc::new(SystemIds), hooks: Vec::new(), push: None, records_as_bytes: false }
    }
}

/// A running server.
pub struct Running {
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    admin_token: Secret<String>,
    gateway: Arc<Gateway>,
    bus: LocalBus,
    store: sqlite::Database,
    draining: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
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
    /// The address that clients connect to.
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

    /// Drains and ends: nothing new is accepted, what is in flight is answered, sockets are told to reconnect, the store is
    /// closed. Takes at most about `deadline`.
    pub async fn shutdown(mut self, deadline: Duration) {
        self.draining.store(true, Ordering::Release);
        let _ = self.stop.send(true);
        self.gateway.drain(deadline).await;
        self.bus.close();
        for task in self.tasks.drain(..) {
            let mut task = task;
            if tokio::time::timeout(Duration::from_secs(1), &mut task).await.is_err() {
                task.abort();
            }
        }
        let store = self.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }
}

/// Starts all roles in this process.
///
/// # Errors
/// With a message for the operator: the data folder cannot be used or is in use, the address is taken, the database is of a
/// newer version.
pub async fn start(config: Config, parts: Parts) -> Result<Running> {
    let lock = claim(&config.data)?;
    let secrets = secrets::load(&config.data, &*parts.ids).map_err(|error| refuse(format!("secrets: {error}"), error))?;
    let listener = bind(config.listen).await?;
    let address = listener.local_addr().map_err(Error::internal)?;

    let database = sqlite::open(
        &config.data.join("gochat.db"),
        &sqlite::SqliteSettings {
            readers: config.store_readers,
            cache_kib: config.store_cache_mib.saturating_mul(1024),
            page_count_max: config.store_pages_max,
            ..sqlite::SqliteSettings::default()
        },
    )?;
    let store: Arc<dyn Store> = match u64::from(config.cache_mib) << 20 {
        0 => Arc::new(database.clone()),
        bytes => Arc::new(CachedStore::new(Arc::new(database.clone()), Arc::new(LocalCache::new(bytes)))),
    };
    let local_bus = LocalBus::new(LocalBusSettings { upstream_records_max: config.upstream_records_max, ..LocalBusSettings::default() });
    let bus: Arc<dyn Bus> = if parts.records_as_bytes { Arc::new(WireBus::new(local_bus.clone())) } else { Arc::new(local_bus.clone()) };
    let routes: Arc<dyn Routes> = Arc::new(LocalRoutes::default());
    let policy = Arc::new(BySize { threshold: config.fanout_threshold });
    let dispatcher = Arc::new(Dispatcher::new(store.clone(), bus.clone(), routes.clone(), policy));

    let tokens = Arc::new(Tokens::new(
        TokenSettings { access_seconds: config.access_seconds, refresh_seconds: config.refresh_seconds, ..TokenSettings::default() },
        &[secrets.token_seed],
    )?);
    let mut password_settings =
        PasswordSettings { iterations: config.password_iterations, thread_start: system::give_way, ..PasswordSettings::default() };
    if config.password_workers > 0 {
        password_settings.workers = config.password_workers;
    }
    let passwords = Arc::new(Passwords::new(password_settings, parts.ids.clone())?);
    let logic = Logic::new(
        LogicPorts {
            store: store.clone(),
            bus: bus.clone(),
            routes: routes.clone(),
            hooks: parts.hooks,
            clock: parts.clock.clone(),
            ids: parts.ids.clone(),
        },
        dispatcher.clone(),
        passwords,
        tokens.clone(),
        AccountSettings { search_by_prefix: config.search_by_prefix },
        PayloadKey::new(1, *secrets.payload_key.reveal()),
    );
    let push = match parts.push {
        Some(push) => push,
        None => provider(&config, parts.clock.clone())?,
    };
    let task = TaskRole::new(
        TaskPorts { store: store.clone(), bus: bus.clone(), routes: routes.clone(), push, clock: parts.clock.clone(), ids: parts.ids.clone() },
        dispatcher,
        PushSettings { title: config.push_title.clone(), text: config.push_text.clone(), include_text: config.push_include_text },
    );
    let gateway = Gateway::new(
        GatewayPorts {
            id: GATEWAY.parse()?,
            bus,
            routes,
            api: logic.clone(),
            authenticator: Arc::new(TokenAuthenticator::new(tokens.clone(), logic.clone(), parts.clock.clone())),
            clock: parts.clock.clone(),
            ids: parts.ids.clone(),
        },
        gateway_settings(&config),
    );

    let draining = Arc::new(AtomicBool::new(false));
    let (stop, stopped) = watch::channel(false);
    let router = public(&gateway, &draining);
    let mut tasks = vec![
        spawn("logic", logic.clone().run()),
        spawn("task", task.run()),
        spawn("gateway", gateway.clone().run()),
        spawn("listener", {
            let (gateway, stopped) = (gateway.clone(), stopped.clone());
            async move { gateway.serve(listener, router, until(stopped)).await }
        }),
    ];
    let mut admin_address = None;
    if let Some(wanted) = config.admin_listen.0 {
        let listener = bind(wanted).await?;
        admin_address = Some(listener.local_addr().map_err(Error::internal)?);
        let metrics = Metrics::new(gateway.clone(), local_bus.clone(), database.clone());
        let router = admin::routes(AdminState {
            token: secrets.admin_token.clone(),
            accounts: logic.clone(),
            store,
            tokens,
            clock: parts.clock,
            ids: parts.ids,
            metrics: Arc::new(move || metrics.text()),
        });
        tasks.push(spawn("admin listener", async move {
            axum::serve(listener, router).with_graceful_shutdown(until(stopped)).await.map_err(Error::internal)
        }));
        let told = admin_address.map(|address| address.to_string()).unwrap_or_default();
        fs::write(config.data.join("admin-address"), told).map_err(|error| refuse(format!("admin-address: {error}"), error))?;
    }
    Ok(Running {
        address,
        admin_address,
        admin_token: secrets.admin_token,
        gateway,
        bus: local_bus,
        store: database,
        draining,
        stop,
        tasks,
        _lock: lock,
    })
}

fn public(gateway: &Arc<Gateway>, draining: &Arc<AtomicBool>) -> Router {
    let draining = draining.clone();
    let ready = move || async move {
        if draining.load(Ordering::Acquire) {
            (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({"ready": false, "waits_for": "the end of the drain"})))
        } else {
            (StatusCode::OK, Json(serde_json::json!({"ready": true})))
        }
    };
    gateway.router().route("/healthz", get(|| async { "ok" })).route("/readyz", get(ready)).merge(web::routes())
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

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let bound = || -> std::io::Result<TcpListener> {
        let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|error| refuse(format!("cannot listen on {address}: {error}"), error))
}

fn refuse(message: String, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Code::Unavailable, message).with_source(source)
}

async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn spawn(name: &'static str, role: impl Future<Output = Result<()>> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = role.await {
            tracing::error!(?error, "the {name} ended");
        }
    })
}
