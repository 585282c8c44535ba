use serde::{Deserialize, Serialize};

use crate::{
    ids::{ConversationId, MessageId, Seq, UserId},
    model::{Member, Message, Role},
    time::Timestamp,
};

/// A conversation: a 1:1 or a group. A group is a conversation of kind group (decision 15).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// Id.
    pub id: ConversationId,
    /// 1:1 or group.
    pub kind: ConversationKind,
    /// Name of a group; empty for a 1:1, which is shown by the other user's name.
    pub name: String,
    /// What the group is about.
    pub description: String,
    /// Picture of the group.
    pub avatar_url: Option<String>,
    /// Owner of the group.
    pub owner: Option<UserId>,
    /// How one becomes a member.
    pub join_mode: JoinMode,
    /// Members that the group may have.
    pub max_members: i32,
    /// Members now.
    pub member_count: i32,
    /// Seq of the newest entry of the log.
    pub head_seq: Seq,
    /// Up to this seq every member has been told or marked offline (decision 5).
    pub dispatched_seq: Seq,
    /// Seq of the last entry that changed who is a member: the version of the member list.
    pub members_seq: Seq,
    /// Whether the group was dissolved: readable, closed for everything else.
    pub dissolved: bool,
    /// Grows with every change of name, settings or members (not with messages).
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its newest entry was stored.
    pub active_at: Timestamp,
}

/// Kinds of conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConversationKind {
    /// Two users; there is one for each pair.
    Single,
    /// Any number of users with roles.
    Group,
}

/// How one becomes a member of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinMode {
    /// Only by invitation of an admin.
    #[default]
    Invite,
    /// By invitation, or by a request that an admin accepts.
    Request,
    /// By invitation, or at once by whoever knows the id or has the link.
    Open,
}

/// A conversation to be made, with all its first members in one transaction (I13).
#[derive(Clone, Debug)]
pub struct NewConversation {
    /// Id, made by the caller; an existing 1:1 of the pair or a repeated key answers with its own id.
    pub id: ConversationId,
    /// 1:1 or group.
    pub kind: ConversationKind,
    /// Who makes it: the owner of a group.
    pub creator: UserId,
    /// The other members, without the creator, each once. Exactly one for a 1:1.
    pub members: Vec<UserId>,
    /// Name of a group.
    pub name: String,
    /// What the group is about.
    pub description: String,
    /// Picture.
    pub avatar_url: Option<String>,
    /// How one becomes a member.
    pub join_mode: JoinMode,
    /// Members that the group may have, the creator counted.
    pub max_members: i32,
    /// Id of the first log entry.
    pub event_id: MessageId,
    /// Repeating a create with this key answers with the first one's conversation.
    pub idempotency: Option<IdempotencyKey>,
    /// Now.
    pub at: Timestamp,
}

/// A creator's own key of a create request; the pair (creator, key) makes one conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The key, up to [`IDEMPOTENCY_KEY_BYTES_MAX`](crate::limits::IDEMPOTENCY_KEY_BYTES_MAX) bytes.
    pub key: String,
    /// SHA-256 of the request: the same key with another one is `IDEMPOTENCY_CONFLICT`.
    pub request_hash: [u8; 32],
}

/// A conversation as one of its members sees it in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationView {
    /// The conversation.
    pub conversation: Conversation,
    /// The caller's membership (the current one, or the last for who has left).
    pub member: Member,
    /// The other user of a 1:1.
    pub peer: Option<UserId>,
    /// The newest entry that the caller can see.
    pub last_message: Option<Message>,
    /// Entries by others above the caller's read mark that count, up to [`UNREAD_MAX`](crate::limits::UNREAD_MAX).
    pub unread: i64,
    /// How far the others have got: the highest delivered and read marks among them (1:1: the peer's).
    pub peer_delivered_seq: Seq,
    /// See `peer_delivered_seq`.
    pub peer_read_seq: Seq,
}

/// How far a conversation can be read by one user, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readable {
    /// The newest entry of the log.
    pub head_seq: Seq,
    /// The reader's intervals, oldest first; at least one.
    pub intervals: Vec<Member>,
}

impl Readable {
    /// Whether the reader sees the entry with this seq: not one above the head, which the intervals may not know of.
    pub fn sees(&self, seq: Seq) -> bool {
        seq <= self.head_seq && self.intervals.iter().any(|member| member.sees(seq))
    }
}

/// A row of a user's list, without what has to be read from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The conversation.
    pub conversation: Conversation,
    /// The user's membership.
    pub member: Member,
    /// The other user of a 1:1.
    pub peer: Option<UserId>,
    /// See [`ConversationView`].
    pub peer_delivered_seq: Seq,
    /// See [`ConversationView`].
    pub peer_read_seq: Seq,
}

impl Listed {
    /// The newest entry that the user can see.
    pub fn last_seq(&self) -> Seq {
        self.member.leave_seq.unwrap_or(self.conversation.head_seq).min(self.conversation.head_seq)
    }

    /// The whole view, with what was read from the log.
    pub fn with(self, last_message: Option<Message>, unread: i64) -> ConversationView {
        let Listed { conversation, member, peer, peer_delivered_seq, peer_read_seq } = self;
        ConversationView { conversation, member, peer, last_message, unread, peer_delivered_seq, peer_read_seq }
    }
}

/// What an actor does to a group (or, for `Leave`, to a 1:1). Decided by [`rules`](crate::rules) on locked rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum GroupAction {
    /// An admin adds users.
    Invite {
        /// Who is added; those who are members already are skipped.
        users: Vec<UserId>,
    },
    /// The actor joins an open group.
    Join,
    /// The actor joins with the group's link.
    JoinByLink {
        /// SHA-256 of the link's secret.
        link_hash: Vec<u8>,
    },
    /// The actor asks to be let in.
    AskToJoin,
    /// An admin accepts or refuses a request.
    AnswerRequest {
        /// Who asked.
        user: UserId,
        /// Accept or refuse.
        accept: bool,
    },
    /// The actor leaves. In a 1:1: hides it until the next message (decision 35).
    Leave,
    /// An admin removes a member of a lower role.
    Remove {
        /// Who is removed.
        user: UserId,
    },
    /// The owner makes a member an admin, or an admin a member.
    SetRole {
        /// Whose role.
        user: UserId,
        /// `Admin` or `Member`.
        role: Role,
    },
    /// The owner makes a member the new owner and becomes an admin.
    HandOver {
        /// The new owner.
        user: UserId,
    },
    /// An admin forbids a member of a lower role to send, until a time; `None` ends it.
    Silence {
        /// Who.
        user: UserId,
        /// Until when.
        until: Option<Timestamp>,
    },
    /// An admin edits the group; `None` leaves a field as it is.
    Edit {
        /// New name.
        name: Option<String>,
        /// New description.
        description: Option<String>,
        /// New picture; `Some(None)` removes it.
        avatar_url: Option<Option<String>>,
        /// New limit, not below the present number of members.
        max_members: Option<i32>,
        /// New way to become a member.
        join_mode: Option<JoinMode>,
    },
    /// An admin makes a new link (the old one ends) or removes it. No log entry: links are not told.
    SetLink {
        /// SHA-256 of the new link's secret.
        link_hash: Option<Vec<u8>>,
    },
    /// The owner ends the group: it stays readable, nothing can be added.
    Dissolve,
}

/// An open request to join a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The group.
    pub conversation_id: ConversationId,
    /// Who asks.
    pub user_id: UserId,
    /// Since when.
    pub created_at: Timestamp,
}
