//! The JSON of docs/protocol.md §2: what a client sees of the domain, over HTTP and WebSocket alike.
//!
//! Every form borrows from the domain (`From<&Domain>`), so that writing one out costs no copy; the content of a message goes
//! out as it was stored, without being parsed again. What is not named here cannot leave the server.

use gochat_core::{
    ids::{ClientMsgId, ConversationId, DeviceId, MessageId, Seq, UserId},
    model::{
        Caller, Conversation, ConversationKind, ConversationView, Device, JoinMode, JoinRequest, LoginAttempt, LoginOutcome, Member, Message,
        MessageKind, PushLogEntry, PushOutcome, Role, User,
    },
    ports::{HistoryPage, Session, Stored, SyncAnswer, SyncedConversation},
    time::Timestamp,
};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::value::RawValue;

/// A user as everybody sees it.
#[derive(Clone, Debug, Serialize)]
pub struct UserJson<'a> {
    id: UserId,
    username: &'a str,
    display_name: &'a str,
    avatar_url: Option<&'a str>,
    created_at: Timestamp,
}

impl<'a> From<&'a User> for UserJson<'a> {
    fn from(user: &'a User) -> Self {
        UserJson {
            id: user.id,
            username: &user.username,
            display_name: &user.display_name,
            avatar_url: user.avatar_url.as_deref(),
            created_at: user.created_at,
        }
    }
}

/// A sign-in as its device gets it: the one answer that holds secrets.
#[derive(Clone, Serialize)]
pub struct SessionJson<'a> {
    access_token: &'a str,
    expires_in: u64,
    refresh_token: &'a str,
    user: UserJson<'a>,
    device_id: DeviceId,
}

impl<'a> From<&'a Session> for SessionJson<'a> {
    fn from(session: &'a Session) -> Self {
        SessionJson {
            access_token: &session.access_token,
            expires_in: session.expires_in,
            refresh_token: &session.refresh_token,
            user: UserJson::from(&session.user),
            device_id: session.device_id,
        }
    }
}

/// A device of the caller's.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceJson<'a> {
    id: DeviceId,
    name: &'a str,
    signed_in: bool,
    current: bool,
    last_seen_at: Timestamp,
    created_at: Timestamp,
}

impl<'a> DeviceJson<'a> {
    /// The device as `caller` sees it.
    pub fn new(device: &'a Device, caller: &Caller) -> Self {
        DeviceJson {
            id: device.id,
            name: &device.name,
            signed_in: device.signed_in,
            current: device.id == caller.device,
            last_seen_at: device.last_seen_at,
            created_at: device.created_at,
        }
    }
}

/// A line of the caller's login log.
#[derive(Clone, Debug, Serialize)]
pub struct LoginJson<'a> {
    outcome: LoginOutcome,
    username: &'a str,
    device: Option<DeviceId>,
    address: &'a str,
    at: Timestamp,
}

impl<'a> From<&'a LoginAttempt> for LoginJson<'a> {
    fn from(attempt: &'a LoginAttempt) -> Self {
        LoginJson { outcome: attempt.outcome, username: &attempt.username, device: attempt.device, address: &attempt.address, at: attempt.at }
    }
}

/// An entry of a log. With [`typed`](Self::typed) it is a frame: `{"type":"message", …}`.
#[derive(Clone, Copy, Debug)]
pub struct MessageJson<'a> {
    message: &'a Message,
    frame: bool,
}

impl<'a> From<&'a Message> for MessageJson<'a> {
    fn from(message: &'a Message) -> Self {
        MessageJson { message, frame: false }
    }
}

impl<'a> MessageJson<'a> {
    /// The message as the frame that tells of it.
    pub fn typed(message: &'a Message) -> Self {
        MessageJson { message, frame: true }
    }
}

