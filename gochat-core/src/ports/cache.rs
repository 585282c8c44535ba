use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    ids::{ConversationId, UserId},
    ports::Port,
};

/// A place for copies. A cache that fails is a miss, never an error; a cached value never grants access.
///
/// # Contract
/// - `set` keeps a value only if no value of the same or a higher version is there: a slow old writer loses (I14).
/// - `invalidate` removes the value and refuses, until `version` or a higher one is set, every lower version
///   for at least a second: a reader that fetched before the change cannot put the old value back.
/// - Batches are aligned with their keys. Values may vanish at any time.
#[async_trait]
pub trait Cache: Port {
    /// The values with their versions.
    async fn get(&self, keys: &[CacheKey]) -> Vec<Option<(i64, Bytes)>>;
    /// Keeps values for up to `ttl`.
    async fn set(&self, entries: &[(CacheKey, i64, Bytes)], ttl: Duration);
    /// Forgets values older than the version.
    async fn invalidate(&self, entries: &[(CacheKey, i64)]);
}

/// The seed's six key shapes, typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheKey {
    /// `user:{id}`: a [`User`](crate::model::User).
    User(UserId),
    /// `conversation:{id}`: a 1:1.
    Conversation(ConversationId),
    /// `group:{id}`: a group.
    Group(ConversationId),
    /// `user_gateway:{id}`: the user's routes (kept by [`Routes`](crate::ports::Routes)).
    UserGateway(UserId),
    /// `message:{conversation}`: the newest page of a conversation.
    Message(ConversationId),
    /// `user_conversations:{id}`: the newest page of a user's list.
    UserConversations(UserId),
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheKey::User(id) => write!(f, "user:{id}"),
            CacheKey::Conversation(id) => write!(f, "conversation:{id}"),
            CacheKey::Group(id) => write!(f, "group:{id}"),
            CacheKey::UserGateway(id) => write!(f, "user_gateway:{id}"),
            CacheKey::Message(id) => write!(f, "message:{id}"),
            CacheKey::UserConversations(id) => write!(f, "user_conversations:{id}"),
        }
    }
}
