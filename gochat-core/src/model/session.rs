use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{DeviceId, FamilyId, UserId},
    model::User,
    time::Timestamp,
};

/// Who is asking: proved by an [`Authenticator`](crate::ports::Authenticator), carried with every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// The device that the user is signed in with.
    pub device: DeviceId,
    /// Epoch of the session: it grows when the session is revoked, never otherwise.
    pub session_epoch: i64,
}

/// A device of a user and its sign-in (session).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Whose.
    pub user: UserId,
    /// Id, chosen by the client or by the server at login.
    pub id: DeviceId,
    /// What its user calls it.
    pub name: String,
    /// Grows when the session is revoked (logout, password change, removal, disabling).
    pub session_epoch: i64,
    /// Grows with every connection; the newest one owns the route (decision 8).
    pub connection_epoch: i64,
    /// Whether it is signed in.
    pub signed_in: bool,
    /// Last login or connection.
    pub last_seen_at: Timestamp,
    /// First login.
    pub created_at: Timestamp,
}

/// What a connection gets when its device is registered as connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Epoch of this connection: greater than that of every earlier connection of the device.
    pub connection_epoch: i64,
}

/// A login that succeeded, to be recorded in one transaction: device, session, refresh token, login log.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Who signed in.
    pub user: UserId,
    /// With which device.
    pub device: DeviceId,
    /// What the device is called.
    pub device_name: String,
    /// Family of refresh tokens that begins here.
    pub family: FamilyId,
    /// SHA-256 of the refresh token.
    pub refresh_hash: [u8; 32],
    /// When the refresh token ends.
    pub refresh_expires_at: Timestamp,
    /// Address of the client, for the login log.
    pub address: String,
    /// Now.
    pub at: Timestamp,
}

/// An attempt to log in, as the login log keeps it. Failures are kept too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginAttempt {
    /// The user, where the name belongs to one.
    pub user: Option<UserId>,
    /// The name that was given (canonical).
    pub username: String,
    /// The device that was named.
    pub device: Option<DeviceId>,
    /// How it ended.
    pub outcome: LoginOutcome,
    /// Address of the client.
    pub address: String,
    /// When.
    pub at: Timestamp,
}

/// How a login ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginOutcome {
    /// Signed in.
    Success,
    /// No such user.
    UnknownUser,
    /// Wrong password.
    WrongPassword,
    /// The account is disabled.
    Disabled,
}

/// A refresh token presented for its successor.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// SHA-256 of the token that was presented.
    pub presented_hash: [u8; 32],
    /// SHA-256 of the token that takes its place.
    pub successor_hash: [u8; 32],
    /// The successor sealed under a key derived from the presented token, kept for `grace`.
    pub successor_sealed: Vec<u8>,
    /// When the successor ends.
    pub expires_at: Timestamp,
    /// How long the presented token may be shown again and gets the same successor.
    pub grace: Duration,
    /// Now.
    pub at: Timestamp,
}

/// How a rotation ended.
#[derive(Clone, Debug)]
pub enum Refreshed {
    /// The successor is stored.
    Rotated {
        /// Who the token belongs to, with the session's current epoch.
        caller: Caller,
        /// The account.
        user: User,
    },
    /// Shown again within the grace: here is the successor that was stored then, still sealed.
    Repeated {
        /// Who the token belongs to.
        caller: Caller,
        /// The account.
        user: User,
        /// As given by the first rotation.
        successor_sealed: Vec<u8>,
    },
    /// Shown again after the grace: the family is revoked and the session's epoch raised.
    Reused {
        /// Whose session was revoked; the epoch is the new one.
        caller: Caller,
    },
    /// Unknown, expired or revoked, or the account is disabled.
    Refused,
}
