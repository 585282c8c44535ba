use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{ClientMsgId, ConversationId, MessageId, Seq, UserId},
    time::Timestamp,
};

/// An entry of a conversation's log: what somebody sent, or what happened ([`MessageKind::Event`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub conversation: ConversationId,
    /// Its place in the log.
    pub seq: Seq,
    /// Its id.
    pub id: MessageId,
    /// Who sent it, or who did what the event tells.
    pub sender: UserId,
    /// Its id as the sender named it.
    pub client_msg_id: ClientMsgId,
    /// Kind and content.
    pub body: Body,
    /// The entry that this one answers.
    pub reply_to: Option<Seq>,
    /// When it was stored.
    pub created_at: Timestamp,
}

impl Message {
    /// Whether it counts as unread for others than its sender: events do not.
    pub fn counts(&self) -> bool {
        self.body.kind != MessageKind::Event
    }
}

/// Kind and content of a message. The content is opaque from socket to disk: it is checked once at the
/// edge ([`rules::check_body`](crate::rules::check_body)) and shared, not copied, afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// What the content is.
    pub kind: MessageKind,
    /// Text for [`MessageKind::Text`], else one JSON object.
    pub content: ByteString,
}

/// Kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(i32)]
pub enum MessageKind {
    /// Plain text.
    Text = 1,
    /// JSON with `url` and optional `name`, `bytes`, `media_type`, `width`, `height`.
    Image = 2,
    /// JSON with `url`, `name`, and optional `bytes`, `media_type`.
    File = 3,
    /// JSON with `url` and optional `duration_ms`, `bytes`, `media_type`.
    Audio = 4,
    /// JSON with `url` and optional `duration_ms`, `width`, `height`, `bytes`, `media_type`.
    Video = 5,
    /// JSON with `latitude`, `longitude` and optional `name`, `address`.
    Location = 6,
    /// Any JSON object; `type` names it for the application.
    Custom = 7,
    /// JSON of an [`Event`](crate::model::Event). Written by the server only.
    Event = 100,
}

impl MessageKind {
    /// Every kind.
    pub const ALL: [MessageKind; 8] = [
        MessageKind::Text,
        MessageKind::Image,
        MessageKind::File,
        MessageKind::Audio,
        MessageKind::Video,
        MessageKind::Location,
        MessageKind::Custom,
        MessageKind::Event,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            MessageKind::Text => "text",
            MessageKind::Image => "image",
            MessageKind::File => "file",
            MessageKind::Audio => "audio",
            MessageKind::Video => "video",
            MessageKind::Location => "location",
            MessageKind::Custom => "custom",
            MessageKind::Event => "event",
        }
    }

    /// The kind with this number (its form in the store and in protobuf).
    pub fn from_number(number: i32) -> Option<MessageKind> {
        MessageKind::ALL.into_iter().find(|&kind| kind as i32 == number)
    }

    /// The kind with this name.
    pub fn parse(name: &str) -> Option<MessageKind> {
        MessageKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A message to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Where.
    pub conversation: ConversationId,
    /// Id that it will have, if it is new.
    pub id: MessageId,
    /// Who sends it.
    pub sender: UserId,
    /// Its id as the sender names it: with conversation and sender the idempotency key (decision 3).
    pub client_msg_id: ClientMsgId,
    /// Kind and content.
    pub body: Body,
    /// Keyed hash of kind, content and `reply_to`: tells a repeat from a conflict.
    pub payload_hash: PayloadHash,
    /// The entry that it answers; must be visible to the sender.
    pub reply_to: Option<Seq>,
    /// When it was accepted.
    pub created_at: Timestamp,
}

/// HMAC-SHA256 of a draft's payload under a named key (decision 32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadHash {
    /// Which key.
    pub key_id: i32,
    /// The hash.
    pub hash: [u8; 32],
}
