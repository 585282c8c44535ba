//! The contracts between what GoChat decides and what it runs on. Everything outside core is behind one of them.
//!
//! Every port is object-safe, takes and returns only what could cross a process, has no default methods
//! ([`Hook`] excepted: having none is normal) and is proved by a suite in [`conformance`](crate::conformance).

mod api;
mod auth;
mod bus;
mod cache;
mod hook;
mod push;
mod routes;
mod store;

pub use api::{
    AccountsApi, ConversationsApi, CreateConversation, HistoryPage, HistoryQuery, LogicApi, LoginRequest, MessagesApi, Origin, Page, RegisterRequest,
    SendRequest, Session, SyncAnswer, SyncRequest, SyncedConversation,
};
pub use auth::{Authenticator, Credentials, Identity};
pub use bus::{
    Ack, Batch, Bus, Delivery, Downstream, Payload, Pledge, Position, Receipt, Record, Refusal, Signal, Stored, Subscription, Target, Task, Topic,
    Upstream,
};
pub use cache::{Cache, CacheKey};
pub use hook::{Decision, Hook};
pub use push::PushProvider;
pub use routes::{Route, Routes};
pub use store::{AppendBatch, Appended, Changed, Conversations, Created, Devices, Messages, PushJobs, Store, Users};

/// What every port is.
pub trait Port: std::fmt::Debug + Send + Sync + 'static {}
impl<T: std::fmt::Debug + Send + Sync + 'static> Port for T {}
