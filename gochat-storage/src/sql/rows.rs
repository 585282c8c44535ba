//! Rows, and the one place where they become domain types and back.

use bytes::Bytes;
use bytestring::ByteString;
use diesel::{Insertable, Queryable, Selectable};
use gochat_core::{
    error::Error,
    ids::{ClientMsgId, ConversationId, DeviceId, MessageId, PushJobId, Seq, UserId},
    model::{
        Body, Conversation, ConversationKind, Device, Draft, JoinMode, LoginAttempt, LoginOutcome, Member, Message, MessageKind, NewPushJob,
        PushOutcome, Role, User, UserStatus,
    },
    time::Timestamp,
};

use super::{
    fail::Fail,
    schema::{conversations, devices, login_log, members, messages, push_jobs, refresh_tokens, users},
};

/// Bodies as they came in. A later envelope is sealed (decision 32).
pub const ENVELOPE_PLAIN: i32 = 1;

fn corrupt(what: &str) -> Fail {
    Fail::Refused(Error::internal(format!("the database holds an unknown {what}")))
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = users, treat_none_as_default_value = false)]
pub struct UserRow {
    pub id: Vec<u8>,
    pub username: String,
    pub display_name: String,
    pub avatar_url: Option<String>,
    pub status: i32,
    pub external_id: Option<String>,
    pub version: i64,
    pub created_at: i64,
}

impl UserRow {
    pub fn into_user(self) -> Result<User, Fail> {
        Ok(User {
            id: UserId::from_slice(&self.id)?,
            username: self.username,
            display_name: self.display_name,
            avatar_url: self.avatar_url,
            status: user_status(self.status)?,
            external_id: self.external_id,
            version: self.version,
            created_at: Timestamp(self.created_at),
        })
    }
}

pub fn user_status(number: i32) -> Result<UserStatus, Fail> {
    match number {
        0 => Ok(UserStatus::Active),
        1 => Ok(UserStatus::Disabled),
        _ => Err(corrupt("user status")),
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = devices)]
pub struct DeviceRow {
    pub user_id: Vec<u8>,
    pub device_id: Vec<u8>,
    pub name: String,
    pub session_epoch: i64,
    pub connection_epoch: i64,
    pub signed_in: bool,
    pub last_seen_at: i64,
    pub created_at: i64,
}

impl DeviceRow {
    pub fn into_device(self) -> Result<Device, Fail> {
        Ok(Device {
            user: UserId::from_slice(&self.user_id)?,
            id: DeviceId::from_slice(&self.device_id)?,
            name: self.name,
            session_epoch: self.session_epoch,
            connection_epoch: self.connection_epoch,
            signed_in: self.signed_in,
            last_seen_at: Timestamp(self.last_seen_at),
            created_at: Timestamp(self.created_at),
        })
    }
}

/// A refresh token that has not been shown yet.
pub const TOKEN_CURRENT: i32 = 0;
/// A refresh token that was exchanged for its successor.
pub const TOKEN_USED: i32 = 1;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = refresh_tokens, treat_none_as_default_value = false)]
pub struct TokenRow {
    pub token_hash: Vec<u8>,
    pub family_id: Vec<u8>,
    pub user_id: Vec<u8>,
    pub device_id: Vec<u8>,
    pub state: i32,
    pub expires_at: i64,
    pub used_at: Option<i64>,
    pub successor_sealed: Option<Vec<u8>>,
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = login_log, treat_none_as_default_value = false)]
pub struct LoginRow {
    pub user_id: Option<Vec<u8>>,
    pub username: String,
    pub device_id: Option<Vec<u8>>,
    pub outcome: i32,
    pub address: String,
    pub at: i64,
}

impl LoginRow {
    pub fn from_attempt(attempt: &LoginAttempt) -> LoginRow {
        LoginRow {
            user_id: attempt.user.map(|id| id.as_bytes().to_vec()),
            username: attempt.username.clone(),
            device_id: attempt.device.map(|id| id.as_bytes().to_vec()),
            outcome: attempt.outcome as i32,
            address: attempt.address.clone(),
            at: attempt.at.0,
        }
    }