impl Serialize for MessageJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let MessageJson { message, frame } = self;
        let mut json = serializer.serialize_struct("Message", 9)?;
        if *frame {
            json.serialize_field("type", "message")?;
        }
        json.serialize_field("conversation_id", &message.conversation)?;
        json.serialize_field("seq", &message.seq)?;
        json.serialize_field("message_id", &message.id)?;
        json.serialize_field("sender_id", &message.sender)?;
        json.serialize_field("client_msg_id", &message.client_msg_id)?;
        json.serialize_field("kind", message.body.kind.as_str())?;
        let content: &str = &message.body.content;
        match message.body.kind {
            MessageKind::Text => json.serialize_field("text", content)?,
            // A borrowed `RawValue` looks once that the content is JSON, and writes it as it stands.
            _ => json.serialize_field("data", &serde_json::from_str::<&RawValue>(content).map_err(serde::ser::Error::custom)?)?,
        }
        if let Some(reply_to) = message.reply_to {
            json.serialize_field("reply_to", &reply_to)?;
        }
        json.serialize_field("created_at", &message.created_at)?;
        json.end()
    }
}

/// Several messages.
#[derive(Clone, Copy, Debug)]
pub struct MessagesJson<'a>(pub &'a [Message]);

impl Serialize for MessagesJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(MessageJson::from))
    }
}

/// The ack of a message.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AckJson {
    conversation_id: ConversationId,
    seq: Seq,
    message_id: MessageId,
    created_at: Timestamp,
}

impl From<&Stored> for AckJson {
    fn from(stored: &Stored) -> Self {
        AckJson { conversation_id: stored.conversation, seq: stored.seq, message_id: stored.message, created_at: stored.created_at }
    }
}

/// A page of history.
#[derive(Clone, Debug, Serialize)]
pub struct HistoryJson<'a> {
    messages: MessagesJson<'a>,
    more: bool,
}

impl<'a> From<&'a HistoryPage> for HistoryJson<'a> {
    fn from(page: &'a HistoryPage) -> Self {
        HistoryJson { messages: MessagesJson(&page.messages), more: page.more }
    }
}

/// What a device lacked.
#[derive(Clone, Debug, Serialize)]
pub struct SyncedJson<'a> {
    conversations: Vec<SyncedConversationJson<'a>>,
}

impl<'a> From<&'a SyncAnswer> for SyncedJson<'a> {
    fn from(answer: &'a SyncAnswer) -> Self {
        SyncedJson { conversations: answer.conversations.iter().map(SyncedConversationJson::from).collect() }
    }
}

/// One conversation's part of it.
#[derive(Clone, Debug, Serialize)]
pub struct SyncedConversationJson<'a> {
    id: ConversationId,
    head_seq: Seq,
    read_seq: Seq,
    messages: MessagesJson<'a>,
    more: bool,
}

impl<'a> From<&'a SyncedConversation> for SyncedConversationJson<'a> {
    fn from(synced: &'a SyncedConversation) -> Self {
        SyncedConversationJson {
            id: synced.id,
            head_seq: synced.head_seq,
            read_seq: synced.read_seq,
            messages: MessagesJson(&synced.messages),
            more: synced.more,
        }
    }
}

/// A conversation, whoever looks.
#[derive(Clone, Debug, Serialize)]
pub struct ConversationJson<'a> {
    id: ConversationId,
    kind: ConversationKind,
    name: &'a str,
    description: &'a str,
    avatar_url: Option<&'a str>,
    owner_id: Option<UserId>,
    join_mode: JoinMode,
    max_members: i32,
    member_count: i32,
    head_seq: Seq,
    dissolved: bool,
    version: i64,
    created_at: Timestamp,
    active_at: Timestamp,
}

impl<'a> From<&'a Conversation> for ConversationJson<'a> {
    fn from(conversation: &'a Conversation) -> Self {
        ConversationJson {
            id: conversation.id,
            kind: conversation.kind,
            name: &conversation.name,
            description: &conversation.description,
            avatar_url: conversation.avatar_url.as_deref(),
            owner_id: conversation.owner,
            join_mode: conversation.join_mode,
            max_members: conversation.max_members,
            member_count: conversation.member_count,
            head_seq: conversation.head_seq,
            dissolved: conversation.dissolved,
            version: conversation.version,
            created_at: conversation.created_at,
            active_at: conversation.active_at,
        }
    }
}

