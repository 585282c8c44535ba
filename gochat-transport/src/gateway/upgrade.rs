//! `GET /api/v1/ws`: from an HTTP request to a connection of a shard.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use gochat_core::error::{Code, Error, Result};
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::{net::TcpStream, sync::mpsc};

use super::{
    Gateway, Peer,
    accept::Admission,
    codec::Codec,
    http::Problem,
    shard::{Adopted, Command},
};

/// Answers a request to open a WebSocket.
pub(super) async fn upgrade(State(gateway): State<Arc<Gateway>>, mut request: Request) -> Response {
    match open(&gateway, &mut request) {
        Ok(response) => response,
        Err(error) => {
            gateway.shared.counters.refusals.one();
            if error.code != Code::InvalidRequest {
                return Problem::from(error).into_response();
            }
            let mut response = Problem::from(error).with_status(StatusCode::UPGRADE_REQUIRED).into_response();
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            response
        }
    }
}

fn open(gateway: &Arc<Gateway>, request: &mut Request) -> Result<Response> {
    let shared = &gateway.shared;
    shared.accepts_connections()?;
    let headers = request.headers();
    if request.method() != Method::GET || !names(headers, header::UPGRADE, "websocket") || !names(headers, header::CONNECTION, "upgrade") {
        return Err(Error::new(Code::InvalidRequest, "this is a WebSocket: GET with Connection: Upgrade and Upgrade: websocket"));
    }
    check_origin(headers, &shared.settings.allowed_origins)?;
    let (codec, subprotocol) = subprotocol(headers)?;
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(0, |key| key.as_bytes().len());
    if key != 24 {
        return Err(Error::new(Code::InvalidField, "Sec-WebSocket-Key is 16 bytes in base64"));
    }
    let admission = request.extensions().get::<Peer>().map(|peer| peer.admission.clone());
    let sender = gateway.shard_for_next().ok_or(Code::Unavailable)?;
    let (response, upgrade) =
        fastwebsockets::upgrade::upgrade(&mut *request).map_err(|_| Error::new(Code::InvalidRequest, "Sec-WebSocket-Version is 13"))?;
    // A task of its own: a future that contains hyper's part of the upgrade would keep its size for life.
    tokio::spawn(async move {
        match upgrade.await {
            Ok(socket) => hand_over(socket.into_inner().into_inner(), codec, admission, sender).await,
            Err(error) => tracing::debug!(%error, "an upgrade was not finished"),
        }
    });
    let mut response = response.map(Body::new);
    if subprotocol {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(codec.subprotocol()));
    }
    Ok(response)
}

/// Takes the socket out of hyper's hands and gives it to a shard.
async fn hand_over(upgraded: Upgraded, codec: Codec, admission: Option<Arc<Admission>>, sender: mpsc::Sender<Command>) {
    let (io, read) = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(Parts { io, read_buf, .. }) => (io, read_buf),
        // A host that serves our router with axum's or hyper-util's own loop.
        Err(upgraded) => match auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
            Ok(parts) => (parts.io, parts.read_buf),
            Err(_) => return tracing::error!("a WebSocket needs a TCP socket below it; this listener serves something else"),
        },
    };
    // An empty `Bytes` may still own hyper's buffer.
    let early = if read.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(&read) };
    match io.into_inner().into_std() {
        Ok(socket) => {
            let _ = sender.send(Command::Adopt(Box::new(Adopted { socket, early, codec, admission }))).await;
        }
        Err(error) => tracing::debug!(%error, "a socket broke while it was upgraded"),
    }
}

/// Whether a list header has this token.
fn names(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|it| it.trim().eq_ignore_ascii_case(token))
}

/// A browser says which page connects; programs that are no browser say nothing, and need not.
fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<()> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let own = |origin: &str| {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let origin_host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        origin_host.is_some_and(|it| host.is_some_and(|host| it.eq_ignore_ascii_case(host)))
    };
    match origin.to_str() {
        Ok(origin) if own(origin) || allowed.iter().any(|it| it.eq_ignore_ascii_case(origin)) => Ok(()),
        _ => Err(Code::OriginRefused.into()),
    }
}

/// The first known subprotocol that is offered, JSON if none is; and whether the answer names it.
fn subprotocol(headers: &HeaderMap) -> Result<(Codec, bool)> {
    let mut offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .peekable();
    if offered.peek().is_none() {
        return Ok((Codec::Json, false));
    }
    match offered.find_map(Codec::of) {
        Some(codec) => Ok((codec, true)),
        None => Err(Error::new(Code::InvalidField, "none of these subprotocols is known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_page_may_connect_from_the_servers_own_origin_and_from_allowed_ones() {
        let allowed = ["https://chat.example.org".to_owned()];
        let check = |origin| check_origin(&headers(&[(header::HOST, "gochat.test:8080"), (header::ORIGIN, origin)]), &allowed).is_ok();
        assert!(check("http://gochat.test:8080") && check("https://GoChat.test:8080") && check("https://chat.example.org"));
        assert!(!check("http://gochat.test") && !check("null") && !check("https://gochat.test:8080.evil.test") && !check("http://chat.example.org"));
        assert!(check_origin(&headers(&[(header::HOST, "gochat.test")]), &[]).is_ok(), "no browser, no origin");
    }

    #[test]
    fn the_first_known_subprotocol_wins() {
        let choose = |offer| subprotocol(&headers(&[(header::SEC_WEBSOCKET_PROTOCOL, offer)]));
        assert_eq!(choose("chat, gochat.v1.json").unwrap(), (Codec::Json, true));
        assert_eq!(subprotocol(&HeaderMap::new()).unwrap(), (Codec::Json, false));
        assert_eq!(choose("chat").unwrap_err().code, Code::InvalidField);
    }
}