    pub fn into_attempt(self) -> Result<LoginAttempt, Fail> {
        let outcomes = [LoginOutcome::Success, LoginOutcome::UnknownUser, LoginOutcome::WrongPassword, LoginOutcome::Disabled];
        Ok(LoginAttempt {
            user: self.user_id.map(|id| UserId::from_slice(&id)).transpose()?,
            username: self.username,
            device: self.device_id.map(|id| DeviceId::from_slice(&id)).transpose()?,
            outcome: outcomes.into_iter().find(|outcome| *outcome as i32 == self.outcome).ok_or_else(|| corrupt("login outcome"))?,
            address: self.address,
            at: Timestamp(self.at),
        })
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = conversations, treat_none_as_default_value = false)]
pub struct ConversationRow {
    pub id: Vec<u8>,
    pub kind: i32,
    pub pair_key: Option<Vec<u8>>,
    pub name: String,
    pub description: String,
    pub avatar_url: Option<String>,
    pub owner_id: Option<Vec<u8>>,
    pub join_mode: i32,
    pub link_hash: Option<Vec<u8>>,
    pub max_members: i32,
    pub member_count: i32,
    pub head_seq: i64,
    pub dispatched_seq: i64,
    pub members_seq: i64,
    pub dissolved: bool,
    pub version: i64,
    pub created_at: i64,
    pub active_at: i64,
}

impl ConversationRow {
    pub fn into_conversation(self) -> Result<Conversation, Fail> {
        Ok(Conversation {
            id: ConversationId::from_slice(&self.id)?,
            kind: match self.kind {
                1 => ConversationKind::Single,
                2 => ConversationKind::Group,
                _ => return Err(corrupt("conversation kind")),
            },
            name: self.name,
            description: self.description,
            avatar_url: self.avatar_url,
            owner: self.owner_id.map(|id| UserId::from_slice(&id)).transpose()?,
            join_mode: match self.join_mode {
                0 => JoinMode::Invite,
                1 => JoinMode::Request,
                2 => JoinMode::Open,
                _ => return Err(corrupt("join mode")),
            },
            max_members: self.max_members,
            member_count: self.member_count,
            head_seq: Seq(self.head_seq),
            dispatched_seq: Seq(self.dispatched_seq),
            members_seq: Seq(self.members_seq),
            dissolved: self.dissolved,
            version: self.version,
            created_at: Timestamp(self.created_at),
            active_at: Timestamp(self.active_at),
        })
    }
}

pub fn kind_number(kind: ConversationKind) -> i32 {
    match kind {
        ConversationKind::Single => 1,
        ConversationKind::Group => 2,
    }
}

pub fn join_mode_number(mode: JoinMode) -> i32 {
    match mode {
        JoinMode::Invite => 0,
        JoinMode::Request => 1,
        JoinMode::Open => 2,
    }
}

pub fn role_number(role: Role) -> i32 {
    match role {
        Role::Member => 0,
        Role::Admin => 1,
        Role::Owner => 2,
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = members, treat_none_as_default_value = false)]
pub struct MemberRow {
    pub conversation_id: Vec<u8>,
    pub user_id: Vec<u8>,
    pub join_seq: i64,
    pub leave_seq: Option<i64>,
    pub role: i32,
    pub read_seq: i64,
    pub delivered_seq: i64,
    pub muted: bool,
    pub silenced_until: Option<i64>,
    pub hidden_seq: i64,
}

impl MemberRow {
    /// A membership that begins anew. What was read before stays read, and a silence does not end by leaving.
    pub fn resume(conversation: ConversationId, user: UserId, join_seq: Seq, last: Option<&Member>) -> MemberRow {
        let first = MemberRow::begin(conversation, user, Role::Member, join_seq);
        match last {
            Some(last) => MemberRow {
                read_seq: last.read_seq.0,
                delivered_seq: last.delivered_seq.0,
                muted: last.muted,
                silenced_until: last.silenced_until.map(|until| until.0),
                ..first
            },
            None => first,
        }
    }

