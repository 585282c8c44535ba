//! What clients and server say to each other, whatever the encoding.

use gochat_core::{
    error::{Code, Error},
    ids::{ConversationId, DeviceId, Seq, UserId},
    model::{ConversationView, Message},
    ports::{HistoryPage, HistoryQuery, Page, Payload, SendRequest, Stored, SyncAnswer, SyncRequest},
    time::Timestamp,
};

/// The largest number of a request: the largest integer that every JSON reader keeps exactly.
pub(super) const REQUEST_ID_MAX: u64 = (1 << 53) - 1;

/// A request.
#[derive(Debug, PartialEq)]
pub(super) enum ClientFrame {
    Auth { token: String },
    Send(SendRequest),
    Sync(SyncRequest),
    History(HistoryQuery),
    List { cursor: Option<String>, limit: usize },
    Mark { conversation: ConversationId, read_seq: Seq, delivered_seq: Seq },
    Ping,
}

/// A request that could not be read, with its number, if that could be.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) id: Option<u64>,
    pub(super) error: Error,
}

/// An answer, or something to be told.
#[derive(Debug)]
pub(super) enum ServerFrame<'a> {
    Ready { id: u64, user: UserId, device: DeviceId, server_time: Timestamp, heartbeat_s: u64 },
    Ack { id: u64, stored: &'a Stored },
    Synced { id: u64, answer: &'a SyncAnswer },
    History { id: u64, conversation: ConversationId, page: &'a HistoryPage },
    List { id: u64, page: &'a Page<ConversationView> },
    Ok { id: u64 },
    Pong { id: u64 },
    Error { id: Option<u64>, code: Code, message: &'a str, retry_after_ms: Option<u64> },
    Message(&'a Message),
    Marks { conversation: ConversationId, user: UserId, read_seq: Seq, delivered_seq: Seq },
    Heads(&'a [(ConversationId, Seq)]),
    Resync,
}

impl<'a> ServerFrame<'a> {
    pub(super) fn error(id: Option<u64>, error: &'a Error) -> Self {
        ServerFrame::Error { id, code: error.code, message: &error.message, retry_after_ms: error.retry_after.map(|wait| wait.as_millis() as u64) }
    }

    pub(super) fn push(payload: &'a Payload) -> Self {
        match payload {
            Payload::Message(message) => ServerFrame::Message(message),
            Payload::Marks { conversation, user, read_seq, delivered_seq } => {
                ServerFrame::Marks { conversation: *conversation, user: *user, read_seq: *read_seq, delivered_seq: *delivered_seq }
            }
            Payload::Heads(heads) => ServerFrame::Heads(heads),
        }
    }
}
