//! What nobody could read: kept with the reason, listed for people, brought back on demand.
//!
//! ```text
//! subscription → Poison → im-dead-letter-topic (original key and bytes; error, topic, partition, offset, time as headers)
//! list ← the newest of them        replay(position) → the original topic again, same key and bytes
//! ```
//!
//! A dead letter stays after its replay, until the topic's retention (30 days) removes it.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gochat_core::{
    error::{Code, Error, Result},
    ports::Topic,
    time::Timestamp,
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Header, Headers, OwnedHeaders},
};

use super::{
    KafkaBus, KafkaSettings,
    client::{self, Quiet, blocking, unavailable},
    producer::{Countdown, Producer},
};

/// What the headers of a dead letter take at most; the topic takes records that are larger by as much.
pub(super) const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an error's text that are kept.
const ERROR_BYTES_MAX: usize = 2_000;

const ERROR: &str = "error";
const TOPIC: &str = "topic";
const PARTITION: &str = "partition";
const OFFSET: &str = "offset";
const TIME: &str = "time";

/// A record that nobody could read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place among the dead letters.
    pub position: u64,
    /// Where it came from: the topic's full name.
    pub topic: String,
    /// Its partition there.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// Why nobody could read it.
    pub error: String,
    /// Bytes of the record.
    pub size: usize,
    /// When it was put aside.
    pub at: Timestamp,
}

/// A record that is to become a dead letter.
pub(super) struct Poison {
    key: Option<Vec<u8>>,
    payload: Vec<u8>,
    headers: [(&'static str, String); 5],
}

impl Poison {
    pub fn new(message: &BorrowedMessage<'_>, error: &Error) -> Self {
        let mut text = format!("{error:?}");
        let mut end = ERROR_BYTES_MAX.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        // Shown to people.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Poison {
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().unwrap_or_default().to_vec(),
            headers: [
                (ERROR, text),
                (TOPIC, message.topic().to_owned()),
                (PARTITION, message.partition().to_string()),
                (OFFSET, message.offset().to_string()),
                (TIME, now.to_string()),
            ],
        }
    }

    pub fn send(&self, producer: &Producer, topic: &str, countdown: Arc<Countdown>) -> Result<(), RDKafkaErrorCode> {
        let headers = self.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        producer.send(topic, self.key.as_deref(), &self.payload, Some(headers), countdown)
    }
}

struct Found {
    letter: DeadLetter,
    key: Option<Vec<u8>>,
    payload: Vec<u8>,
}

impl Found {
    /// None: not one of ours.
    fn of(message: &BorrowedMessage<'_>) -> Option<Self> {
        let headers = message.headers()?;
        let text = |name: &str| headers.iter().find(|header| header.key == name)?.value.and_then(|value| std::str::from_utf8(value).ok());
        let letter = DeadLetter {
            position: u64::try_from(message.offset()).ok()?,
            topic: text(TOPIC)?.to_owned(),
            partition: text(PARTITION)?.parse().ok()?,
            offset: text(OFFSET)?.parse().ok()?,
            error: text(ERROR)?.to_owned(),
            size: message.payload_len(),
            at: Timestamp(text(TIME)?.parse().ok()?),
        };
        Some(Found { letter, key: message.key().map(<[u8]>::to_vec), payload: message.payload().unwrap_or_default().to_vec() })
    }
}

impl KafkaBus {
    /// The newest dead letters, at most `limit`, the oldest of them first.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the brokers did not answer in time, or there is no dead letter topic yet.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        let (settings, topic) = (self.inner.settings.clone(), self.name(&Topic::DeadLetter));
        blocking(move || {
            let reader = Reader::new(&settings, topic)?;
            let (low, high) = reader.ends()?;
            let first = high.saturating_sub(i64::try_from(limit).unwrap_or(i64::MAX)).max(low);
            Ok(reader.read(first, high)?.into_iter().map(|found| found.letter).collect())
        })
        .await
    }

    /// Brings a dead letter's bytes back to the topic that they came from, under their key: for when the reason is gone, as after
    /// an update. Returns once the brokers keep them. The dead letter stays.
    ///
    /// # Errors
    /// `NOT_FOUND`: no dead letter has this position. `UNAVAILABLE`: the brokers did not answer in time.
    pub async fn replay(&self, position: u64) -> Result<DeadLetter> {
        let (settings, topic) = (self.inner.settings.clone(), self.name(&Topic::DeadLetter));
        let nothing = || Error::new(Code::NotFound, "there is no dead letter at this position");
        let found = blocking(move || {
            let at = i64::try_from(position).map_err(|_| nothing())?;
            let reader = Reader::new(&settings, topic)?;
            let (low, high) = reader.ends()?;
            if !(low..high).contains(&at) {
                return Err(nothing());
            }
            reader.read(at, at + 1)?.pop().ok_or_else(nothing)
        })
        .await?;
        // What somebody else wrote into the topic must not choose where we write.
        let own = found.letter.topic.strip_prefix(&self.inner.settings.prefix).is_some_and(|name| {
            [Topic::Upstream, Topic::Task].iter().any(|topic| topic.name() == name) || name.starts_with(super::topics::DOWNSTREAM)
        });
        if !own {
            return Err(Error::new(Code::InvalidRequest, format!("{} is no topic of this bus", found.letter.topic)));
        }
        self.inner.producer.aside(&found.letter.topic, found.key.as_deref(), &found.payload).await?;
        Ok(found.letter)
    }
}

/// Reads the dead letter topic without a group.
struct Reader {
    consumer: BaseConsumer<Quiet>,
    topic: String,
    timeout: Duration,
}

impl Reader {
    fn new(settings: &KafkaSettings, topic: String) -> Result<Self> {
        let mut config = client::config(settings);
        config
            // Never joined: librdkafka wants a name to assign partitions by hand.
            .set("group.id", format!("{}im-dead-letters", settings.prefix))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "50");
        let consumer =
            config.create_with_context(Quiet).map_err(|error| Error::new(Code::InvalidField, "kafka: wrong settings").with_source(error))?;
        Ok(Reader { consumer, topic, timeout: settings.request_timeout })
    }

    fn ends(&self) -> Result<(i64, i64)> {
        self.consumer.fetch_watermarks(&self.topic, 0, self.timeout).map_err(unavailable("kafka does not tell the dead letters"))
    }

    /// Those from `first` up to, not including, `end`.
    fn read(&self, first: i64, end: i64) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        if first >= end {
            return Ok(found);
        }
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.topic, 0, Offset::Offset(first)).map_err(Error::internal)?;
        self.consumer.assign(&list).map_err(unavailable("kafka: no assignment"))?;
        let deadline = Instant::now() + self.timeout;
        while Instant::now() < deadline {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let offset = message.offset();
                    if offset < end {
                        found.extend(Found::of(&message));
                    }
                    if offset + 1 >= end {
                        return Ok(found);
                    }
                }
                Some(Err(error)) if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                    return Err(unavailable("kafka does not give the dead letters")(error));
                }
                // Nothing yet, or a lost connection that comes back.
                _ => {}
            }
        }
        Err(Error::new(Code::Unavailable, "kafka did not give the dead letters in time"))
    }
}
