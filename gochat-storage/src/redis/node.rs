//! One server: a connection that all calls share, and its mending.
//!
//! ```text
//! start ─► mending ─► connected ─► lost (an error, a timeout, the driver saw it close) ─► mending …
//! ```
//!
//! Invariant: while there is no connection, no call waits for one.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    time::Duration,
};

use gochat_core::error::{Code, Error, Result};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline, ProtocolVersion, PushInfo, PushKind, RedisError, RedisResult,
    Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{Counters, RedisSettings, scripts};

/// Calls that may wait to be written to one server.
const CALLS_WAITING_MAX: usize = 1024;

pub(super) struct Node {
    client: Client,
    response_timeout: Duration,
    connect_timeout: Duration,
    reconnect_every: Duration,
    state: Mutex<State>,
    connected: watch::Sender<bool>,
    counters: Arc<Counters>,
    runtime: tokio::runtime::Handle,
}

#[derive(Default)]
struct State {
    /// Counts attempts to connect, so that who saw an old connection fail does not close a newer one.
    generation: u64,
    connection: Option<MultiplexedConnection>,
    mending: bool,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("address", &self.client.get_connection_info().addr()).field("connected", &self.is_connected()).finish()
    }
}

impl Node {
    /// Begins to connect to this server.
    pub fn start(info: ConnectionInfo, settings: &RedisSettings, counters: Arc<Counters>, runtime: tokio::runtime::Handle) -> RedisResult<Arc<Node>> {
        // The third version of the protocol says when the other side has closed, without a call that fails first.
        let speaking = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let node = Arc::new(Node {
            client: Client::open(info.set_redis_settings(speaking))?,
            response_timeout: settings.response_timeout,
            connect_timeout: settings.connect_timeout,
            reconnect_every: settings.reconnect_every,
            state: Mutex::default(),
            connected: watch::Sender::new(false),
            counters,
            runtime,
        });
        node.mend(&mut node.state());
        Ok(node)
    }

    pub fn info(&self) -> &ConnectionInfo {
        self.client.get_connection_info()
    }

    pub fn host(&self) -> &str {
        match self.info().addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
            _ => "",
        }
    }

    pub fn is_at(&self, host: &str, port: u16) -> bool {
        match self.info().addr() {
            ConnectionAddr::Tcp(own, own_port) | ConnectionAddr::TcpTls { host: own, port: own_port, .. } => own == host && *own_port == port,
            _ => false,
        }
    }

    pub fn is_connected(&self) -> bool {
        self.state().connection.is_some()
    }

    /// Waits until there is a connection.
    pub async fn connected(&self) {
        // The sender lives in `self`: it is not closed.
        let _ = self.connected.subscribe().wait_for(|connected| *connected).await;
    }

    /// One round trip: an answer for each command, a refusal of a single one among them.
    pub async fn call(self: &Arc<Self>, pipeline: &Pipeline) -> Result<Vec<Value>> {
        let (generation, connection) = {
            let state = self.state();
            (state.generation, state.connection.clone())
        };
        let Some(mut connection) = connection else {
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
            return Err(Error::new(Code::Unavailable, "redis is not connected").retry_after(self.reconnect_every));
        };
        self.counters.round_trips.fetch_add(1, Ordering::Relaxed);
        connection.req_packed_commands(pipeline, 0, pipeline.len()).await.map_err(|error| {
            // Also after a timeout: a server that hangs is not asked again before it has greeted.
            self.lost(generation);
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
            let cause = if error.is_timeout() { "redis did not answer in time" } else { "the connection to redis was lost" };
            Error::new(Code::Unavailable, cause).with_source(error)
        })
    }

    /// The connection of this generation is of no use any more.
    fn lost(self: &Arc<Self>, generation: u64) {
        let mut state = self.state();
        if state.generation == generation && state.connection.take().is_some() {
            self.connected.send_replace(false);
            tracing::warn!(server = %self.info().addr(), "lost the connection to redis");
            self.mend(&mut state);
        }
    }

    /// Leaves the connection that there is for a new one.
    pub fn reconnect(self: &Arc<Self>) {
        let generation = self.state().generation;
        self.lost(generation);
    }

    fn mend(self: &Arc<Self>, state: &mut State) {
        if !state.mending {
            state.mending = true;
            self.runtime.spawn(mending(Arc::downgrade(self), self.reconnect_every));
        }
    }

    async fn try_connect(self: &Arc<Self>) -> RedisResult<()> {
        let generation = {
            let mut state = self.state();
            state.generation += 1;
            state.generation
        };
        let node = Arc::downgrade(self);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout))
            .set_pipeline_buffer_size(CALLS_WAITING_MAX)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection
                    && let Some(node) = node.upgrade()
                {
                    node.lost(generation);
                }
                Ok::<(), Infallible>(())
            });
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        // Brings the scripts and proves that the server answers: one that is loading its data refuses.
        let mut load = Pipeline::new();
        for command in scripts::load_all() {
            load.add_command(command);
        }
        for answer in connection.req_packed_commands(&load, 0, load.len()).await? {
            if let Value::ServerError(refusal) = answer {
                return Err(RedisError::from((ErrorKind::Client, "redis is not ready", refusal.to_string())));
            }
        }
        let mut state = self.state();
        state.connection = Some(connection);
        state.mending = false;
        self.counters.connects.fetch_add(1, Ordering::Relaxed);
        self.connected.send_replace(true);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects; ends with the connection, or with the node.
async fn mending(node: Weak<Node>, pause: Duration) {
    let mut told = false;
    loop {
        let Some(node) = node.upgrade() else { return };
        let error = match timeout(node.connect_timeout, node.try_connect()).await {
            Ok(Ok(())) => {
                tracing::info!(server = %node.info().addr(), "connected to redis");
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if !told {
            tracing::warn!(server = %node.info().addr(), error, "redis cannot be reached; trying again");
            told = true;
        }
        drop(node);
        sleep(pause).await;
    }
}
