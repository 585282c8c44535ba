//! `gochat.v1.json`: one JSON object per text frame (docs/protocol.md §4).

use std::{borrow::Cow, fmt, str::FromStr};

use gochat_core::{
    ByteString,
    error::{Code, Error, Result},
    ids::{ConversationId, DeviceId, Seq, UserId},
    limits::{PAGE_DEFAULT, PAGE_MAX, SYNC_CONVERSATIONS_MAX},
    model::{Body, MessageKind},
    ports::{HistoryQuery, SendRequest, SyncRequest},
    rules,
    time::Timestamp,
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    frames::{ClientFrame, REQUEST_ID_MAX, ServerFrame, Unreadable},
    wire,
};

/// Reads a request.
pub(super) fn decode(text: &[u8], depth_max: usize) -> std::result::Result<(u64, ClientFrame), Unreadable> {
    if rules::depth(text) > depth_max {
        return Err(Unreadable { id: None, error: Error::new(Code::InvalidJson, format!("a frame is nested at most {depth_max} deep")) });
    }
    let incoming: Incoming<'_> = serde_json::from_slice(text).map_err(|error| {
        let id = serde_json::from_slice::<Numbered>(text).ok().and_then(|numbered| numbered.id).filter(|id| (1..=REQUEST_ID_MAX).contains(id));
        // The parser's words may quote what was sent; the place is enough to find it.
        let cause = format!("not the JSON that is expected here (line {}, column {})", error.line(), error.column());
        Unreadable { id, error: Error::new(Code::InvalidJson, cause) }
    })?;
    let Some(id) = incoming.id.filter(|id| (1..=REQUEST_ID_MAX).contains(id)) else {
        return Err(Unreadable { id: None, error: Error::new(Code::InvalidField, "id is an integer from 1 to 2^53-1") });
    };
    incoming.request().map(|frame| (id, frame)).map_err(|error| Unreadable { id: Some(id), error })
}

/// Writes a frame's payload.
pub(super) fn encode(out: &mut Vec<u8>, frame: &ServerFrame<'_>) {
    let written = match *frame {
        ServerFrame::Message(message) => write(out, &wire::MessageJson::typed(message)),
        ServerFrame::Ack { id, stored } => write(out, &Outgoing::Ack { id, ack: stored.into() }),
        ServerFrame::Ready { id, user, device, server_time, heartbeat_s } => {
            write(out, &Outgoing::Ready { id, user_id: user, device_id: device, server_time, heartbeat_s })
        }
        ServerFrame::Synced { id, answer } => write(out, &Outgoing::Synced { id, answer: answer.into() }),
        ServerFrame::History { id, conversation, page } => write(out, &Outgoing::History { id, conversation_id: conversation, page: page.into() }),
        ServerFrame::List { id, page } => {
            let items = page.items.iter().map(wire::ViewJson::from).collect();
            write(out, &Outgoing::List { id, page: wire::PageJson { items, next_cursor: page.next_cursor.as_deref() } })
        }
        ServerFrame::Ok { id } => write(out, &Outgoing::Ok { id }),
        ServerFrame::Pong { id } => write(out, &Outgoing::Pong { id }),
        ServerFrame::Error { id, code, message, retry_after_ms } => {
            write(out, &Outgoing::Error { id, code: code.as_str(), message, hint: code.hint(), retry_after_ms })
        }
        ServerFrame::Marks { conversation, user, read_seq, delivered_seq } => {
            write(out, &Outgoing::Marks(wire::MarksJson { conversation_id: conversation, user_id: user, read_seq, delivered_seq }))
        }
        ServerFrame::Heads(heads) => write(out, &Outgoing::Heads { heads: Heads(heads) }),
        ServerFrame::Resync => write(out, &Outgoing::Resync),
    };
    if let Err(error) = written {
        // Memory takes everything; so content was stored that is not JSON. The client learns that something is there.
        tracing::error!(%error, "a frame could not be written");
        out.clear();
        out.extend_from_slice(br#"{"type":"resync"}"#);
    }
}

fn write(out: &mut Vec<u8>, frame: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(out, frame)
}

/// Every field that some request has. One flat struct is read in one pass, which a tagged enum is not.
#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(rename = "type", borrow)]
    frame: Cow<'a, str>,
    id: Option<u64>,
    #[serde(borrow)]
    token: Option<Text<'a>>,
    #[serde(borrow)]
    conversation_id: Option<Text<'a>>,
    #[serde(borrow)]
    client_msg_id: Option<Text<'a>>,
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    reply_to: Option<i64>,
    #[serde(borrow)]
    have: Option<Have<'a>>,
    after: Option<i64>,
    before: Option<i64>,
    limit: Option<u64>,
    #[serde(borrow)]
    cursor: Option<Text<'a>>,
    read_seq: Option<i64>,
    delivered_seq: Option<i64>,
}

