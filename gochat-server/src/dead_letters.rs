//! `gochat dead-letters …`: records that nobody could process.

use clap::Subcommand;
use gochat_server::config::Config;

use crate::{Outcome, say};

/// What can be done about them.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List them, the oldest first.
    List {
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Put one back on the topic that it came from.
    Replay {
        /// Its number, as the list shows it.
        offset: i64,
    },
}
