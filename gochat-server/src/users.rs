//! `gochat user …`: asks the admin listener of the server that runs on the data folder.

use std::{net::SocketAddr, path::Path};

use bytes::Bytes;
use clap::Subcommand;
use gochat_server::config::Config;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{Outcome, say};

/// What can be done to accounts.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// List the accounts.
    List,
    /// Disable an account: it is out everywhere within 2 seconds.
    Disable {
        /// User name.
        username: String,
    },
    /// Enable an account again.
    Enable {
        /// User name.
        username: String,
    },
    /// Set a new password, read from standard input; every device is signed out.
    ResetPassword {
        /// User name.
        username: String,
    },
}

/// Runs one of them.
pub async fn run(config: &Config, command: UserCommand) -> Outcome {
    let admin = Admin::of(&config.data)?;
    match command {
        UserCommand::List => {
            let mut after = String::new();
            loop {
                let page = admin.ask(Method::GET, &format!("/admin/users?limit=200&after={after}"), None).await?;
                for user in page["items"].as_array().into_iter().flatten() {
                    let text = |field: &str| user[field].as_str().unwrap_or_default().to_owned();
                    say(&format!("{:<32} {:<9} {}  {}", text("username"), text("status"), text("id"), text("display_name")));
                }
                match page["next"].as_str() {
                    Some(next) => after = next.to_owned(),
                    None => return Ok(()),
                }
            }
        }
        UserCommand::Disable { username } => admin.set_status(&username, "disabled").await,
        UserCommand::Enable { username } => admin.set_status(&username, "active").await,
        UserCommand::ResetPassword { username } => {
            let mut password = String::new();
            tokio::io::stdin().read_to_string(&mut password).await?;
            let body = json!({"password": password.trim_end_matches(['\r', '\n'])});
            admin.ask(Method::POST, &format!("/admin/users/{username}/password"), Some(body)).await.map(|_| ())
        }
    }
}

struct Admin {
    address: SocketAddr,
    token: String,
}

impl Admin {
    fn of(data: &Path) -> Result<Admin, Box<dyn std::error::Error>> {
        let read = |name: &str| {
            std::fs::read_to_string(data.join(name))
                .map_err(|error| format!("no server with an admin listener runs on {} ({name}: {error})", data.display()))
        };
        Ok(Admin { address: read("admin-address")?.trim().parse()?, token: read("admin-token")?.trim().to_owned() })
    }

    async fn set_status(&self, username: &str, status: &str) -> Outcome {
        self.ask(Method::POST, &format!("/admin/users/{username}/status"), Some(json!({"status": status}))).await.map(|_| ())
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Box<dyn std::error::Error>> {
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
