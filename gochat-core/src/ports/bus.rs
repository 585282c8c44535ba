use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::{
    error::{Code, Error, Result},
    ids::{ConversationId, DeviceId, GatewayId, MessageId, Seq, UserId},
    model::{Draft, Message},
    ports::{Origin, Port},
    time::Timestamp,
};

/// Carries records between roles: at least once, in order per key, with an explicit commit.
///
/// # Contract
/// - Records of one topic with the same key arrive in the order in which they were accepted.
/// - `offer` never waits: it accepts all of the records or none (`OVERLOADED`, nothing accepted).
/// - `publish` waits for room. Its [`Receipt`] resolves once no crash can lose the records any more: at once on a bus that keeps
///   them on disk, and with the last commit on a bus that only holds them in memory.
/// - What a subscription handed out and did not commit is handed out again, to it after
///   [`release`](Subscription::release), or to the next subscriber once it is dropped. Where subscribers share a topic across
///   processes, a partition may move to another one while its batch is worked on: it is handed out again there, and a late
///   commit is refused (`INVALID_REQUEST`) and changes nothing.
/// - A subscription to [`Topic::Downstream`] hears what is published after `subscribe` returned; what an earlier run of the gateway
///   was to be told may be left out, since it was meant for connections that are gone.
/// - Every queue is bounded.
#[async_trait]
pub trait Bus: Port {
    /// Accepts records now or refuses them: the way in for what a client sends.
    fn offer(&self, topic: &Topic, records: Vec<Record>) -> Result<()>;
    /// Hands records over, waiting for room: for what must not be refused any more.
    async fn publish(&self, topic: &Topic, records: Vec<Record>) -> Result<Receipt>;
    /// Takes part in consuming a topic; the subscribers of one group share its partitions.
    async fn subscribe(&self, topic: &Topic, group: &str) -> Result<Arc<dyn Subscription>>;
}

/// Tells when published records are safe. Whoever marks their cause as done waits for it first.
#[derive(Debug)]
#[must_use = "the records may still be lost in a crash"]
pub struct Receipt(Option<oneshot::Receiver<()>>);

/// The bus's end of a [`Receipt`]. Dropped unfulfilled, it tells the receipt's holder that the records may be lost.
#[derive(Debug)]
pub struct Pledge(oneshot::Sender<()>);

impl Receipt {
    /// For records that are safe already.
    pub fn kept() -> Self {
        Receipt(None)
    }

    /// For records that will be.
    pub fn pledged() -> (Pledge, Self) {
        let (pledge, receipt) = oneshot::channel();
        (Pledge(pledge), Receipt(Some(receipt)))
    }

    /// For records that were not made: whoever marks their cause as done must not.
    pub fn refused() -> Self {
        Receipt::pledged().1
    }

    /// Whether the records are safe already.
    pub fn is_kept(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it is known already that they never will be.
    pub fn is_refused(&mut self) -> bool {
        match self.0.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Ok(())) => {
                self.0 = None;
                false
            }
            Some(Err(error)) => error == oneshot::error::TryRecvError::Closed,
            None => false,
        }
    }

    /// Waits until the records are safe. Cancel-safe.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the bus ended before they were.
    pub async fn safe(&mut self) -> Result<()> {
        let Some(receipt) = &mut self.0 else { return Ok(()) };
        let outcome = receipt.await;
        self.0 = None;
        outcome.map_err(|_| Error::new(Code::Unavailable, "the bus ended before the records were safe"))
    }
}

impl Pledge {
    /// The records are safe.
    pub fn fulfil(self) {
        // A holder that did not wait does not need to know.
        let _ = self.0.send(());
    }
}

/// A share of a topic.
///
/// Hands out at most one batch of each partition at a time: the next one follows its commit, so batches of
/// different partitions can be worked on side by side without breaking the order of any key.
#[async_trait]
pub trait Subscription: Port {
    /// Up to `max` records of one partition: what is there now, at least one. Waits while there is none.
    /// Cancel-safe. `UNAVAILABLE`: the bus is closed.
    async fn next(&self, max: usize) -> Result<Batch>;
    /// The batch is done for good.
    async fn commit(&self, position: Position) -> Result<()>;
    /// The batch is to be handed out again.
    async fn release(&self, position: Position) -> Result<()>;
}

/// Records of one partition.
#[derive(Debug)]
pub struct Batch {
    /// What to commit or release.
    pub position: Position,
    /// The records, in order.
    pub records: Vec<Record>,
}

/// A batch's place: opaque to all but the bus that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Partition of the topic.
    pub partition: u32,
    /// Offset behind the batch's last record.
    pub next: u64,
}