/// A conversation as the caller sees it.
#[derive(Clone, Debug, Serialize)]
pub struct ViewJson<'a> {
    #[serde(flatten)]
    conversation: ConversationJson<'a>,
    role: Role,
    join_seq: Seq,
    left: bool,
    muted: bool,
    silenced_until: Option<Timestamp>,
    read_seq: Seq,
    delivered_seq: Seq,
    peer_id: Option<UserId>,
    peer_read_seq: Seq,
    peer_delivered_seq: Seq,
    unread: i64,
    last_message: Option<MessageJson<'a>>,
}

impl<'a> From<&'a ConversationView> for ViewJson<'a> {
    fn from(view: &'a ConversationView) -> Self {
        let member = &view.member;
        ViewJson {
            conversation: ConversationJson::from(&view.conversation),
            role: member.role,
            join_seq: member.join_seq,
            left: !member.is_current(),
            muted: member.muted,
            silenced_until: member.silenced_until,
            read_seq: member.read_seq,
            delivered_seq: member.delivered_seq,
            peer_id: view.peer,
            peer_read_seq: view.peer_read_seq,
            peer_delivered_seq: view.peer_delivered_seq,
            unread: view.unread,
            last_message: view.last_message.as_ref().map(MessageJson::from),
        }
    }
}

/// A member as the others see it: what is the member's own choice (muted, hidden) stays out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemberJson {
    user_id: UserId,
    role: Role,
    join_seq: Seq,
    silenced_until: Option<Timestamp>,
    read_seq: Seq,
    delivered_seq: Seq,
}

impl From<&Member> for MemberJson {
    fn from(member: &Member) -> Self {
        MemberJson {
            user_id: member.user,
            role: member.role,
            join_seq: member.join_seq,
            silenced_until: member.silenced_until,
            read_seq: member.read_seq,
            delivered_seq: member.delivered_seq,
        }
    }
}

/// An open request to join.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct JoinRequestJson {
    conversation_id: ConversationId,
    user_id: UserId,
    created_at: Timestamp,
}

impl From<&JoinRequest> for JoinRequestJson {
    fn from(request: &JoinRequest) -> Self {
        JoinRequestJson { conversation_id: request.conversation_id, user_id: request.user_id, created_at: request.created_at }
    }
}

/// A line of the caller's push log.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PushLogJson {
    device_id: DeviceId,
    conversation_id: ConversationId,
    seq: Seq,
    outcome: Option<PushOutcome>,
    attempts: i32,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
}

impl From<&PushLogEntry> for PushLogJson {
    fn from(entry: &PushLogEntry) -> Self {
        PushLogJson {
            device_id: entry.device_id,
            conversation_id: entry.conversation_id,
            seq: entry.seq,
            outcome: entry.outcome,
            attempts: entry.attempts,
            created_at: entry.created_at,
            finished_at: entry.finished_at,
        }
    }
}

/// How far a member has got: the fields of the `marks` frame.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MarksJson {
    /// Where.
    pub conversation_id: ConversationId,
    /// Whose.
    pub user_id: UserId,
    /// Read up to here.
    pub read_seq: Seq,
    /// Delivered up to here.
    pub delivered_seq: Seq,
}

/// Items without further pages.
#[derive(Clone, Debug, Serialize)]
pub struct ItemsJson<T> {
    /// The items.
    pub items: Vec<T>,
}

/// A page of items: an HTTP list, and the fields of the `list` frame.
#[derive(Clone, Debug, Serialize)]
pub struct PageJson<'a, T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins.
    pub next_cursor: Option<&'a str>,
}

/// What a client sends as a message: the fields of a `send` frame and of `POST …/messages`.
#[derive(Debug, serde::Deserialize)]
pub struct MessageInput<'a> {
    /// Its id as the sender names it.
    pub client_msg_id: ClientMsgId,
    /// What it is; text if absent.
    #[serde(default)]
    pub kind: Option<MessageKind>,
    /// The text of a text message.
    #[serde(default, borrow)]
    pub text: Option<std::borrow::Cow<'a, str>>,
    /// The content of any other message: one JSON object, kept as it stands.
    #[serde(default, borrow)]
    pub data: Option<&'a RawValue>,
    /// The entry that it answers.
    #[serde(default)]
    pub reply_to: Option<Seq>,
}

