//! A client of the admin listener, for the commands of the command line.

use std::{net::SocketAddr, path::Path};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::Fault;

/// The admin listener of a server.
pub struct Admin {
    address: SocketAddr,
    token: String,
}

impl Admin {
    /// That of the server that runs on this data folder.
    pub fn of(data: &Path) -> Result<Admin, Fault> {
        let read = |name: &str| {
            std::fs::read_to_string(data.join(name))
                .map_err(|error| format!("no server with an admin listener runs on {} ({name}: {error})", data.display()))
        };
        Ok(Admin { address: read("admin-address")?.trim().parse()?, token: read("admin-token")?.trim().to_owned() })
    }

    /// That of a server somewhere.
    pub fn at(address: SocketAddr, token: String) -> Admin {
        Admin { address, token }
    }

    /// Asks it; an answer that is a problem is an error.
    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Fault> {
        let stream =
            TcpStream::connect(self.address).await.map_err(|error| format!("the admin listener {} does not answer: {error}", self.address))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.map(|body| body.to_string()).unwrap_or_default())))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        let body: Value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
        if status.is_success() {
            Ok(body)
        } else {
            Err(format!("{}: {}", body["code"].as_str().unwrap_or("error"), body["detail"].as_str().unwrap_or_default()).into())
        }
    }
}