/// The seed's topics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// What clients send, keyed by conversation; consumed by logic.
    Upstream,
    /// What a gateway's connections are told; consumed by that gateway.
    Downstream(GatewayId),
    /// What is done later: fanout to large groups, offline push; consumed by task.
    Task,
    /// What nobody could process, with the reason.
    DeadLetter,
}

impl Topic {
    /// The topic's name.
    pub fn name(&self) -> String {
        match self {
            Topic::Upstream => "im-upstream-topic".into(),
            Topic::Downstream(gateway) => format!("im-downstream-topic-{gateway}"),
            Topic::Task => "im-task-topic".into(),
            Topic::DeadLetter => "im-dead-letter-topic".into(),
        }
    }
}

/// An item on the bus. Shared, never changed; every kind has a protobuf form in the transport crate.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Of [`Topic::Upstream`].
    Upstream(Arc<Upstream>),
    /// Of [`Topic::Downstream`].
    Downstream(Arc<Downstream>),
    /// Of [`Topic::Task`].
    Task(Arc<Task>),
}

impl Record {
    /// The key that orders it, where it has one: the conversation (decision 4).
    pub fn key(&self) -> Option<ConversationId> {
        match self {
            Record::Upstream(upstream) => Some(upstream.draft.conversation),
            Record::Downstream(_) => None,
            Record::Task(task) => Some(task.conversation()),
        }
    }
}

/// A message that a client sent, admitted by its gateway and not yet decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// What to store. Its payload hash is set by logic.
    pub draft: Draft,
    /// Where the answer goes.
    pub origin: Origin,
}

/// What one gateway shall tell its connections: one record for a batch of messages, whatever their recipients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Downstream {
    /// Answers to senders.
    pub acks: Vec<Ack>,
    /// What recipients are told.
    pub deliveries: Vec<Delivery>,
    /// What concerns sessions.
    pub signals: Vec<Signal>,
}

/// The answer to one send.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack {
    /// Connection of the sender, or a waiting HTTP request.
    pub connection: u64,
    /// The sender's own number of the request.
    pub request: u64,
    /// Stored, or refused for good.
    pub outcome: std::result::Result<Stored, Refusal>,
}

/// A message is stored: its place and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where.
    pub conversation: ConversationId,
    /// Its place.
    pub seq: Seq,
    /// Its id.
    pub message: MessageId,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// An [`Error`] as it crosses the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable code.
    pub code: Code,
    /// Cause in words.
    pub message: String,
    /// How long to wait, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Refusal { code: error.code, message: error.message.to_string(), retry_after_ms: error.retry_after.map(|wait| wait.as_millis() as u64) }
    }
}

/// The same payloads for a list of connections. Payloads of one conversation that wait together leave in one
/// write per connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Who is told.
    pub targets: Vec<Target>,
    /// What, in order.
    pub payloads: Vec<Payload>,
}

/// A connection, if it still has this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The connection within the gateway.
    pub connection: u64,
    /// Epoch of the connection.
    pub epoch: i64,
}

/// What a connection is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// A new entry of a log.
    Message(Arc<Message>),
    /// A member's marks rose.
    Marks {
        /// Where.
        conversation: ConversationId,
        /// Whose.
        user: UserId,
        /// Read up to here.
        read_seq: Seq,
        /// Delivered up to here.
        delivered_seq: Seq,
    },
    /// Heads of conversations that changed lately (decision 7): who has less pulls.
    Heads(Vec<(ConversationId, Seq)>),
}

/// What concerns sessions rather than conversations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A session ended: connections and tokens of the device with a lower session epoch are out.
    Revoked {
        /// Whose.
        user: UserId,
        /// Which device.
        device: DeviceId,
        /// The epoch that is valid now.
        session_epoch: i64,
    },
}

/// What the task role does.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Tell the members of a large group of these entries (in order, of one conversation).
    Fanout {
        /// The entries.
        messages: Vec<Arc<Message>>,
        /// Version of the member list that they share.
        members_seq: Seq,
        /// The sending devices, which get the ack instead: aligned with `messages`.
        from: Vec<Option<DeviceId>>,
    },
    /// Members were not connected: push, if it is still wanted.
    Offline {
        /// Where.
        conversation: ConversationId,
        /// Which entry.
        seq: Seq,
        /// Its id.
        message: MessageId,
        /// Who sent it.
        sender: UserId,
        /// Who was not connected.
        users: Vec<UserId>,
    },
}

impl Task {
    /// The conversation that it belongs to.
    pub fn conversation(&self) -> ConversationId {
        match self {
            Task::Fanout { messages, .. } => messages.first().map_or(ConversationId::from_bytes([0; 16]), |message| message.conversation),
            Task::Offline { conversation, .. } => *conversation,
        }
    }
}