impl MessageInput<'_> {
    /// The body that is meant, checked: exactly one of `text` (for kind text) and `data` (for every other kind).
    pub fn body(&self) -> gochat_core::Result<gochat_core::model::Body> {
        use gochat_core::{Code, Error};
        let kind = self.kind.unwrap_or(MessageKind::Text);
        let content = match (kind, &self.text, self.data) {
            (MessageKind::Text, Some(text), None) => text.as_ref(),
            (MessageKind::Text, _, _) => return Err(Error::new(Code::InvalidField, "a message of kind text has text and no data")),
            (_, None, Some(data)) => data.get(),
            _ => return Err(Error::new(Code::InvalidField, "a message of this kind has data and no text")),
        };
        let body = gochat_core::model::Body { kind, content: content.into() };
        gochat_core::rules::check_body(&body)?;
        Ok(body)
    }

    /// The entry that is answered, which has a place in the log.
    pub fn reply_to(&self) -> gochat_core::Result<Option<Seq>> {
        match self.reply_to {
            Some(Seq(seq)) if seq < 1 => Err(gochat_core::Error::new(gochat_core::Code::InvalidField, "reply_to is a seq, 1 or more")),
            reply_to => Ok(reply_to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gochat_core::model::Body;
    use serde_json::{Value, json};

    fn message(kind: MessageKind, content: &str, reply_to: Option<Seq>) -> Message {
        Message {
            conversation: ConversationId::from_bytes([1; 16]),
            seq: Seq(7),
            id: MessageId::from_bytes([2; 16]),
            sender: UserId::from_bytes([3; 16]),
            client_msg_id: ClientMsgId::from_bytes([4; 16]),
            body: Body { kind, content: content.into() },
            reply_to,
            created_at: Timestamp(1_800_000_000_000),
        }
    }

    #[test]
    fn a_text_has_text_and_no_data() {
        let json: Value = serde_json::to_value(MessageJson::from(&message(MessageKind::Text, "a \"quoted\" word", None))).unwrap();
        let expected = json!({
            "conversation_id": "01010101-0101-0101-0101-010101010101", "seq": 7, "message_id": "02020202-0202-0202-0202-020202020202",
            "sender_id": "03030303-0303-0303-0303-030303030303", "client_msg_id": "04040404-0404-0404-0404-040404040404",
            "kind": "text", "text": "a \"quoted\" word", "created_at": 1_800_000_000_000_i64,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn content_that_is_not_text_goes_out_as_it_was_stored() {
        let stored = r#"{ "latitude":1.50,"longitude": 2,"name":"\u00e4" }"#;
        let json = serde_json::to_string(&MessageJson::typed(&message(MessageKind::Location, stored, Some(Seq(3))))).unwrap();
        assert!(json.starts_with(r#"{"type":"message","conversation_id":"#), "{json}");
        assert!(json.contains(&format!(r#""kind":"location","data":{stored},"reply_to":3,"#)), "{json}");
    }

    #[test]
    fn an_input_has_exactly_the_content_that_its_kind_wants() {
        let body = |rest: &str| {
            let json = format!(r#"{{"client_msg_id":"04040404-0404-0404-0404-040404040404"{rest}}}"#);
            serde_json::from_str::<MessageInput<'_>>(&json).map_err(|_| ()).and_then(|input| input.body().map_err(|_| ()))
        };
        assert_eq!(body(r#","text":"a\nb""#).unwrap().content, "a\nb");
        assert_eq!(body(r#","kind":"custom","data":{"a":[1]}"#).unwrap().content, r#"{"a":[1]}"#);
        for refused in [
            "",
            r#","data":{}"#,
            r#","text":"a","data":{}"#,
            r#","kind":"custom","text":"a""#,
            r#","kind":"custom","data":[]"#,
            r#","kind":"custom""#,
            r#","kind":"event","data":{}"#,
            r#","kind":"nothing","data":{}"#,
            r#","text":" ""#,
        ] {
            assert!(body(refused).is_err(), "{refused}");
        }
    }
}
