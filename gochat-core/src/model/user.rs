use serde::{Deserialize, Serialize};

use crate::{ids::UserId, time::Timestamp};

/// A person or program that can chat. Holds no secret: password hashes are [`Credential`]s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Id of the user.
    pub id: UserId,
    /// Unique name, canonical (lower case).
    pub username: String,
    /// What others see.
    pub display_name: String,
    /// Where the picture is.
    pub avatar_url: Option<String>,
    /// Whether the account may be used.
    pub status: UserStatus,
    /// The host application's own id of this user (decision 26).
    pub external_id: Option<String>,
    /// Grows with every change of this row.
    pub version: i64,
    /// When the account was made.
    pub created_at: Timestamp,
}

/// Whether an account may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserStatus {
    /// In use.
    Active,
    /// Switched off by an operator: no login, no session, no sending.
    Disabled,
}

/// An account to be made.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Id, made by the caller.
    pub id: UserId,
    /// Canonical user name; the store refuses a second one with `USERNAME_TAKEN`.
    pub username: String,
    /// What others see.
    pub display_name: String,
    /// PHC string, or none for users whose login a host application does.
    pub password_phc: Option<String>,
    /// The host's own id; at most one user has it.
    pub external_id: Option<String>,
    /// Now.
    pub created_at: Timestamp,
}

/// What a user changes of the own profile; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileChange {
    /// New display name.
    pub display_name: Option<String>,
    /// New picture; `Some(None)` removes it.
    pub avatar_url: Option<Option<String>>,
}

/// A stored password hash. Never cached, never serialised.
#[derive(Clone)]
pub struct Credential {
    /// Whose.
    pub user: UserId,
    /// PHC string.
    pub phc: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("user", &self.user).field("phc", &"***").finish()
    }
}
