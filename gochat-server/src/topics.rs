//! `gochat topics`: the topics on Kafka.

use gochat_server::config::Config;

use crate::Outcome;

/// Makes the topics that all roles share, as far as they are missing, and lists what is there. Gateways make their own.
#[cfg(feature = "kafka")]
pub async fn run(config: &Config) -> Outcome {
    use gochat_core::ports::Topic;

    use crate::say;

    let bus = gochat_server::wire::kafka(config)?;
    bus.ensure_topics(&[Topic::Upstream, Topic::Task, Topic::DeadLetter]).await?;
    for topic in bus.topics().await? {
        let groups: Vec<String> = topic.groups.iter().map(|group| format!("{} {} behind", group.group, group.behind)).collect();
        say(&format!(
            "{:<40} {:>3} partitions, {} copies, {} records  {}",
            topic.name,
            topic.partitions,
            topic.replication,
            topic.records,
            groups.join(", ")
        ));
    }
    Ok(())
}

/// This build has none.
#[cfg(not(feature = "kafka"))]
pub async fn run(_: &Config) -> Outcome {
    Err("this build has no kafka; build with `--features kafka` (or `distributed`)".into())
}
