//! What clients and server say to each other, whatever the encoding.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use fastwebsockets::OpCode;
use gochat_core::{
    error::{Code, Error},
    ids::{ConversationId, DeviceId, Seq, UserId},
    model::{ConversationView, Message},
    ports::{HistoryPage, HistoryQuery, Page, Payload, SendRequest, Stored, SyncAnswer, SyncRequest},
    time::Timestamp,
};

use super::{json, protobuf, websocket::write_frame};

/// The largest number of a request: the largest integer that every JSON reader keeps exactly.
pub(super) const REQUEST_ID_MAX: u64 = (1 << 53) - 1;

/// How a connection's frames are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// `gochat.v1.json`: text frames.
    Json,
    /// `gochat.v1.proto`: binary frames.
    Proto,
}

/// Encodings; the size of tables indexed by `Codec as usize`.
pub(super) const CODECS: usize = 2;

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

thread_local! {
    /// A frame's length stands before it, so its payload is written here first.
    static PAYLOAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Memory of a large answer is given back.
const PAYLOAD_KEPT_BYTES: usize = 64 * 1024;

impl Codec {
    /// The WebSocket subprotocol.
    pub(super) fn subprotocol(self) -> &'static str {
        match self {
            Codec::Json => "gochat.v1.json",
            Codec::Proto => "gochat.v1.proto",
        }
    }

    /// The codec of a subprotocol.
    pub(super) fn of(subprotocol: &str) -> Option<Codec> {
        [Codec::Json, Codec::Proto].into_iter().find(|codec| codec.subprotocol() == subprotocol)
    }

    /// The kind of WebSocket message that it uses.
    pub(super) fn opcode(self) -> OpCode {
        match self {
            Codec::Json => OpCode::Text,
            Codec::Proto => OpCode::Binary,
        }
    }

    /// Reads a request and its number.
    pub(super) fn decode(self, payload: &[u8], depth_max: usize) -> Result<(u64, ClientFrame), Unreadable> {
        match self {
            Codec::Json => json::decode(payload, depth_max),
            Codec::Proto => protobuf::decode(payload),
        }
    }

    /// Appends a whole WebSocket frame.
    pub(super) fn append(self, out: &mut BytesMut, frame: &ServerFrame<'_>) {
        PAYLOAD.with_borrow_mut(|payload| {
            payload.clear();
            match self {
                Codec::Json => json::encode(payload, frame),
                Codec::Proto => protobuf::encode(payload, frame),
            }
            write_frame(out, self.opcode(), payload);
            if payload.capacity() > PAYLOAD_KEPT_BYTES {
                *payload = Vec::new();
            }
        });
    }

    /// A whole WebSocket frame.
    pub(super) fn frame(self, frame: &ServerFrame<'_>) -> Bytes {
        let mut out = BytesMut::new();
        self.append(&mut out, frame);
        out.freeze()
    }
}
