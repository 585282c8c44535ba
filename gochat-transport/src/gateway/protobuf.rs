//! Frames of `gochat.v1.proto`: the same requests and answers as in JSON, checked in the same way.

use bytes::Bytes;
use bytestring::ByteString;
use gochat_core::{
    error::{Code, Error, Result},
    ids::{ConversationId, Seq},
    limits::{PAGE_DEFAULT, PAGE_MAX, SYNC_CONVERSATIONS_MAX},
    model::{Body, ConversationKind, ConversationView, JoinMode, Message, MessageKind, Role},
    ports::{HistoryQuery, SendRequest, SyncRequest},
};
use prost::Message as _;

use super::frames::{ClientFrame, REQUEST_ID_MAX, ServerFrame, Unreadable};
use crate::pb::client as pb;

/// Reads a request.
pub(super) fn decode(payload: &[u8]) -> std::result::Result<(u64, ClientFrame), Unreadable> {
    let frame = pb::ClientFrame::decode(payload)
        .map_err(|error| Unreadable { id: None, error: Error::new(Code::InvalidRequest, "not a ClientFrame").with_source(error) })?;
    if !(1..=REQUEST_ID_MAX).contains(&frame.id) {
        return Err(Unreadable { id: None, error: Error::new(Code::InvalidField, "id is an integer from 1 to 2^53-1") });
    }
    request(frame.request).map(|request| (frame.id, request)).map_err(|error| Unreadable { id: Some(frame.id), error })
}

fn request(request: Option<pb::client_frame::Request>) -> Result<ClientFrame> {
    use pb::client_frame::Request;
    Ok(match request.ok_or(Code::UnknownFrame)? {
        Request::Auth(auth) => ClientFrame::Auth { token: auth.token },
        Request::Send(send) => {
            let kind = match send.kind {
                0 => MessageKind::Text,
                kind => MessageKind::from_number(kind).ok_or_else(|| Error::new(Code::InvalidField, "kind is not known"))?,
            };
            ClientFrame::Send(SendRequest {
                conversation: ConversationId::from_slice(&send.conversation_id)?,
                client_msg_id: gochat_core::ids::ClientMsgId::from_slice(&send.client_msg_id)?,
                body: Body { kind, content: ByteString::from(send.content) },
                reply_to: Some(seq("reply_to", send.reply_to)?).filter(|seq| *seq > Seq::ZERO),
            })
        }
        Request::Sync(sync) => {
            if sync.have.len() > SYNC_CONVERSATIONS_MAX {
                return Err(Error::new(Code::InvalidField, format!("have names at most {SYNC_CONVERSATIONS_MAX} conversations")));
            }
            let have = sync.have.iter().map(|have| Ok((ConversationId::from_slice(&have.conversation_id)?, seq("have", have.seq)?)));
            ClientFrame::Sync(SyncRequest { have: have.collect::<Result<_>>()?, limit: limit(sync.limit)? })
        }
        Request::History(history) => {
            if history.after.is_some() && history.before.is_some() {
                return Err(Error::new(Code::InvalidField, "history takes after or before, not both"));
            }
            ClientFrame::History(HistoryQuery {
                conversation: ConversationId::from_slice(&history.conversation_id)?,
                after: history.after.map(|after| seq("after", after)).transpose()?,
                before: history.before.map(|before| seq("before", before)).transpose()?,
                limit: limit(history.limit)?,
            })
        }
        Request::List(list) => ClientFrame::List { cursor: Some(list.cursor).filter(|cursor| !cursor.is_empty()), limit: limit(list.limit)? },
        Request::Mark(mark) => ClientFrame::Mark {
            conversation: ConversationId::from_slice(&mark.conversation_id)?,
            read_seq: seq("read_seq", mark.read_seq)?,
            delivered_seq: seq("delivered_seq", mark.delivered_seq)?,
        },
        Request::Ping(pb::Ping {}) => ClientFrame::Ping,
    })
}

fn seq(name: &'static str, value: i64) -> Result<Seq> {
    if value < 0 { Err(Error::new(Code::InvalidField, format!("{name} is negative"))) } else { Ok(Seq(value)) }
}

