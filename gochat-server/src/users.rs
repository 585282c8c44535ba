//! `gochat user …`: asks the admin listener of the server that runs on the data folder.

use clap::Subcommand;
use gochat_server::config::Config;
use http::Method;
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::{Outcome, admin_client::Admin, say};

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
        UserCommand::Disable { username } => set_status(&admin, &username, "disabled").await,
        UserCommand::Enable { username } => set_status(&admin, &username, "active").await,
        UserCommand::ResetPassword { username } => {
            let mut password = String::new();
            tokio::io::stdin().read_to_string(&mut password).await?;
            let body = json!({"password": password.trim_end_matches(['\r', '\n'])});
            admin.ask(Method::POST, &format!("/admin/users/{username}/password"), Some(body)).await.map(|_| ())
        }
    }
}

async fn set_status(admin: &Admin, username: &str, status: &str) -> Outcome {
    admin.ask(Method::POST, &format!("/admin/users/{username}/status"), Some(json!({"status": status}))).await.map(|_| ())
}