#[derive(Deserialize)]
struct Numbered {
    id: Option<u64>,
}

impl Incoming<'_> {
    fn request(self) -> Result<ClientFrame> {
        match &*self.frame {
            "auth" => Ok(ClientFrame::Auth { token: required("token", self.token)?.0.into_owned() }),
            "send" => Ok(ClientFrame::Send(SendRequest {
                conversation: id("conversation_id", &self.conversation_id)?,
                client_msg_id: id("client_msg_id", &self.client_msg_id)?,
                reply_to: match seq("reply_to", self.reply_to)? {
                    Some(Seq::ZERO) => return Err(Error::new(Code::InvalidField, "reply_to is a seq, 1 or more")),
                    reply_to => reply_to,
                },
                body: self.body()?,
            })),
            "sync" => {
                let have = required("have", self.have)?.0;
                if have.len() > SYNC_CONVERSATIONS_MAX {
                    return Err(Error::new(Code::InvalidField, format!("have names at most {SYNC_CONVERSATIONS_MAX} conversations")));
                }
                let have = have.into_iter().map(|(conversation, seq)| Ok((conversation.0.parse()?, not_negative("have", seq)?)));
                Ok(ClientFrame::Sync(SyncRequest { have: have.collect::<Result<_>>()?, limit: limit(self.limit)? }))
            }
            "history" => {
                if self.after.is_some() && self.before.is_some() {
                    return Err(Error::new(Code::InvalidField, "history takes after or before, not both"));
                }
                Ok(ClientFrame::History(HistoryQuery {
                    conversation: id("conversation_id", &self.conversation_id)?,
                    after: seq("after", self.after)?,
                    before: seq("before", self.before)?,
                    limit: limit(self.limit)?,
                }))
            }
            "list" => Ok(ClientFrame::List { cursor: self.cursor.map(|cursor| cursor.0.into_owned()), limit: limit(self.limit)? }),
            "mark" => Ok(ClientFrame::Mark {
                conversation: id("conversation_id", &self.conversation_id)?,
                read_seq: seq("read_seq", self.read_seq)?.unwrap_or_default(),
                delivered_seq: seq("delivered_seq", self.delivered_seq)?.unwrap_or_default(),
            }),
            "ping" => Ok(ClientFrame::Ping),
            _ => Err(Code::UnknownFrame.into()),
        }
    }

    fn body(&self) -> Result<Body> {
        let kind = match &self.kind {
            None => MessageKind::Text,
            Some(kind) => MessageKind::parse(&kind.0).ok_or_else(|| Error::new(Code::InvalidField, "kind is not known"))?,
        };
        let content = match (kind, &self.text, self.data) {
            (MessageKind::Text, Some(text), None) => ByteString::from(&*text.0),
            (MessageKind::Text, _, _) => return Err(Error::new(Code::InvalidField, "a text has text and no data")),
            (_, None, Some(data)) => ByteString::from(data.get()),
            _ => return Err(Error::new(Code::InvalidField, "a message of this kind has data and no text")),
        };
        Ok(Body { kind, content })
    }
}

