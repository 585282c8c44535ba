//! GoChat, the reference server: the roles wired together, settings, telemetry, the web chat and the command line. Also a
//! library, so that an application can start the whole of it inside itself:
//!
//! ```no_run
//! # async fn embed() -> Result<(), Box<dyn std::error::Error>> {
//! use gochat_server::{config::Config, wire};
//!
//! let server = wire::start(Config::with(&[("listen", "127.0.0.1:0"), ("data", "./chat")])?, wire::Parts::default()).await?;
//! println!("chat at http://{}", server.address());
//! server.shutdown(std::time::Duration::from_secs(10)).await;
//! # Ok(()) }
//! ```

pub mod admin;
pub mod config;
pub mod metrics;
pub mod push;
pub mod readiness;
pub mod roles;
pub mod secrets;
pub mod system;
pub mod telemetry;
pub mod web;
pub mod wire;
