//! The types of the domain in protobuf, each with both directions side by side.
//!
//! A struct whose fields have the same names on both sides is one line per way of travelling; whatever differs is written out.
//! Bodies and ids are handed on as `Bytes`.

use gochat_core::{
    error::{Error, Result},
    ids::{ConversationId, DeviceId, PushJobId, Seq, UserId},
    model::{
        Caller, Connected, Conversation, ConversationKind, ConversationView, Credential, Device, Draft, GroupAction, IdempotencyKey, JoinMode,
        JoinRequest, Listed, LoginAttempt, LoginOutcome, Mark, Member, Message, NewConversation, NewPushJob, NewSession, NewUser, PayloadHash,
        ProfileChange, PushJob, PushLogEntry, PushOutcome, Readable, Refreshed, Role, Rotation, User, UserStatus,
    },
    ports::{
        AppendBatch, Appended, Changed, CreateConversation, Created, HistoryPage, HistoryQuery, LoginRequest, Page, RegisterRequest, Session,
        SyncAnswer, SyncRequest, SyncedConversation,
    },
    time::Timestamp,
};

use super::{
    errors,
    wire::{Wire, all, count, each, malformed, maybe, need, perhaps},
};
use crate::{
    bus::codec,
    pb::{bus, model as pb},
};

/// Structs with the same field names on both sides. How a field travels: `same` as it is, `wire` as its own type does, `need`
/// as a message that must be there, `maybe` if there is any, `list` one by one.
macro_rules! structs {
    ($($Type:ident = $Pb:path { $($how:ident $($field:ident)*;)* })*) => {$(
        impl Wire for $Type {
            type Pb = $Pb;
            fn out(self) -> Self::Pb {
                $Pb { $($($field: field_out!($how self.$field),)*)* }
            }
            fn back(pb: Self::Pb) -> Result<Self> {
                Ok($Type { $($($field: field_back!($how pb.$field),)*)* })
            }
        }
    )*};
}

macro_rules! field_out {
    (same $value:expr) => {
        $value
    };
    (wire $value:expr) => {
        Wire::out($value)
    };
    (need $value:expr) => {
        Some(Wire::out($value))
    };
    (maybe $value:expr) => {
        maybe($value)
    };
    (list $value:expr) => {
        all($value)
    };
    (count $value:expr) => {
        $value as u64
    };
}

macro_rules! field_back {
    (same $field:expr) => {
        $field
    };
    (wire $field:expr) => {
        Wire::back($field)?
    };
    (need $field:expr) => {
        need($field)?
    };
    (maybe $field:expr) => {
        perhaps($field)?
    };
    (list $field:expr) => {
        each($field)?
    };
    (count $field:expr) => {
        count($field)
    };
}

structs! {
    User = pb::User { wire id status created_at; same username display_name avatar_url external_id version; }
    NewUser = pb::NewUser { wire id created_at; same username display_name password_phc external_id; }
    ProfileChange = pb::ProfileChange { same display_name; maybe avatar_url; }
    Credential = pb::Credential { wire user; same phc; }
    Caller = pb::Caller { wire user device; same session_epoch; }
    Device = pb::Device { wire user id last_seen_at created_at; same name session_epoch connection_epoch signed_in; }
    Connected = pb::Connected { same connection_epoch; }
    NewSession = pb::NewSession { wire user device family refresh_hash refresh_expires_at at; same device_name address; }
    LoginAttempt = pb::LoginAttempt { maybe user device; same username address; wire outcome at; }
    RegisterRequest = pb::Registration { same username password display_name; }
    LoginRequest = pb::Login { same username password device_name address; maybe device_id; }
    Session = pb::Session { same access_token expires_in refresh_token; need user; wire device_id; }
    Conversation = pb::Conversation {
        wire id kind join_mode head_seq dispatched_seq members_seq created_at active_at;
        same name description avatar_url max_members member_count dissolved version;
        maybe owner;
    }
    NewConversation = pb::NewConversation {
        wire id kind creator join_mode event_id at;
        same name description avatar_url max_members;
        maybe idempotency;
        list members;
    }
    IdempotencyKey = pb::IdempotencyKey { same key; wire request_hash; }
    CreateConversation = pb::CreateConversation {
        wire kind join_mode;
        same name description avatar_url max_members idempotency_key;
        list participants;
    }
    Created = pb::Created { need conversation; maybe event; same existed; }
    Changed = pb::Changed { need conversation; maybe event; }
    Member = pb::Member {
        wire conversation user role join_seq read_seq delivered_seq hidden_seq;
        maybe leave_seq silenced_until;
        same muted;
    }
    ConversationView = pb::ConversationView {
        need conversation member;
        maybe peer last_message;
        same unread;
        wire peer_delivered_seq peer_read_seq;
    }
    Listed = pb::Listed {
        need conversation member;
        maybe peer;
        wire peer_delivered_seq peer_read_seq;
    }
    Readable = pb::Readable { wire head_seq; list intervals; }
    JoinRequest = pb::JoinRequest { wire conversation_id user_id created_at; }
    Mark = bus::Marks { wire conversation user read_seq delivered_seq; }
    AppendBatch = pb::AppendBatch { list drafts dispatched; }
    Appended = pb::Appended { need message; same repeated member_count; wire members_seq dispatched_seq; }
    HistoryQuery = pb::HistoryQuery { wire conversation; maybe after before; count limit; }
    HistoryPage = pb::HistoryPage { list messages; same more; }
    SyncRequest = pb::Sync { list have; count limit; }
    SyncedConversation = pb::SyncedConversation { wire id head_seq read_seq; list messages; same more; }
    SyncAnswer = pb::SyncAnswer { list conversations; }
    NewPushJob = pb::NewPushJob { wire id user device conversation seq message sender at; }
    PushJob = pb::PushJob { need job; same attempts; }
    PushLogEntry = pb::PushLogEntry {
        wire user_id device_id conversation_id seq created_at;
        maybe outcome finished_at;
        same attempts;
    }
}

