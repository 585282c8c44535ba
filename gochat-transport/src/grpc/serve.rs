//! The listener of a role: its services, health and reflection, and how it ends.
//!
//! ```text
//! stop ─► health says NOT_SERVING ─► no new connection, no new call ─► calls under way finish ─► end
//!                                                     └ not within `grace`: their connections are cut
//! ```
//!
//! Invariant: when `serve` has ended, or was dropped, no connection of it is left.

use std::{
    future::pending,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream;
use gochat_core::{
    error::{Code, Error, Result},
    ports::{LogicApi, Store},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tonic::{
    service::Routes,
    transport::server::{Connected, Server, TcpConnectInfo},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{CONNECTION_WINDOW_BYTES, LogicServer, MESSAGE_BYTES_MAX, PING_AFTER, PING_TIMEOUT, RepoServer, STREAM_WINDOW_BYTES};
use crate::pb::{
    self,
    logic::logic_service_server::{LogicServiceServer, SERVICE_NAME as LOGIC},
    repo::repo_service_server::{RepoServiceServer, SERVICE_NAME as REPO},
};

/// Calls that one connection may have under way; more wait at their client.
const CALLS_PER_CONNECTION_MAX: u32 = 1024;
/// Wait before accepting again when the system has no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Until what was cut is gone.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// How a listener ends.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// How long calls under way may take after the stop.
    pub grace: Duration,
}

impl Default for ServeSettings {
    fn default() -> Self {
        ServeSettings { grace: Duration::from_secs(10) }
    }
}

/// What a listener serves.
#[derive(Debug)]
pub struct Services {
    names: Vec<&'static str>,
    repo: Option<RepoServer>,
    logic: Option<LogicServer>,
    reporter: HealthReporter,
}

impl Default for Services {
    fn default() -> Self {
        Services { names: Vec::new(), repo: None, logic: None, reporter: HealthReporter::new() }
    }
}

impl Services {
    /// Serves a store as `RepoService`.
    #[must_use]
    pub fn repo(mut self, store: Arc<dyn Store>) -> Self {
        self.names.push(REPO);
        self.repo = Some(RepoServer::new(store));
        self
    }

    /// Serves what logic does for gateways as `LogicService`.
    #[must_use]
    pub fn logic(mut self, api: Arc<dyn LogicApi>) -> Self {
        self.names.push(LOGIC);
        self.logic = Some(LogicServer::new(api));
        self
    }

    /// The handle of what health says of these services.
    pub fn health(&self) -> Health {
        Health { names: self.names.clone(), reporter: self.reporter.clone() }
    }
}

/// What `grpc.health.v1.Health` answers, for the services by name and for all together (the empty name).
#[derive(Clone, Debug)]
pub struct Health {
    names: Vec<&'static str>,
    reporter: HealthReporter,
}

impl Health {
    /// Says SERVING or NOT_SERVING. Clients of ours that are connected stay; new connections are made elsewhere.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in self.names.iter().copied().chain([""]) {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

/// Serves until `stop` is ready and what was under way has ended. Health says SERVING from the start.
pub async fn serve(listener: TcpListener, services: Services, settings: &ServeSettings, stop: impl Future<Output = ()> + Send) -> Result<()> {
    let health = services.health();
    health.set_serving(true).await;
    // Ends every connection when it says so, or when it is gone.
    let cut = watch::Sender::new(false);
    let stopped = watch::Sender::new(false);
    let stopping = async {
        stop.await;
        health.set_serving(false).await;
        stopped.send_replace(true);
    };
    let mut at_stop = stopped.subscribe();
    let grace_is_over = async {
        if at_stop.wait_for(|stopped| *stopped).await.is_err() {
            pending::<()>().await;
        }
        sleep(settings.grace).await;
    };
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(PING_AFTER))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX);
    let incoming = stream::unfold(listener, |listener| async { Some((accept(&listener, &cut).await, listener)) });
    let served = server.add_routes(routes(services)?).serve_with_incoming_shutdown(incoming, stopping);
    tokio::pin!(served);
    let outcome = tokio::select! {
        outcome = &mut served => outcome,
        () = grace_is_over => {
            tracing::warn!(grace_ms = settings.grace.as_millis(), "calls are still under way after the grace; their connections are cut");
            cut.send_replace(true);
            timeout(CUT_TIMEOUT, served).await.unwrap_or(Ok(()))
        }
    };
    outcome.map_err(|error| Error::new(Code::Unavailable, "the gRPC listener ended").with_source(error))
}

fn routes(services: Services) -> Result<Routes> {
    let mut reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health")
        .with_service_name("grpc.reflection.v1.ServerReflection");
    for name in services.names {
        reflection = reflection.with_service_name(name);
    }
    let health = tonic_health::server::HealthService::from_health_reporter(services.reporter);
    let mut routes = Routes::new(tonic_health::pb::health_server::HealthServer::new(health))
        .add_service(reflection.build_v1().map_err(|error| Error::internal(error.to_string()))?);
    if let Some(repo) = services.repo {
        let service = RepoServiceServer::new(repo).max_decoding_message_size(MESSAGE_BYTES_MAX);
        routes = routes.add_service(service.max_encoding_message_size(MESSAGE_BYTES_MAX));
    }
    if let Some(logic) = services.logic {
        let service = LogicServiceServer::new(logic).max_decoding_message_size(MESSAGE_BYTES_MAX);
        routes = routes.add_service(service.max_encoding_message_size(MESSAGE_BYTES_MAX));
    }
    Ok(routes)
}

async fn accept(listener: &TcpListener, cut: &watch::Sender<bool>) -> io::Result<Socket> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A connection that is gone already fails at its first use.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection was gone at once");
                }
                let mut cut = cut.subscribe();
                let cut = Box::pin(async move { drop(cut.wait_for(|cut| *cut).await) });
                return Ok(Socket { stream, cut });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that can be cut from outside.
struct Socket {
    stream: TcpStream,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Connected for Socket {
    type ConnectInfo = TcpConnectInfo;
    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A connection always reads, so this is where it hears that it is over; it is never polled again afterwards.
        if self.cut.as_mut().poll(cx).is_ready() {
            self.cut = Box::pin(async {});
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
