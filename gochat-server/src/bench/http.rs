//! A client of the HTTP interface: one connection, one request after the other.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::Fault;

pub struct Http {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Http {
    pub async fn connect(address: SocketAddr) -> Result<Http, Fault> {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
        tokio::spawn(connection);
        Ok(Http { address, sender })
    }

    /// Posts to a path below `/api/v1`.
    pub async fn post(&mut self, path: &str, token: Option<&str>, body: &Value) -> Result<(StatusCode, Value), Fault> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("/api/v1{path}"))
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.body(Full::new(Bytes::from(body.to_string())))?).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        Ok((status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? }))
    }
}
