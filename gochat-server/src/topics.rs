//! `gochat topics`: the topics on Kafka.

use gochat_server::config::Config;

use crate::Outcome;
#[cfg(feature = "kafka")]
use crate::say;

/// Makes the topics of all roles but the gateways', which make their own, and lists what is there.
#[cfg(feature = "kafka")]
pub async fn run(config: &Config) -> Outcome {
    let bus = gochat_server::wire::kafka(config)?;
    bus.ensure_topics(&[gochat_core::ports::Topic::Upstream, gochat_core::ports::Topic::Task, gochat_core::ports::Topic::DeadLetter]).await?;
    for topic in bus.topics().await? {
        say(&topic.to_string());
    }
    Ok(())
}

#[cfg(not(feature = "kafka"))]
pub async fn run(_: &Config) -> Outcome {
    Err("this build has no kafka; build with `--features kafka` (or `distributed`)".into())
}
