use serde::{Deserialize, Serialize};

use crate::{
    ids::UserId,
    model::{JoinMode, Role},
    time::Timestamp,
};

/// What a log entry of kind event tells. The actor is the entry's sender. On the wire: its JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Event {
    /// The conversation was made with these other members.
    Created {
        /// First members, the creator not named.
        users: Vec<UserId>,
    },
    /// Users were added by the actor, or (one user, the actor) joined.
    MembersJoined {
        /// Who.
        users: Vec<UserId>,
    },
    /// The actor left.
    MemberLeft,
    /// The actor removed a member.
    MemberRemoved {
        /// Who.
        user: UserId,
    },
    /// The actor changed a member's role.
    RoleChanged {
        /// Whose.
        user: UserId,
        /// The new role.
        role: Role,
    },
    /// The actor handed the group over.
    OwnerChanged {
        /// The new owner.
        user: UserId,
    },
    /// The actor silenced a member, or ended the silence.
    Silenced {
        /// Who.
        user: UserId,
        /// Until when; `None`: the silence ended.
        until: Option<Timestamp>,
    },
    /// The actor edited the group; only what changed is named.
    Edited {
        /// New name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// New description.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// New picture; the empty string means that it was removed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        avatar_url: Option<String>,
        /// New limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_members: Option<i32>,
        /// New way to become a member.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        join_mode: Option<JoinMode>,
    },
    /// The actor dissolved the group.
    Dissolved,
}