    /// The first membership of a user.
    pub fn begin(conversation: ConversationId, user: UserId, role: Role, join_seq: Seq) -> MemberRow {
        MemberRow {
            conversation_id: conversation.as_bytes().to_vec(),
            user_id: user.as_bytes().to_vec(),
            join_seq: join_seq.0,
            leave_seq: None,
            role: role_number(role),
            read_seq: 0,
            delivered_seq: 0,
            muted: false,
            silenced_until: None,
            hidden_seq: 0,
        }
    }

    pub fn into_member(self) -> Result<Member, Fail> {
        Ok(Member {
            conversation: ConversationId::from_slice(&self.conversation_id)?,
            user: UserId::from_slice(&self.user_id)?,
            role: match self.role {
                0 => Role::Member,
                1 => Role::Admin,
                2 => Role::Owner,
                _ => return Err(corrupt("role")),
            },
            join_seq: Seq(self.join_seq),
            leave_seq: self.leave_seq.map(Seq),
            read_seq: Seq(self.read_seq),
            delivered_seq: Seq(self.delivered_seq),
            muted: self.muted,
            silenced_until: self.silenced_until.map(Timestamp),
            hidden_seq: Seq(self.hidden_seq),
        })
    }
}

/// What a reader of the log gets; the idempotency columns stay in the database.
#[derive(Queryable, Selectable)]
#[diesel(table_name = messages)]
pub struct MessageRow {
    pub conversation_id: Vec<u8>,
    pub seq: i64,
    pub message_id: Vec<u8>,
    pub sender_id: Vec<u8>,
    pub client_msg_id: Vec<u8>,
    pub kind: i32,
    pub envelope: i32,
    pub body: Vec<u8>,
    pub reply_to: Option<i64>,
    pub created_at: i64,
}

impl MessageRow {
    pub fn into_message(self) -> Result<Message, Fail> {
        let columns = MessageColumns {
            seq: self.seq,
            message_id: &self.message_id,
            sender_id: &self.sender_id,
            client_msg_id: &self.client_msg_id,
            kind: self.kind,
            envelope: self.envelope,
            body: Bytes::from(self.body),
            reply_to: self.reply_to,
            created_at: self.created_at,
        };
        columns.into_message(ConversationId::from_slice(&self.conversation_id)?)
    }
}

/// A message of a known conversation, as a statement shows it.
pub struct MessageColumns<'a> {
    pub seq: i64,
    pub message_id: &'a [u8],
    pub sender_id: &'a [u8],
    pub client_msg_id: &'a [u8],
    pub kind: i32,
    pub envelope: i32,
    pub body: Bytes,
    pub reply_to: Option<i64>,
    pub created_at: i64,
}

impl MessageColumns<'_> {
    pub fn into_message(self, conversation: ConversationId) -> Result<Message, Fail> {
        if self.envelope != ENVELOPE_PLAIN {
            return Err(corrupt("body envelope"));
        }
        Ok(Message {
            conversation,
            seq: Seq(self.seq),
            id: MessageId::from_slice(self.message_id)?,
            sender: UserId::from_slice(self.sender_id)?,
            client_msg_id: ClientMsgId::from_slice(self.client_msg_id)?,
            body: Body {
                kind: MessageKind::from_number(self.kind).ok_or_else(|| corrupt("message kind"))?,
                content: ByteString::try_from(self.body).map_err(|_| corrupt("body: not UTF-8"))?,
            },
            reply_to: self.reply_to.map(Seq),
            created_at: Timestamp(self.created_at),
        })
    }
}

/// A message as it is stored.
#[derive(Insertable)]
#[diesel(table_name = messages, treat_none_as_default_value = false)]
pub struct NewMessageRow {
    pub conversation_id: Vec<u8>,
    pub seq: i64,
    pub message_id: Vec<u8>,
    pub sender_id: Vec<u8>,
    pub client_msg_id: Vec<u8>,
    pub payload_key_id: i32,
    pub payload_hash: Vec<u8>,
    pub kind: i32,
    pub envelope: i32,
    pub body: Vec<u8>,
    pub reply_to: Option<i64>,
    pub created_at: i64,
}

