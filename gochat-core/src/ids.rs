//! Identifiers: UUIDv7 newtypes, so that one can never stand where another is meant, and `Seq`.
//!
//! In JSON an id is the hyphenated lower-case UUID. Nothing derives order from an id (decision 20).

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Code, Error};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $noun:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// From the 16 bytes of a UUID.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self { $name(Uuid::from_bytes(bytes)) }
            /// The 16 bytes of the UUID.
            pub const fn as_bytes(&self) -> &[u8; 16] { self.0.as_bytes() }
            /// From a slice that must hold 16 bytes.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, Error> {
                Uuid::from_slice(bytes).map($name).map_err(|_| Error::new(Code::InvalidField, concat!($noun, " id is not 16 bytes")))
            }
        }

        impl From<Uuid> for $name { fn from(uuid: Uuid) -> Self { $name(uuid) } }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self.0.as_hyphenated(), f) }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                Uuid::try_parse(text).map($name).map_err(|_| Error::new(Code::InvalidField, concat!($noun, " id is not a UUID")))
            }
        }
    )*};
}

ids! {
    /// A user account.
    UserId "user";
    /// One device of one user; the pair (user, device) is unique.
    DeviceId "device";
    /// A conversation: a 1:1 or a group.
    ConversationId "conversation";
    /// A stored message, given by the server.
    MessageId "message";
    /// A message as its sender names it. UUIDv7 is fastest in the store; any UUID is correct.
    ClientMsgId "client message";
    /// A chain of refresh tokens that began with one login.
    FamilyId "family";
    /// A push job.
    PushJobId "push job";
}

/// Position of an entry in its conversation's log: 1, 2, 3 … without gaps; 0 stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub i64);

impl Seq {
    /// Before the first entry.
    pub const ZERO: Seq = Seq(0);

    /// The next position.
    #[must_use]
    pub const fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Stable name of a gateway: the last part of its downstream topic's name. `[a-z0-9-]`, 1 to 40 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(Arc<str>);

impl GatewayId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GatewayId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > 40 || !text.bytes().all(allowed) {
            return Err(Error::new(Code::InvalidField, "gateway id is 1 to 40 of a-z, 0-9 and -"));
        }
        Ok(GatewayId(text.into()))
    }
}

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