macro_rules! enums {
    ($($Type:ident { $($Variant:ident)* })*) => {$(
        impl Wire for $Type {
            type Pb = i32;
            fn out(self) -> i32 {
                let pb = match self { $($Type::$Variant => pb::$Type::$Variant,)* };
                pb as i32
            }
            fn back(pb: i32) -> Result<Self> {
                match pb::$Type::try_from(pb) {
                    $(Ok(pb::$Type::$Variant) => Ok($Type::$Variant),)*
                    Ok(pb::$Type::Unspecified) | Err(_) => Err(malformed(concat!("an unknown ", stringify!($Type)))),
                }
            }
        }
    )*};
}

enums! {
    UserStatus { Active Disabled }
    LoginOutcome { Success UnknownUser WrongPassword Disabled }
    ConversationKind { Single Group }
    JoinMode { Invite Request Open }
    Role { Member Admin Owner }
    PushOutcome { Sent Read Online Unwanted Refused Failed }
}

/// Lists that are a whole reply, or an item of one.
macro_rules! lists {
    ($($Item:ty = $Pb:ident;)*) => {$(
        impl Wire for Vec<$Item> {
            type Pb = pb::$Pb;
            fn out(self) -> pb::$Pb { pb::$Pb { items: all(self) } }
            fn back(pb: pb::$Pb) -> Result<Self> { each(pb.items) }
        }
    )*};
}

lists! {
    User = Users;
    Option<User> = MaybeUsers;
    UserId = UserIds;
    Caller = Callers;
    Option<Caller> = MaybeCallers;
    Device = Devices;
    Option<Device> = MaybeDevices;
    Vec<Device> = DeviceLists;
    Option<i64> = Epochs;
    LoginAttempt = LoginAttempts;
    Option<Conversation> = MaybeConversations;
    ConversationView = ConversationViews;
    Listed = ListedRows;
    Option<Readable> = MaybeReadables;
    Member = Members;
    Vec<Member> = MemberLists;
    JoinRequest = JoinRequests;
    Message = Messages;
    PushJob = PushJobs;
    PushLogEntry = PushLog;
    Result<Connected> = ConnectedOutcomes;
    Result<Member> = MemberOutcomes;
    Result<(Member, bool)> = MarkedOutcomes;
    Result<Appended> = AppendedOutcomes;
}

/// Absence that is a whole reply, or an item of one.
macro_rules! optional {
    ($($Item:ty = $Pb:ident;)*) => {$(
        impl Wire for Option<$Item> {
            type Pb = pb::$Pb;
            fn out(self) -> pb::$Pb { pb::$Pb { value: maybe(self) } }
            fn back(pb: pb::$Pb) -> Result<Self> { perhaps(pb.value) }
        }
    )*};
}

optional! {
    User = MaybeUser;
    Credential = MaybeCredential;
    Caller = MaybeCaller;
    Device = MaybeDevice;
    i64 = Epoch;
    Conversation = MaybeConversation;
    ConversationView = MaybeConversationView;
    Readable = MaybeReadable;
}

/// One item's outcome in a batch.
macro_rules! outcomes {
    ($($Item:ty = $Pb:ident, $module:ident;)*) => {$(
        impl Wire for Result<$Item, Error> {
            type Pb = pb::$Pb;
            fn out(self) -> pb::$Pb {
                let outcome = match self {
                    Ok(value) => pb::$module::Outcome::Value(value.out()),
                    Err(error) => pb::$module::Outcome::Refusal(errors::refusal(&error)),
                };
                pb::$Pb { outcome: Some(outcome) }
            }
            fn back(pb: pb::$Pb) -> Result<Self> {
                match pb.outcome.ok_or_else(|| malformed("an item without an outcome"))? {
                    pb::$module::Outcome::Value(value) => Wire::back(value).map(Ok),
                    pb::$module::Outcome::Refusal(refusal) => Ok(Err(errors::error(refusal))),
                }
            }
        }
    )*};
}

