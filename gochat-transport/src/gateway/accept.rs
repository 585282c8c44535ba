//! The accept loop: hyper's http1 with a limit on everything that a stranger can make us wait for.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, response::Response};
use gochat_core::error::{Code, Error, Result};
use http_body_util::Limited;
use hyper::{Request, body::Incoming, header::CONTENT_LENGTH, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tower::ServiceExt;

use super::{Gateway, GatewaySettings, Shared, http::refused};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 4096;
/// Pause after an accept that failed: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener as [`Gateway::serve`] wants it.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Who is at the other end of a request's connection; an extension of every request that came through [`Gateway::serve`]
/// (which also sets axum's `ConnectInfo<SocketAddr>`).
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    pub(super) admission: Arc<Admission>,
}

/// Connections that are not authenticated, by address.
#[derive(Debug, Default)]
pub(super) struct Admissions(Mutex<HashMap<IpAddr, usize>>);

/// One of them; it counts as long as this lives.
#[derive(Debug)]
pub(super) struct Admission {
    admissions: Arc<Admissions>,
    address: IpAddr,
}

impl Admissions {
    fn admit(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Arc<Admission>> {
        let address = network(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Arc::new(Admission { admissions: self.clone(), address }))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counts = self.admissions.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

impl Gateway {
    /// Accepts connections and serves `router` on them, until `stop`; ends when the requests that are under way then are
    /// answered, or their time is over. Upgraded connections go on: [`drain`](Gateway::drain) ends them.
    pub async fn serve(self: &Arc<Self>, listener: TcpListener, router: Router, stop: impl Future<Output = ()>) -> Result<()> {
        let shared = &self.shared;
        let slots = Arc::new(Semaphore::new(shared.settings.http_connections_max));
        let (stopping, watching) = watch::channel(false);
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = accept(&listener, &slots) => accepted,
            };
            let (stream, address, slot) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(admission) = shared.admissions.admit(address.ip(), shared.settings.connections_per_address) else {
                shared.counters.refusals.one();
                refuse(&stream);
                continue;
            };
            if let Err(error) = prepare(&stream, &shared.settings) {
                tracing::debug!(%error, "a socket option could not be set");
            }
            let connection = serve_connection(shared.clone(), stream, Peer { address, admission }, router.clone(), watching.clone());
            tokio::spawn(async move {
                connection.await;
                drop(slot);
            });
        }
        drop(listener);
        let _ = stopping.send(true);
        let all = u32::try_from(shared.settings.http_connections_max).unwrap_or(u32::MAX);
        let _ = timeout(shared.settings.http_header_deadline, slots.acquire_many(all)).await;
        Ok(())
    }
}

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, slot))
}

fn prepare(stream: &TcpStream, settings: &GatewaySettings) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // The kernel itself gives up a peer that takes nothing of an answer: hyper has no limit for that.
        socket.set_tcp_user_timeout(Some(settings.http_write_stall))?;
        // Without it the kernel swallows several hundred kilobytes before a slow peer is noticed.
        socket.set_tcp_notsent_lowat(settings.unsent_bytes)?;
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    socket.set_send_buffer_size(settings.unsent_bytes as usize * 4)?;
    Ok(())
}

/// Says why, as far as a peer that may not even have asked yet can be told.
fn refuse(stream: &TcpStream) {
    let body = format!(
        r#"{{"type":"urn:gochat:error:{0}","title":"{1}","status":429,"detail":"{1}","code":"{0}"}}"#,
        Code::TooManyConnections.as_str(),
        Code::TooManyConnections.cause()
    );
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\nretry-after: 10\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.try_write(answer.as_bytes());
}

async fn serve_connection(shared: Arc<Shared>, stream: TcpStream, peer: Peer, router: Router, mut stopping: watch::Receiver<bool>) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(shared.settings.http_header_deadline)
        .max_buf_size(shared.settings.http_header_bytes_max.max(8192));
    let service = service_fn(move |request| {
        let (router, peer, shared) = (router.clone(), peer.clone(), shared.clone());
        async move { Ok::<_, Infallible>(answer(&shared, router, peer, request).await) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error: the accept loop has ended altogether.
    let _ = stopping.wait_for(|&stopping| stopping).await;
}

async fn answer(shared: &Shared, router: Router, peer: Peer, request: Request<Incoming>) -> Response {
    let settings = &shared.settings;
    let method = request.method().clone();
    let refused = |error| refused(error, &shared.ports.ids.uuid().to_string(), &method);
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > settings.http_body_bytes_max as u64) {
        let cause = format!("a request body has at most {} bytes", settings.http_body_bytes_max);
        return refused(Error::new(Code::TooLarge, cause));
    }
    let mut request = request.map(|body| Body::new(Limited::new(body, settings.http_body_bytes_max)));
    request.extensions_mut().insert(ConnectInfo(peer.address));
    request.extensions_mut().insert(peer);
    match timeout(settings.http_request_deadline, router.oneshot(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => refused(Code::TimeoutUnknown.into()),
    }
}
