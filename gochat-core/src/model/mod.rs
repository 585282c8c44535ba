//! The nouns of the domain. Plain data with public fields; what an id or a field promises stands beside it.

mod conversation;
mod event;
mod member;
mod message;
mod push;
mod session;
mod user;

pub use conversation::{
    Conversation, ConversationKind, ConversationView, GroupAction, IdempotencyKey, JoinMode, JoinRequest, Listed, NewConversation, Readable,
};
pub use event::Event;
pub use member::{Mark, Member, Role};
pub use message::{Body, Draft, Message, MessageKind, PayloadHash};
pub use push::{NewPushJob, Notice, PushJob, PushLogEntry, PushOutcome};
pub use session::{Caller, Connected, Device, LoginAttempt, LoginOutcome, NewSession, Refreshed, Rotation};
pub use user::{Credential, NewUser, ProfileChange, User, UserStatus};
