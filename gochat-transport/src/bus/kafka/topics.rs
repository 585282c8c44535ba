//! The topics on the brokers: made with stated sizes, checked, described.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use gochat_core::{
    error::{Code, Error, Result},
    ports::Topic,
};
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::Client,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    KafkaBus, KafkaSettings,
    client::{self, Quiet, blocking, unavailable},
    dead_letters::HEADER_BYTES_MAX,
    lock,
};

/// How names of downstream topics begin.
pub(super) const DOWNSTREAM: &str = "im-downstream-topic-";

/// A topic as it is on the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its full name.
    pub name: String,
    /// Its partitions.
    pub partitions: u32,
    /// Replicas of the partition that has least.
    pub replication: u32,
    /// Records that it holds.
    pub records: u64,
    /// The groups that consume it.
    pub groups: Vec<GroupLag>,
}

/// How far a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLag {
    /// Its full name.
    pub group: String,
    /// Records that it did not commit yet, over all partitions.
    pub behind: u64,
}

/// A topic as it should be.
struct Wanted {
    name: String,
    partitions: u32,
    settings: Vec<(&'static str, String)>,
}

impl KafkaBus {
    /// Makes the topics that are missing, and checks that those that are there have as many partitions as the settings say: with
    /// another count the records of a conversation would be on two partitions, in no order (decision 25).
    ///
    /// # Errors
    /// `UNAVAILABLE`: the brokers did not answer in time. `INVALID_FIELD`: another partition count.
    pub async fn ensure_topics(&self, topics: &[Topic]) -> Result<()> {
        let known = lock(&self.inner.ensured).clone();
        let wanted: Vec<Wanted> = topics.iter().map(|topic| self.wanted(topic)).filter(|wanted| !known.contains(&wanted.name)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = wanted.iter().map(|wanted| wanted.name.clone()).collect();
        let settings = self.inner.settings.clone();
        let runtime = tokio::runtime::Handle::current();
        blocking(move || ensure(&settings, &wanted, &runtime)).await?;
        self.inner.shared.up();
        lock(&self.inner.ensured).extend(names);
        Ok(())
    }

    /// Removes topics with all their records: for gateways that are gone for good, and for tests.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the brokers did not answer in time.
    pub async fn delete_topics(&self, topics: &[Topic]) -> Result<()> {
        let names: Vec<String> = topics.iter().map(|topic| self.name(topic)).collect();
        let settings = self.inner.settings.clone();
        let runtime = tokio::runtime::Handle::current();
        lock(&self.inner.ensured).retain(|name| !names.contains(name));
        blocking(move || {
            let admin = admin(&settings)?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let deleted = runtime.block_on(admin.delete_topics(&names, &options(&settings)));
            for outcome in deleted.map_err(unavailable("kafka does not remove topics"))? {
                match outcome {
                    Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                    Err((name, code)) => return Err(refused("the topic was not removed", &name, code)),
                }
            }
            Ok(())
        })
        .await
    }

    /// The topics of this bus that are on the brokers, by name, and how far their groups are.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the brokers did not answer in time.
    pub async fn topics(&self) -> Result<Vec<TopicDescription>> {
        let settings = self.inner.settings.clone();
        blocking(move || describe(&settings)).await
    }

    fn wanted(&self, topic: &Topic) -> Wanted {
        let settings = &self.inner.settings;
        let partitions = match topic {
            Topic::Upstream | Topic::Task => settings.partitions,
            Topic::Downstream(_) | Topic::DeadLetter => 1,
        };
        let in_sync = if settings.replication > 2 { 2 } else { 1 };
        let bytes_max = 1_048_588 + if *topic == Topic::DeadLetter { HEADER_BYTES_MAX } else { 0 };
        let mut configured = vec![("min.insync.replicas", in_sync.to_string()), ("max.message.bytes", bytes_max.to_string())];
        match topic {
            // Worth nothing once its connections are gone.
            Topic::Downstream(_) => configured.push(("retention.ms", (60 * 60 * 1000).to_string())),
            Topic::DeadLetter => configured.push(("retention.ms", (30 * 24 * 60 * 60 * 1000_u64).to_string())),
            // The brokers' default, a week: longer than any outage of a consumer should be.
            Topic::Upstream | Topic::Task => {}
        }
        Wanted { name: self.name(topic), partitions, settings: configured }
    }
}

fn admin(settings: &KafkaSettings) -> Result<AdminClient<Quiet>> {
    client::config(settings).create_with_context(Quiet).map_err(|error| Error::new(Code::InvalidField, "kafka: wrong settings").with_source(error))
}

fn options(settings: &KafkaSettings) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(settings.request_timeout)).operation_timeout(Some(settings.request_timeout / 2))
}

fn refused(what: &str, name: &str, code: RDKafkaErrorCode) -> Error {
    Error::new(Code::Unavailable, format!("{what}: {name}")).with_source(KafkaError::AdminOp(code))
}