impl NewMessageRow {
    pub fn from_draft(draft: &Draft, seq: Seq) -> NewMessageRow {
        NewMessageRow {
            conversation_id: draft.conversation.as_bytes().to_vec(),
            seq: seq.0,
            message_id: draft.id.as_bytes().to_vec(),
            sender_id: draft.sender.as_bytes().to_vec(),
            client_msg_id: draft.client_msg_id.as_bytes().to_vec(),
            payload_key_id: draft.payload_hash.key_id,
            payload_hash: draft.payload_hash.hash.to_vec(),
            kind: draft.body.kind as i32,
            envelope: ENVELOPE_PLAIN,
            body: draft.body.content.as_bytes().to_vec(),
            reply_to: draft.reply_to.map(|seq| seq.0),
            created_at: draft.created_at.0,
        }
    }

    /// An event is made once by its own id: its payload is not compared, so its hash is empty.
    pub fn from_event(event: &Message) -> NewMessageRow {
        NewMessageRow {
            conversation_id: event.conversation.as_bytes().to_vec(),
            seq: event.seq.0,
            message_id: event.id.as_bytes().to_vec(),
            sender_id: event.sender.as_bytes().to_vec(),
            client_msg_id: event.client_msg_id.as_bytes().to_vec(),
            payload_key_id: 0,
            payload_hash: vec![0; 32],
            kind: event.body.kind as i32,
            envelope: ENVELOPE_PLAIN,
            body: event.body.content.as_bytes().to_vec(),
            reply_to: None,
            created_at: event.created_at.0,
        }
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = push_jobs, treat_none_as_default_value = false)]
pub struct PushJobRow {
    pub id: Vec<u8>,
    pub user_id: Vec<u8>,
    pub device_id: Vec<u8>,
    pub conversation_id: Vec<u8>,
    pub seq: i64,
    pub message_id: Vec<u8>,
    pub sender_id: Vec<u8>,
    pub created_at: i64,
    pub attempts: i32,
    pub due_at: Option<i64>,
    pub outcome: Option<i32>,
    pub finished_at: Option<i64>,
}

impl PushJobRow {
    pub fn from_job(job: &NewPushJob) -> PushJobRow {
        PushJobRow {
            id: job.id.as_bytes().to_vec(),
            user_id: job.user.as_bytes().to_vec(),
            device_id: job.device.as_bytes().to_vec(),
            conversation_id: job.conversation.as_bytes().to_vec(),
            seq: job.seq.0,
            message_id: job.message.as_bytes().to_vec(),
            sender_id: job.sender.as_bytes().to_vec(),
            created_at: job.at.0,
            attempts: 0,
            due_at: Some(job.at.0),
            outcome: None,
            finished_at: None,
        }
    }

    pub fn job(&self) -> Result<NewPushJob, Fail> {
        Ok(NewPushJob {
            id: PushJobId::from_slice(&self.id)?,
            user: UserId::from_slice(&self.user_id)?,
            device: DeviceId::from_slice(&self.device_id)?,
            conversation: ConversationId::from_slice(&self.conversation_id)?,
            seq: Seq(self.seq),
            message: MessageId::from_slice(&self.message_id)?,
            sender: UserId::from_slice(&self.sender_id)?,
            at: Timestamp(self.created_at),
        })
    }
}

/// Numbers of outcomes as they are stored.
const PUSH_OUTCOMES: [(i32, PushOutcome); 6] = [
    (0, PushOutcome::Sent),
    (1, PushOutcome::Read),
    (2, PushOutcome::Online),
    (3, PushOutcome::Unwanted),
    (4, PushOutcome::Refused),
    (5, PushOutcome::Failed),
];

pub fn push_outcome(number: i32) -> Result<PushOutcome, Fail> {
    PUSH_OUTCOMES.into_iter().find(|(known, _)| *known == number).map(|(_, outcome)| outcome).ok_or_else(|| corrupt("push outcome"))
}

pub fn push_outcome_number(outcome: PushOutcome) -> i32 {
    match outcome {
        PushOutcome::Sent => 0,
        PushOutcome::Read => 1,
        PushOutcome::Online => 2,
        PushOutcome::Unwanted => 3,
        PushOutcome::Refused => 4,
        PushOutcome::Failed => 5,
    }
}
