//! The frames of `gochat.v1.proto` as the JSON that the flow tests are written in, so that every flow runs on both.

use gochat_core::model::MessageKind;
use gochat_transport::pb::client as pb;
use prost::Message as _;
use serde_json::{Map, Value, json};
use uuid::Uuid;

tokio::task_local! {
    /// Whether sockets that are opened in this task speak protobuf.
    pub static PROTOBUF: bool;
}

pub fn protobuf() -> bool {
    PROTOBUF.try_with(|protobuf| *protobuf).unwrap_or(false)
}

/// A request as a `ClientFrame`; `None` for what that cannot say.
pub fn encode(request: &Value) -> Option<Vec<u8>> {
    use pb::client_frame::Request;
    let id = |name: &str| Some(Uuid::parse_str(request[name].as_str()?).ok()?.into_bytes().to_vec().into());
    let seq = |name: &str| request[name].as_i64();
    let limit = match &request["limit"] {
        Value::Null => 0,
        limit => u32::try_from(limit.as_u64()?).ok().filter(|limit| *limit > 0)?,
    };
    let frame = match request["type"].as_str()? {
        "auth" => Request::Auth(pb::Auth { token: request["token"].as_str()?.into() }),
        "send" => {
            let kind = MessageKind::parse(request["kind"].as_str().unwrap_or("text"))?;
            // What fits no kind is sent all the same: the server must refuse it.
            let content = match (&request["text"], &request["data"]) {
                (Value::String(text), Value::Null) => text.clone(),
                (Value::Null, data @ Value::Object(_)) => data.to_string(),
                _ => return None,
            };
            let reply_to = if request["reply_to"].is_null() { 0 } else { seq("reply_to").filter(|seq| *seq != 0)? };
            Request::Send(pb::Send {
                conversation_id: id("conversation_id")?,
                client_msg_id: id("client_msg_id")?,
                kind: kind as i32,
                content,
                reply_to,
            })
        }
        "sync" => {
            let have = request["have"].as_object()?.iter();
            let have = have
                .map(|(id, seq)| Some(pb::Position { conversation_id: Uuid::parse_str(id).ok()?.into_bytes().to_vec().into(), seq: seq.as_i64()? }));
            Request::Sync(pb::Sync { have: have.collect::<Option<_>>()?, limit })
        }
        "history" => Request::History(pb::History { conversation_id: id("conversation_id")?, after: seq("after"), before: seq("before"), limit }),
        "list" => Request::List(pb::List { cursor: request["cursor"].as_str().unwrap_or("").into(), limit }),
        "mark" => {
            let mark = |name| seq(name).unwrap_or(0);
            Request::Mark(pb::Mark { conversation_id: id("conversation_id")?, read_seq: mark("read_seq"), delivered_seq: mark("delivered_seq") })
        }
        "ping" => Request::Ping(pb::Ping {}),
        _ => return None,
    };
    Some(pb::ClientFrame { id: request["id"].as_u64()?, request: Some(frame) }.encode_to_vec())
}