outcomes! {
    Connected = ConnectedOutcome, connected_outcome;
    Member = MemberOutcome, member_outcome;
    (Member, bool) = MarkedOutcome, marked_outcome;
    Appended = AppendedOutcome, appended_outcome;
}

/// Pairs and triples under names.
macro_rules! tuples {
    ($(($($Type:ty),*) = $Pb:path { $($how:ident $field:ident),* })*) => {$(
        impl Wire for ($($Type),*) {
            type Pb = $Pb;
            fn out(self) -> Self::Pb {
                let ($($field),*) = self;
                $Pb { $($field: field_out!($how $field)),* }
            }
            fn back(pb: Self::Pb) -> Result<Self> {
                Ok(($(field_back!($how pb.$field)),*))
            }
        }
    )*};
}

tuples! {
    (UserId, DeviceId) = pb::DeviceKey { wire user, wire device }
    (ConversationId, Seq) = bus::Head { wire conversation, wire seq }
    (Timestamp, ConversationId) = pb::Activity { wire active_at, wire conversation }
    (Device, Vec<Caller>) = pb::RecordedLogin { need device, list signed_out }
    (Member, bool) = pb::Marked { need member, same rose }
    (ConversationView, bool) = pb::CreatedView { need view, same existed }
    (Vec<Conversation>, Option<ConversationId>) = pb::Undispatched { list conversations, maybe go_on_after }
    (PushJobId, PushOutcome, Option<Timestamp>) = pb::PushResult { wire id, wire outcome, maybe due_at }
}

macro_rules! pages {
    ($($Item:ident = $Pb:ident;)*) => {$(
        impl Wire for Page<$Item> {
            type Pb = pb::$Pb;
            fn out(self) -> pb::$Pb { pb::$Pb { items: all(self.items), next_cursor: self.next_cursor } }
            fn back(pb: pb::$Pb) -> Result<Self> { Ok(Page { items: each(pb.items)?, next_cursor: pb.next_cursor }) }
        }
    )*};
}

pages! {
    ConversationView = ConversationViewPage;
    Member = MemberPage;
}

impl Wire for Option<String> {
    type Pb = pb::TextChange;
    fn out(self) -> pb::TextChange {
        pb::TextChange { value: self }
    }
    fn back(pb: pb::TextChange) -> Result<Self> {
        Ok(pb.value)
    }
}

impl Wire for Option<DeviceId> {
    type Pb = pb::Except;
    fn out(self) -> pb::Except {
        pb::Except { device: maybe(self) }
    }
    fn back(pb: pb::Except) -> Result<Self> {
        perhaps(pb.device)
    }
}

impl Wire for Message {
    type Pb = bus::Message;
    fn out(self) -> bus::Message {
        codec::message_out(&self)
    }
    fn back(pb: bus::Message) -> Result<Self> {
        codec::message_in(pb)
    }
}

impl Wire for Draft {
    type Pb = pb::HashedDraft;
    fn out(self) -> pb::HashedDraft {
        let PayloadHash { key_id, hash } = self.payload_hash;
        pb::HashedDraft { draft: Some(codec::draft_out(&self)), hash_key: key_id, payload_hash: hash.out() }
    }
    fn back(pb: pb::HashedDraft) -> Result<Self> {
        let draft = pb.draft.ok_or_else(|| malformed("a draft without content"))?;
        codec::draft_in(draft, PayloadHash { key_id: pb.hash_key, hash: Wire::back(pb.payload_hash)? })
    }
}

impl Wire for Rotation {
    type Pb = pb::Rotation;
    fn out(self) -> pb::Rotation {
        pb::Rotation {
            presented_hash: self.presented_hash.out(),
            successor_hash: self.successor_hash.out(),
            successor_sealed: self.successor_sealed.out(),
            expires_at: self.expires_at.out(),
            grace_ms: self.grace.out(),
            at: self.at.out(),
        }
    }
    fn back(pb: pb::Rotation) -> Result<Self> {
        Ok(Rotation {
            presented_hash: Wire::back(pb.presented_hash)?,
            successor_hash: Wire::back(pb.successor_hash)?,
            successor_sealed: Wire::back(pb.successor_sealed)?,
            expires_at: Wire::back(pb.expires_at)?,
            grace: Wire::back(pb.grace_ms)?,
            at: Wire::back(pb.at)?,
        })
    }
}