/// A string that is borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Have<'a>(Vec<(Text<'a>, i64)>);

impl<'de: 'a, 'a> Deserialize<'de> for Have<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Have<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of seqs by conversation id")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Have<'de>, A::Error> {
                let mut have = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    have.push(entry);
                }
                Ok(Have(have))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

fn required<T>(name: &'static str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::new(Code::InvalidField, format!("{name} is missing")))
}

fn id<T: FromStr<Err = Error>>(name: &'static str, value: &Option<Text<'_>>) -> Result<T> {
    required(name, value.as_ref())?.0.parse()
}

fn seq(name: &'static str, value: Option<i64>) -> Result<Option<Seq>> {
    value.map(|value| not_negative(name, value)).transpose()
}

fn not_negative(name: &'static str, value: i64) -> Result<Seq> {
    if value < 0 {
        return Err(Error::new(Code::InvalidField, format!("{name} is negative")));
    }
    Ok(Seq(value))
}

fn limit(value: Option<u64>) -> Result<usize> {
    match value {
        None => Ok(PAGE_DEFAULT),
        Some(limit) if (1..=PAGE_MAX as u64).contains(&limit) => Ok(limit as usize),
        Some(_) => Err(Error::new(Code::InvalidField, format!("limit is 1 to {PAGE_MAX}"))),
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Outgoing<'a> {
    Ready {
        id: u64,
        user_id: UserId,
        device_id: DeviceId,
        server_time: Timestamp,
        heartbeat_s: u64,
    },
    Ack {
        id: u64,
        #[serde(flatten)]
        ack: wire::AckJson,
    },
    Synced {
        id: u64,
        #[serde(flatten)]
        answer: wire::SyncedJson<'a>,
    },
    History {
        id: u64,
        conversation_id: ConversationId,
        #[serde(flatten)]
        page: wire::HistoryJson<'a>,
    },
    List {
        id: u64,
        #[serde(flatten)]
        page: wire::PageJson<'a, wire::ViewJson<'a>>,
    },
    Ok {
        id: u64,
    },
    Pong {
        id: u64,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        code: &'static str,
        message: &'a str,
        hint: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    Marks(wire::MarksJson),
    Heads {
        heads: Heads<'a>,
    },
    Resync,
}

struct Heads<'a>(&'a [(ConversationId, Seq)]);

impl Serialize for Heads<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(conversation, seq)| (conversation, seq)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = "01936f6e-8a3c-7cc1-a2f5-9d3b7c1e0a42";

    fn refusal(text: &str) -> (Option<u64>, Code) {
        let unreadable = decode(text.as_bytes(), 32).expect_err(text);
        (unreadable.id, unreadable.error.code)
    }

    #[test]
    fn a_send_is_read_as_it_was_written() {
        let text = format!(
            r#"{{"type":"send","id":7,"conversation_id":"{CHAT}","client_msg_id":"{CHAT}","kind":"custom","data":{{"type":"x", "n":1}},"reply_to":2,"further":[1]}}"#
        );
        let (id, frame) = decode(text.as_bytes(), 32).unwrap();
        let ClientFrame::Send(request) = frame else { panic!("{frame:?}") };
        assert_eq!((id, request.conversation.to_string().as_str()), (7, CHAT));
        assert_eq!((request.body.kind, &*request.body.content, request.reply_to), (MessageKind::Custom, r#"{"type":"x", "n":1}"#, Some(Seq(2))));
        let (_, frame) =
            decode(format!(r#"{{"type":"send","id":1,"conversation_id":"{CHAT}","client_msg_id":"{CHAT}","text":"a\n\u00e9"}}"#).as_bytes(), 32)
                .unwrap();
        let ClientFrame::Send(request) = frame else { panic!("{frame:?}") };
        assert_eq!((request.body.kind, &*request.body.content), (MessageKind::Text, "a\né"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_number_where_there_is_one() {
        assert_eq!(refusal("{"), (None, Code::InvalidJson));
        assert_eq!(refusal("[]"), (None, Code::InvalidJson));
        assert_eq!(refusal(r#"{"type":"ping"}"#), (None, Code::InvalidField));
        assert_eq!(refusal(r#"{"type":"ping","id":0}"#), (None, Code::InvalidField));
        assert_eq!(refusal(r#"{"type":"ping","id":9007199254740992}"#), (None, Code::InvalidField));
        assert_eq!(refusal(r#"{"type":"ping","id":-1}"#), (None, Code::InvalidJson));
        assert_eq!(refusal(r#"{"type":"ping","id":1.5}"#), (None, Code::InvalidJson));
        assert_eq!(refusal(r#"{"type":"ping","id":1}x"#), (None, Code::InvalidJson));
        assert_eq!(refusal(r#"{"type":"dance","id":8}"#), (Some(8), Code::UnknownFrame));
        assert_eq!(refusal(r#"{"type":"auth","id":8}"#), (Some(8), Code::InvalidField));
        assert_eq!(refusal(r#"{"type":"auth","id":8,"token":5}"#), (Some(8), Code::InvalidJson));
        assert_eq!(refusal(r#"{"type":"list","id":8,"limit":0}"#), (Some(8), Code::InvalidField));
        assert_eq!(refusal(r#"{"type":"list","id":8,"limit":201}"#), (Some(8), Code::InvalidField));
        assert_eq!(refusal(r#"{"type":"sync","id":8,"have":{"x":1}}"#), (Some(8), Code::InvalidField));
        assert_eq!(refusal(&format!(r#"{{"type":"sync","id":8,"have":{{"{CHAT}":-1}}}}"#)), (Some(8), Code::InvalidField));
        assert_eq!(
            refusal(&format!(r#"{{"type":"mark","id":8,"conversation_id":"{CHAT}","read_seq":99999999999999999999}}"#)),
            (Some(8), Code::InvalidJson)
        );
        assert_eq!(
            refusal(&format!(r#"{{"type":"history","id":8,"conversation_id":"{CHAT}","after":1,"before":2}}"#)),
            (Some(8), Code::InvalidField)
        );
        assert_eq!(
            refusal(&format!(r#"{{"type":"send","id":8,"conversation_id":"{CHAT}","client_msg_id":"{CHAT}"}}"#)),
            (Some(8), Code::InvalidField)
        );
    }

    #[test]
    fn nesting_is_counted_outside_of_strings() {
        let nested = |depth: usize| format!(r#"{{"type":"ping","id":1,"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(decode(nested(31).as_bytes(), 32).is_ok());
        assert_eq!(refusal(&nested(32)), (None, Code::InvalidJson));
        assert_eq!(refusal(&nested(20_000)), (None, Code::InvalidJson));
        assert!(decode(format!(r#"{{"type":"ping","id":1,"x":"{}\"{}"}}"#, "[".repeat(100), "{".repeat(100)).as_bytes(), 32).is_ok());
    }

    #[test]
    fn frames_look_as_documented() {
        let text = |frame: &ServerFrame<'_>| {
            let mut out = Vec::new();
            encode(&mut out, frame);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(&ServerFrame::Resync), r#"{"type":"resync"}"#);
        assert_eq!(text(&ServerFrame::Pong { id: 7 }), r#"{"type":"pong","id":7}"#);
        let chat: ConversationId = CHAT.parse().unwrap();
        assert_eq!(text(&ServerFrame::Heads(&[(chat, Seq(3))])), format!(r#"{{"type":"heads","heads":{{"{CHAT}":3}}}}"#));
        let error = Error::from(Code::UnknownFrame);
        assert!(text(&ServerFrame::error(None, &error)).starts_with(r#"{"type":"error","code":"UNKNOWN_FRAME","message":""#));
    }
}
