//! Password logins, and what messages feel of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, task::JoinSet};

use super::{Arguments, Fault, calibrate, figures::Figures, talk, target::Target};

const PASSWORD: &str = "correct horse battery";
/// Messages a second meanwhile.
const MESSAGES_PER_S: f64 = 2000.0;

pub async fn login(target: &Target, arguments: &Arguments) -> Result<Figures, Fault> {
    let clients = arguments.clients.unwrap_or(8);
    let bare = calibrate::hashes().await?;
    let prefix = arguments.prefix("login");
    target.provision(json!({"users": clients, "prefix": prefix})).await?;
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    for client in 0..clients {
        target.set_password(&format!("{prefix}{client}"), PASSWORD).await?;
    }

    let talking = Arguments { rate: Some(MESSAGES_PER_S), clients: Some(200), ..arguments.clone() };
    let quiet = talk::p2p(target, &talking.renamed("quiet")).await?;
    let mut logins = JoinSet::new();
    for client in 0..clients {
        let (address, done, stop) = (target.address, done.clone(), stop.clone());
        let body = json!({"username": format!("{prefix}{client}"), "password": PASSWORD}).to_string();
        logins.spawn(async move { keep_logging_in(address, body, &done, &stop).await.map_err(|fault| fault.to_string()) });
    }
    let began = Instant::now();
    let busy = talk::p2p(target, &talking.renamed("busy")).await?;
    let seconds = began.elapsed().as_secs_f64();
    let count = done.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = logins.join_next().await {
        ended??;
    }
    let mut figures = Figures::of("login");
    figures.set("clients", clients);
    figures.number("logins_per_s", count as f64 / seconds);
    figures.number("hashes_per_s", bare);
    figures.number("share_of_hash_rate", count as f64 / seconds / bare);
    figures.set("messages_per_s", MESSAGES_PER_S);
    figures.set("ack_ms", busy.value("ack_ms"));
    figures.set("ack_ms_without_logins", quiet.value("ack_ms"));
    Ok(figures)
}

async fn keep_logging_in(address: std::net::SocketAddr, body: String, done: &AtomicU64, stop: &AtomicBool) -> Result<(), Fault> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
    tokio::spawn(connection);
    while !stop.load(Ordering::Relaxed) {
        let request = Request::post("/api/v1/auth/login")
            .header(header::HOST, address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.clone())))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let text = answer.into_body().collect().await?.to_bytes();
        if status == http::StatusCode::OK {
            done.fetch_add(1, Ordering::Relaxed);
        } else if status == http::StatusCode::TOO_MANY_REQUESTS || status == http::StatusCode::SERVICE_UNAVAILABLE {
            tokio::time::sleep(Duration::from_millis(50)).await;
        } else {
            return Err(format!("a login was refused: {}", String::from_utf8_lossy(&text)).into());
        }
    }
    Ok(())
}
