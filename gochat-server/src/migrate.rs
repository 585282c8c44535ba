//! `gochat migrate`: brings the schema of the store up to date.

use gochat_server::{config::Config, wire};

use crate::{Outcome, say};

/// Migrates the store of the settings. Several at once wait for each other.
pub async fn run(config: &Config) -> Outcome {
    wire::migrate(config).await?;
    say("the schema is up to date");
    Ok(())
}