fn ensure(settings: &KafkaSettings, wanted: &[Wanted], runtime: &tokio::runtime::Handle) -> Result<()> {
    let admin = admin(settings)?;
    let deadline = Instant::now() + settings.request_timeout;
    let mut asked = false;
    loop {
        let there = partition_counts(admin.inner(), deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100)))?;
        let missing: Vec<&Wanted> = wanted.iter().filter(|wanted| !there.contains_key(&wanted.name)).collect();
        if missing.is_empty() {
            for wanted in wanted {
                check(wanted, there[&wanted.name])?;
            }
            return Ok(());
        }
        if !asked {
            let new: Vec<NewTopic<'_>> = missing
                .iter()
                .map(|wanted| {
                    let new = NewTopic::new(&wanted.name, wanted.partitions as i32, TopicReplication::Fixed(settings.replication as i32));
                    wanted.settings.iter().fold(new, |new, (key, value)| new.set(key, value))
                })
                .collect();
            let made = runtime.block_on(admin.create_topics(&new, &options(settings))).map_err(unavailable("kafka makes no topics"))?;
            for outcome in made {
                match outcome {
                    Ok(name) => tracing::info!(topic = name, "topic made"),
                    // Another role was faster.
                    Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                    Err((name, code)) => return Err(refused("the topic was not made", &name, code)),
                }
            }
            asked = true;
            continue;
        }
        // Made, and not known to every broker yet.
        if Instant::now() > deadline {
            return Err(Error::new(Code::Unavailable, format!("the topic was made but does not appear: {}", missing[0].name)));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn check(wanted: &Wanted, there: usize) -> Result<()> {
    if there == wanted.partitions as usize {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidField,
        format!(
            "the topic {} has {there} partitions and the settings say {}: the count changes only while no records are under way \
             (stop the producers, let the consumers finish, change the topic, then the settings)",
            wanted.name, wanted.partitions
        ),
    ))
}

/// Topics whose partitions all have a leader.
fn partition_counts(client: &Client<Quiet>, timeout: Duration) -> Result<HashMap<String, usize>> {
    let metadata = client.fetch_metadata(None, timeout).map_err(unavailable("kafka does not answer"))?;
    let led = |topic: &&rdkafka::metadata::MetadataTopic| !topic.partitions().is_empty() && topic.partitions().iter().all(|one| one.leader() >= 0);
    Ok(metadata.topics().iter().filter(led).map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect())
}

fn describe(settings: &KafkaSettings) -> Result<Vec<TopicDescription>> {
    let timeout = settings.request_timeout;
    let client = |group: &str| -> Result<BaseConsumer<Quiet>> {
        let mut config = client::config(settings);
        config.set("group.id", group).set("enable.auto.commit", "false");
        config.create_with_context(Quiet).map_err(|error| Error::new(Code::InvalidField, "kafka: wrong settings").with_source(error))
    };
    let own = |name: &str| {
        let fixed = [Topic::Upstream, Topic::Task, Topic::DeadLetter];
        name.strip_prefix(&settings.prefix).is_some_and(|name| name.starts_with(DOWNSTREAM) || fixed.iter().any(|topic| topic.name() == name))
    };
    let consumer = client(&format!("{}im-topics", settings.prefix))?;
    let metadata = consumer.fetch_metadata(None, timeout).map_err(unavailable("kafka does not answer"))?;
    let mut topics = BTreeMap::new();
    let mut ends = HashMap::new();
    for topic in metadata.topics().iter().filter(|topic| own(topic.name())) {
        let mut records = 0;
        for partition in topic.partitions() {
            let (low, high) =
                consumer.fetch_watermarks(topic.name(), partition.id(), timeout).map_err(unavailable("kafka does not tell the ends"))?;
            records += (high - low).unsigned_abs();
            ends.insert((topic.name().to_owned(), partition.id()), (low, high));
        }
        let replication = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
        let (name, partitions) = (topic.name().to_owned(), topic.partitions().len() as u32);
        topics.insert(name.clone(), TopicDescription { name, partitions, replication: replication as u32, records, groups: Vec::new() });
    }
    // Groups that bear our names; with an empty prefix others share the brokers' list of groups.
    let begins = if settings.prefix.is_empty() { "im-" } else { &settings.prefix };
    let groups = consumer.fetch_group_list(None, timeout).map_err(unavailable("kafka does not tell the groups"))?;
    for group in groups.groups().iter().map(|group| group.name()).filter(|name| name.starts_with(begins)) {
        let mut asked = TopicPartitionList::new();
        for (topic, partition) in ends.keys().filter(|(topic, _)| !topic[settings.prefix.len()..].starts_with(DOWNSTREAM)) {
            asked.add_partition(topic, *partition);
        }
        let committed = client(group)?.committed_offsets(asked, timeout).map_err(unavailable("kafka does not tell the offsets"))?;
        let mut behind: BTreeMap<String, (bool, u64)> = BTreeMap::new();
        for element in committed.elements() {
            let Some(&(low, high)) = ends.get(&(element.topic().to_owned(), element.partition())) else { continue };
            let (known, sum) = behind.entry(element.topic().to_owned()).or_default();
            let from = match element.offset() {
                Offset::Offset(offset) => {
                    *known = true;
                    offset.max(low)
                }
                _ => low,
            };
            *sum += u64::try_from(high - from).unwrap_or(0);
        }
        for (topic, (known, behind)) in behind {
            if let (true, Some(description)) = (known, topics.get_mut(&topic)) {
                description.groups.push(GroupLag { group: group.to_owned(), behind });
            }
        }
    }
    Ok(topics.into_values().collect())
}
