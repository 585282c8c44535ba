//! The whole server inside an application, with a rule of its own: no message may contain a link.
//!
//! `cargo run -p gochat-examples --bin embed`

use std::{sync::Arc, time::Duration};

use gochat_core::{
    async_trait,
    model::Draft,
    ports::{Decision, Hook},
};
use gochat_server::{
    config::Config,
    wire::{self, Parts},
};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug)]
struct NoLinks;

#[async_trait]
impl Hook for NoLinks {
    async fn before_send(&self, draft: &Draft) -> Decision {
        match draft.body.content.contains("://") {
            true => Decision::Refuse("links are not welcome here".into()),
            false => Decision::Pass,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = std::env::args().nth(1).unwrap_or_else(|| "./embedded-chat".into());
    let config = Config::with(&[("listen", "127.0.0.1:0"), ("data", &data)])?;
    let server = wire::start(config, Parts { hooks: vec![Arc::new(NoLinks)], ..Parts::default() }).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    println!("chat at http://{}", server.address());
    interrupt.recv().await;
    server.shutdown(Duration::from_secs(8)).await;
    Ok(())
}
