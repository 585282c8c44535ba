//! Sends every WebSocket message back: `echo 127.0.0.1:9001`. What the Autobahn cases are run against.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use gochat_transport::gateway::{GatewaySettings, echo, listen};
use http::StatusCode;
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::LocalSet};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = std::env::args().nth(1).ok_or("usage: echo ADDRESS")?.parse()?;
    let listener = listen(address)?;
    // Frames are parsed in memory that belongs to the thread.
    LocalSet::new()
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(upgrade)).with_upgrades();
                tokio::task::spawn_local(connection);
            }
        })
        .await
}

async fn upgrade(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let Ok((response, upgrade)) = fastwebsockets::upgrade::upgrade(&mut request) else {
        let mut refusal = Response::new(Empty::new());
        *refusal.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return Ok(refusal);
    };
    tokio::task::spawn_local(async move {
        let Ok(socket) = upgrade.await else { return };
        let upgraded: Upgraded = socket.into_inner().into_inner();
        if let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() {
            // Autobahn's largest message in fragments has more of them than a chat needs.
            let settings = GatewaySettings { fragments_max: usize::MAX, ..GatewaySettings::default() };
            // A peer that breaks the connection is what many cases are about.
            let _ = echo::serve(parts.io.into_inner(), parts.read_buf, &settings).await;
        }
    });
    Ok(response)
}