fn limit(value: u32) -> Result<usize> {
    match value as usize {
        0 => Ok(PAGE_DEFAULT),
        limit if limit <= PAGE_MAX => Ok(limit),
        _ => Err(Error::new(Code::InvalidField, format!("limit is 1 to {PAGE_MAX}"))),
    }
}

/// Writes a frame's payload.
pub(super) fn encode(out: &mut Vec<u8>, frame: &ServerFrame<'_>) {
    use pb::server_frame::Frame;
    let (id, frame) = match *frame {
        ServerFrame::Ready { id, user, device, server_time, heartbeat_s } => {
            let heartbeat_s = u32::try_from(heartbeat_s).unwrap_or(u32::MAX);
            (
                id,
                Frame::Ready(pb::Ready {
                    user_id: bytes(user.as_bytes()),
                    device_id: bytes(device.as_bytes()),
                    server_time: server_time.0,
                    heartbeat_s,
                }),
            )
        }
        ServerFrame::Ack { id, stored } => {
            let ack = pb::Ack {
                conversation_id: bytes(stored.conversation.as_bytes()),
                seq: stored.seq.0,
                message_id: bytes(stored.message.as_bytes()),
                created_at: stored.created_at.0,
            };
            (id, Frame::Ack(ack))
        }
        ServerFrame::Synced { id, answer } => {
            let conversations = answer.conversations.iter().map(|synced| pb::SyncedConversation {
                id: bytes(synced.id.as_bytes()),
                head_seq: synced.head_seq.0,
                read_seq: synced.read_seq.0,
                messages: synced.messages.iter().map(message).collect(),
                more: synced.more,
            });
            (id, Frame::Synced(pb::Synced { conversations: conversations.collect() }))
        }
        ServerFrame::History { id, conversation, page } => {
            let messages = page.messages.iter().map(message).collect();
            (id, Frame::History(pb::HistoryPage { conversation_id: bytes(conversation.as_bytes()), messages, more: page.more }))
        }
        ServerFrame::List { id, page } => {
            let items = page.items.iter().map(view).collect();
            (id, Frame::List(pb::ListPage { items, next_cursor: page.next_cursor.clone().unwrap_or_default() }))
        }
        ServerFrame::Ok { id } => (id, Frame::Ok(pb::Ok {})),
        ServerFrame::Pong { id } => (id, Frame::Pong(pb::Pong {})),
        ServerFrame::Error { id, code, message, retry_after_ms } => {
            let error = pb::Error { code: code.as_str().into(), message: message.into(), hint: code.hint().into(), retry_after_ms };
            (id.unwrap_or(0), Frame::Error(error))
        }
        ServerFrame::Message(entry) => (0, Frame::Message(message(entry))),
        ServerFrame::Marks { conversation, user, read_seq, delivered_seq } => {
            let marks = pb::Marks {
                conversation_id: bytes(conversation.as_bytes()),
                user_id: bytes(user.as_bytes()),
                read_seq: read_seq.0,
                delivered_seq: delivered_seq.0,
            };
            (0, Frame::Marks(marks))
        }
        ServerFrame::Heads(heads) => {
            let heads = heads.iter().map(|(conversation, seq)| pb::Position { conversation_id: bytes(conversation.as_bytes()), seq: seq.0 });
            (0, Frame::Heads(pb::Heads { heads: heads.collect() }))
        }
        ServerFrame::Resync => (0, Frame::Resync(pb::Resync {})),
    };
    if let Err(error) = (pb::ServerFrame { id, frame: Some(frame) }).encode(out) {
        // A vector takes everything.
        tracing::error!(%error, "a frame could not be written");
    }
}

fn bytes(id: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(id)
}

fn message(message: &Message) -> pb::Message {
    pb::Message {
        conversation_id: bytes(message.conversation.as_bytes()),
        seq: message.seq.0,
        message_id: bytes(message.id.as_bytes()),
        sender_id: bytes(message.sender.as_bytes()),
        client_msg_id: bytes(message.client_msg_id.as_bytes()),
        kind: message.body.kind as i32,
        content: message.body.content.to_string(),
        reply_to: message.reply_to.unwrap_or_default().0,
        created_at: message.created_at.0,
    }
}