impl Wire for Refreshed {
    type Pb = pb::Refreshed;
    fn out(self) -> pb::Refreshed {
        use pb::refreshed::{Outcome, Repeated, Reused, Rotated};
        let outcome = match self {
            Refreshed::Rotated { caller, user } => Outcome::Rotated(Rotated { caller: Some(caller.out()), user: Some(user.out()) }),
            Refreshed::Repeated { caller, user, successor_sealed } => {
                Outcome::Repeated(Repeated { caller: Some(caller.out()), user: Some(user.out()), successor_sealed: successor_sealed.out() })
            }
            Refreshed::Reused { caller } => Outcome::Reused(Reused { caller: Some(caller.out()) }),
            Refreshed::Refused => Outcome::Refused(pb::Done {}),
        };
        pb::Refreshed { outcome: Some(outcome) }
    }
    fn back(pb: pb::Refreshed) -> Result<Self> {
        use pb::refreshed::Outcome;
        Ok(match pb.outcome.ok_or_else(|| malformed("a rotation without an outcome"))? {
            Outcome::Rotated(pb) => Refreshed::Rotated { caller: need(pb.caller)?, user: need(pb.user)? },
            Outcome::Repeated(pb) => {
                Refreshed::Repeated { caller: need(pb.caller)?, user: need(pb.user)?, successor_sealed: Wire::back(pb.successor_sealed)? }
            }
            Outcome::Reused(pb) => Refreshed::Reused { caller: need(pb.caller)? },
            Outcome::Refused(_) => Refreshed::Refused,
        })
    }
}

impl Wire for GroupAction {
    type Pb = pb::GroupAction;
    fn out(self) -> pb::GroupAction {
        use pb::group_action::{Action, AnswerRequest, Edit, Invite, SetLink, SetRole, Silence};
        let done = pb::Done {};
        let action = match self {
            GroupAction::Invite { users } => Action::Invite(Invite { users: all(users) }),
            GroupAction::Join => Action::Join(done),
            GroupAction::JoinByLink { link_hash } => Action::JoinByLink(link_hash.out()),
            GroupAction::AskToJoin => Action::AskToJoin(done),
            GroupAction::AnswerRequest { user, accept } => Action::AnswerRequest(AnswerRequest { user: user.out(), accept }),
            GroupAction::Leave => Action::Leave(done),
            GroupAction::Remove { user } => Action::Remove(user.out()),
            GroupAction::SetRole { user, role } => Action::SetRole(SetRole { user: user.out(), role: role.out() }),
            GroupAction::HandOver { user } => Action::HandOver(user.out()),
            GroupAction::Silence { user, until } => Action::Silence(Silence { user: user.out(), until: maybe(until) }),
            GroupAction::Edit { name, description, avatar_url, max_members, join_mode } => {
                Action::Edit(Edit { name, description, avatar_url: maybe(avatar_url), max_members, join_mode: maybe(join_mode) })
            }
            GroupAction::SetLink { link_hash } => Action::SetLink(SetLink { link_hash: maybe(link_hash) }),
            GroupAction::Dissolve => Action::Dissolve(done),
        };
        pb::GroupAction { action: Some(action) }
    }
    fn back(pb: pb::GroupAction) -> Result<Self> {
        use pb::group_action::Action;
        Ok(match pb.action.ok_or_else(|| malformed("an action of a kind that is not known"))? {
            Action::Invite(pb) => GroupAction::Invite { users: each(pb.users)? },
            Action::Join(_) => GroupAction::Join,
            Action::JoinByLink(link_hash) => GroupAction::JoinByLink { link_hash: Wire::back(link_hash)? },
            Action::AskToJoin(_) => GroupAction::AskToJoin,
            Action::AnswerRequest(pb) => GroupAction::AnswerRequest { user: Wire::back(pb.user)?, accept: pb.accept },
            Action::Leave(_) => GroupAction::Leave,
            Action::Remove(user) => GroupAction::Remove { user: Wire::back(user)? },
            Action::SetRole(pb) => GroupAction::SetRole { user: Wire::back(pb.user)?, role: Wire::back(pb.role)? },
            Action::HandOver(user) => GroupAction::HandOver { user: Wire::back(user)? },
            Action::Silence(pb) => GroupAction::Silence { user: Wire::back(pb.user)?, until: perhaps(pb.until)? },
            Action::Edit(pb) => GroupAction::Edit {
                name: pb.name,
                description: pb.description,
                avatar_url: perhaps(pb.avatar_url)?,
                max_members: pb.max_members,
                join_mode: perhaps(pb.join_mode)?,
            },
            Action::SetLink(pb) => GroupAction::SetLink { link_hash: perhaps(pb.link_hash)? },
            Action::Dissolve(_) => GroupAction::Dissolve,
        })
    }
}

#[cfg(test)]
mod tests;
