use serde::{Deserialize, Serialize};

use crate::{
    ids::{ConversationId, Seq, UserId},
    time::Timestamp,
};

/// One interval of membership: from `join_seq` to `leave_seq` the user sees the log (decision 6).
/// Who leaves and comes back has two of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where.
    pub conversation: ConversationId,
    /// Who.
    pub user: UserId,
    /// What the member may do.
    pub role: Role,
    /// The entry with which the membership began: the first one that is visible.
    pub join_seq: Seq,
    /// The entry with which it ended: the last one that is visible.
    pub leave_seq: Option<Seq>,
    /// Read up to here; only rises.
    pub read_seq: Seq,
    /// Some device has everything up to here; only rises.
    pub delivered_seq: Seq,
    /// The member's own choice not to be notified.
    pub muted: bool,
    /// An admin forbids sending until this time.
    pub silenced_until: Option<Timestamp>,
    /// A 1:1 that this member left: hidden up to this seq, shown again by the next message.
    pub hidden_seq: Seq,
}

impl Member {
    /// Whether the membership goes on.
    pub fn is_current(&self) -> bool {
        self.leave_seq.is_none()
    }

    /// Whether the entry with this seq is visible in this interval.
    pub fn sees(&self, seq: Seq) -> bool {
        seq >= self.join_seq && self.leave_seq.is_none_or(|leave| seq <= leave)
    }
}

/// What a member may do; the greater the more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads and sends.
    Member,
    /// Also invites, removes and silences members, edits the group.
    Admin,
    /// Also appoints admins, hands the group over, dissolves it. One per group.
    Owner,
}

/// How far a member has got. Marks only rise; `Seq::ZERO` leaves one as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// Where.
    pub conversation: ConversationId,
    /// Who.
    pub user: UserId,
    /// Read up to here. Read implies delivered.
    pub read_seq: Seq,
    /// Delivered up to here.
    pub delivered_seq: Seq,
}