fn view(view: &ConversationView) -> pb::Conversation {
    let (conversation, member) = (&view.conversation, &view.member);
    pb::Conversation {
        id: bytes(conversation.id.as_bytes()),
        kind: match conversation.kind {
            ConversationKind::Single => 1,
            ConversationKind::Group => 2,
        },
        name: conversation.name.clone(),
        description: conversation.description.clone(),
        avatar_url: conversation.avatar_url.clone().unwrap_or_default(),
        owner_id: conversation.owner.map_or_else(Bytes::new, |owner| bytes(owner.as_bytes())),
        join_mode: match conversation.join_mode {
            JoinMode::Invite => 0,
            JoinMode::Request => 1,
            JoinMode::Open => 2,
        },
        max_members: conversation.max_members,
        member_count: conversation.member_count,
        head_seq: conversation.head_seq.0,
        dissolved: conversation.dissolved,
        version: conversation.version,
        created_at: conversation.created_at.0,
        active_at: conversation.active_at.0,
        role: match member.role {
            Role::Member => 0,
            Role::Admin => 1,
            Role::Owner => 2,
        },
        join_seq: member.join_seq.0,
        left: !member.is_current(),
        muted: member.muted,
        silenced_until: member.silenced_until.map(|until| until.0),
        read_seq: member.read_seq.0,
        delivered_seq: member.delivered_seq.0,
        peer_id: view.peer.map_or_else(Bytes::new, |peer| bytes(peer.as_bytes())),
        peer_read_seq: view.peer_read_seq.0,
        peer_delivered_seq: view.peer_delivered_seq.0,
        unread: view.unread,
        last_message: view.last_message.as_ref().map(message),
    }
}

#[cfg(test)]
mod tests {
    use pb::client_frame::Request;

    use super::*;

    fn read(id: u64, request: Request) -> std::result::Result<(u64, ClientFrame), (Option<u64>, Code)> {
        decode(&pb::ClientFrame { id, request: Some(request) }.encode_to_vec()).map_err(|unreadable| (unreadable.id, unreadable.error.code))
    }

    #[test]
    fn a_send_is_read_as_it_was_written() {
        let id = Bytes::copy_from_slice(&[7; 16]);
        let send = pb::Send { conversation_id: id.clone(), client_msg_id: id, kind: 0, content: "a\n".into(), reply_to: 0 };
        let Ok((9, ClientFrame::Send(request))) = read(9, Request::Send(send.clone())) else { panic!("not a send") };
        assert_eq!((request.body.kind, &*request.body.content, request.reply_to), (MessageKind::Text, "a\n", None));
        let wrong = |change: fn(&mut pb::Send)| {
            let mut send = send.clone();
            change(&mut send);
            read(9, Request::Send(send)).unwrap_err()
        };
        assert_eq!(wrong(|send| send.kind = 99), (Some(9), Code::InvalidField));
        assert_eq!(wrong(|send| send.reply_to = -1), (Some(9), Code::InvalidField));
        assert_eq!(wrong(|send| send.conversation_id = Bytes::from_static(b"short")).0, Some(9));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert_eq!(read(0, Request::Ping(pb::Ping {})).unwrap_err(), (None, Code::InvalidField));
        assert_eq!(read(1 << 53, Request::Ping(pb::Ping {})).unwrap_err(), (None, Code::InvalidField));
        assert_eq!(read(1, Request::List(pb::List { cursor: String::new(), limit: 201 })).unwrap_err(), (Some(1), Code::InvalidField));
        assert_eq!(decode(b"\xff\xff").unwrap_err().error.code, Code::InvalidRequest);
        let nothing = pb::ClientFrame { id: 3, request: None }.encode_to_vec();
        let unreadable = decode(&nothing).unwrap_err();
        assert_eq!((unreadable.id, unreadable.error.code), (Some(3), Code::UnknownFrame));
    }
}