/// A `ServerFrame` as its JSON form.
pub fn decode(payload: &[u8]) -> Value {
    use pb::server_frame::Frame;
    let pb::ServerFrame { id, frame } = pb::ServerFrame::decode(payload).expect("a ServerFrame");
    let (kind, mut value) = match frame.expect("a frame of a known type") {
        Frame::Ready(ready) => (
            "ready",
            json!({"user_id": uuid(&ready.user_id), "device_id": uuid(&ready.device_id), "server_time": ready.server_time, "heartbeat_s": ready.heartbeat_s}),
        ),
        Frame::Ack(ack) => (
            "ack",
            json!({"conversation_id": uuid(&ack.conversation_id), "seq": ack.seq, "message_id": uuid(&ack.message_id), "created_at": ack.created_at}),
        ),
        Frame::Error(error) => {
            ("error", json!({"code": error.code, "message": error.message, "hint": error.hint, "retry_after_ms": error.retry_after_ms}))
        }
        Frame::Message(entry) => ("message", message(&entry)),
        Frame::Marks(marks) => (
            "marks",
            json!({"conversation_id": uuid(&marks.conversation_id), "user_id": uuid(&marks.user_id), "read_seq": marks.read_seq, "delivered_seq": marks.delivered_seq}),
        ),
        Frame::Heads(heads) => {
            let heads: Map<String, Value> = heads.heads.iter().map(|head| (uuid(&head.conversation_id), head.seq.into())).collect();
            ("heads", json!({"heads": heads}))
        }
        Frame::Resync(_) => ("resync", json!({})),
        Frame::Synced(synced) => {
            let conversations = synced.conversations.iter().map(|synced| {
                let messages: Vec<Value> = synced.messages.iter().map(message).collect();
                json!({"id": uuid(&synced.id), "head_seq": synced.head_seq, "read_seq": synced.read_seq, "messages": messages, "more": synced.more})
            });
            ("synced", json!({"conversations": conversations.collect::<Vec<_>>()}))
        }
        Frame::History(page) => {
            let messages: Vec<Value> = page.messages.iter().map(message).collect();
            ("history", json!({"conversation_id": uuid(&page.conversation_id), "messages": messages, "more": page.more}))
        }
        Frame::List(page) => {
            let items: Vec<Value> = page.items.iter().map(conversation).collect();
            let next = Some(page.next_cursor).filter(|cursor| !cursor.is_empty());
            ("list", json!({"items": items, "next_cursor": next}))
        }
        Frame::Ok(_) => ("ok", json!({})),
        Frame::Pong(_) => ("pong", json!({})),
    };
    value["type"] = kind.into();
    if id > 0 {
        value["id"] = id.into();
    }
    value
}

fn message(entry: &pb::Message) -> Value {
    let kind = MessageKind::from_number(entry.kind).expect("a known kind");
    let mut value = json!({
        "conversation_id": uuid(&entry.conversation_id),
        "seq": entry.seq,
        "message_id": uuid(&entry.message_id),
        "sender_id": uuid(&entry.sender_id),
        "client_msg_id": uuid(&entry.client_msg_id),
        "kind": kind.as_str(),
        "created_at": entry.created_at,
    });
    match kind {
        MessageKind::Text => value["text"] = entry.content.clone().into(),
        _ => value["data"] = serde_json::from_str(&entry.content).expect("data is JSON"),
    }
    if entry.reply_to > 0 {
        value["reply_to"] = entry.reply_to.into();
    }
    value
}

fn conversation(item: &pb::Conversation) -> Value {
    let optional = |id: &[u8]| (!id.is_empty()).then(|| uuid(id));
    json!({
        "id": uuid(&item.id),
        "kind": (["", "single", "group"][item.kind as usize]),
        "name": item.name,
        "description": item.description,
        "avatar_url": Some(&item.avatar_url).filter(|url| !url.is_empty()),
        "owner_id": optional(&item.owner_id),
        "join_mode": (["invite", "request", "open"][item.join_mode as usize]),
        "max_members": item.max_members,
        "member_count": item.member_count,
        "head_seq": item.head_seq,
        "dissolved": item.dissolved,
        "version": item.version,
        "created_at": item.created_at,
        "active_at": item.active_at,
        "role": (["member", "admin", "owner"][item.role as usize]),
        "join_seq": item.join_seq,
        "left": item.left,
        "muted": item.muted,
        "silenced_until": item.silenced_until,
        "read_seq": item.read_seq,
        "delivered_seq": item.delivered_seq,
        "peer_id": optional(&item.peer_id),
        "peer_read_seq": item.peer_read_seq,
        "peer_delivered_seq": item.peer_delivered_seq,
        "unread": item.unread,
        "last_message": item.last_message.as_ref().map(message),
    })
}

fn uuid(id: &[u8]) -> String {
    Uuid::from_slice(id).expect("16 bytes").to_string()
}
