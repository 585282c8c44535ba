//! `gochat dead-letters …`: records that nobody could process.

use clap::Subcommand;
use gochat_server::config::Config;

use crate::Outcome;
#[cfg(feature = "kafka")]
use crate::say;

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
        /// Its position, as the list shows it.
        position: u64,
    },
}

/// Runs one of them.
#[cfg(feature = "kafka")]
pub async fn run(config: &Config, command: DeadLettersCommand) -> Outcome {
    let bus = gochat_server::wire::kafka(config)?;
    match command {
        DeadLettersCommand::List { limit } => {
            for letter in bus.dead_letters(limit).await? {
                say(&line(&letter));
            }
        }
        DeadLettersCommand::Replay { position } => {
            let letter = bus.replay(position).await?;
            say(&format!("replayed {}", line(&letter)));
        }
    }
    Ok(())
}

#[cfg(feature = "kafka")]
fn line(letter: &gochat_transport::bus::DeadLetter) -> String {
    let gochat_transport::bus::DeadLetter { position, topic, partition, offset, error, size, at } = letter;
    format!("{position:>6}  {topic} {partition}/{offset}  {size} bytes  at {at}: {error}")
}

#[cfg(not(feature = "kafka"))]
pub async fn run(_: &Config, _: DeadLettersCommand) -> Outcome {
    Err("this build has no kafka; build with `--features kafka` (or `distributed`)".into())
}
