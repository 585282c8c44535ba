//! The query text: ordinary async functions over `Conn`, the same for every SQL database. What differs stands in the
//! database's own file, which includes this module by path.
//!
//! Rules: a unit of work awaits nothing but its connection. It may be run again from its start, so it is `Clone` and has no
//! effect outside its transaction: where writers race, one may find a unique key taken that it did not see before.

mod accounts;
pub(super) mod append;
pub(super) mod builder;
mod conversations;
mod devices;
pub(super) mod log;
mod manage;
mod marks;
mod members;
mod push;
mod views;

use std::time::Duration;

use futures_util::FutureExt;
use gochat_core::{
    async_trait,
    error::{Code, Error, Result},
    ids::{ConversationId, DeviceId, MessageId, PushJobId, Seq, UserId},
    limits::APPEND_DRAFTS_MAX,
    model::{
        Caller, Connected, Conversation, ConversationView, Credential, Device, GroupAction, JoinRequest, Listed, LoginAttempt, Mark, Member, Message,
        NewConversation, NewPushJob, NewSession, NewUser, ProfileChange, PushJob, PushLogEntry, PushOutcome, Readable, Refreshed, Rotation, User,
        UserStatus,
    },
    ports::{AppendBatch, Appended, Changed, Conversations, Created, Devices, Messages, PushJobs, Users},
    time::Timestamp,
};

use super::{
    Conn, Database, Fail, insert_devices, insert_logins, insert_members, insert_message, insert_push_jobs, load_each, locked, locked_devices,
    newest_intervals, raise_dispatched, store_connections, store_marks, taken,
};

/// Ids in one `IN (…)`: far below every database's limit of parameters.
const IN_MAX: usize = 1000;

/// A page size as the database counts it.
fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

#[async_trait]
impl Users for Database {
    async fn create_user(&self, user: &NewUser) -> Result<User> {
        let user = user.clone();
        self.write(move |conn| accounts::create(conn, user).boxed()).await
    }

    async fn users(&self, ids: &[UserId]) -> Result<Vec<Option<User>>> {
        let ids = ids.to_vec();
        self.read(move |conn| accounts::by_ids(conn, ids).boxed()).await
    }

    async fn user_by_name(&self, username: &str) -> Result<Option<User>> {
        let username = username.to_owned();
        self.read(move |conn| accounts::by_name(conn, username).boxed()).await
    }

    async fn user_by_external_id(&self, external_id: &str) -> Result<Option<User>> {
        let external_id = external_id.to_owned();
        self.read(move |conn| accounts::by_external_id(conn, external_id).boxed()).await
    }

    async fn users_by_prefix(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<User>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.read(move |conn| accounts::by_prefix(conn, prefix, after, limit).boxed()).await
    }

    async fn update_profile(&self, id: UserId, change: &ProfileChange) -> Result<User> {
        let change = change.clone();
        self.write(move |conn| accounts::update_profile(conn, id, change).boxed()).await
    }

    async fn set_user_status(&self, id: UserId, status: UserStatus) -> Result<Vec<Caller>> {
        self.write(move |conn| accounts::set_status(conn, id, status).boxed()).await
    }

    async fn credential(&self, id: UserId) -> Result<Option<Credential>> {
        self.read(move |conn| accounts::credential(conn, id).boxed()).await
    }

    async fn set_credential(&self, credential: &Credential, revoke_except: Option<Option<DeviceId>>) -> Result<Vec<Caller>> {
        let credential = credential.clone();
        self.write(move |conn| accounts::set_credential(conn, credential, revoke_except).boxed()).await
    }
}

#[async_trait]
impl Devices for Database {
    async fn record_login(&self, session: &NewSession) -> Result<(Device, Vec<Caller>)> {
        let session = session.clone();
        self.write(move |conn| devices::record_login(conn, session).boxed()).await
    }

    async fn record_failed_logins(&self, attempts: &[LoginAttempt]) -> Result<()> {
        let attempts = attempts.to_vec();
        self.write(move |conn| devices::record_failed_logins(conn, attempts).boxed()).await
    }

    async fn login_log(&self, user: UserId, limit: usize) -> Result<Vec<LoginAttempt>> {
        self.read(move |conn| devices::login_log(conn, user, limit).boxed()).await
    }

    async fn rotate_refresh(&self, rotation: &Rotation) -> Result<Refreshed> {
        let rotation = rotation.clone();
        self.write(move |conn| devices::rotate_refresh(conn, rotation).boxed()).await
    }

    async fn devices_of(&self, users: &[UserId]) -> Result<Vec<Vec<Device>>> {
        let users = users.to_vec();
        self.read(move |conn| devices::of_users(conn, users).boxed()).await
    }

    async fn devices(&self, keys: &[(UserId, DeviceId)]) -> Result<Vec<Option<Device>>> {
        let keys = keys.to_vec();
        self.read(move |conn| devices::by_keys(conn, keys).boxed()).await
    }

    async fn sign_out(&self, keys: &[(UserId, DeviceId)]) -> Result<Vec<Option<Caller>>> {
        let keys = keys.to_vec();
        self.write(move |conn| devices::sign_out(conn, keys).boxed()).await
    }

    async fn connect(&self, callers: &[Caller], at: Timestamp) -> Result<Vec<Result<Connected>>> {
        let callers = callers.to_vec();
        self.write(move |conn| devices::connect(conn, callers, at).boxed()).await
    }
}

#[async_trait]
impl Conversations for Database {
    async fn create_conversation(&self, new: &NewConversation) -> Result<Created> {
        let new = new.clone();
        self.write(move |conn| conversations::create(conn, new).boxed()).await
    }

    async fn conversations(&self, ids: &[ConversationId]) -> Result<Vec<Option<Conversation>>> {
        let ids = ids.to_vec();
        self.read(move |conn| conversations::by_ids(conn, ids).boxed()).await
    }

    async fn conversation_view(&self, user: UserId, id: ConversationId) -> Result<Option<ConversationView>> {
        self.read(move |conn| views::one(conn, user, id).boxed()).await
    }

    async fn conversations_of(&self, user: UserId, before: Option<(Timestamp, ConversationId)>, limit: usize) -> Result<Vec<ConversationView>> {
        self.read(move |conn| views::of_user(conn, user, before, limit).boxed()).await
    }

    async fn listed(&self, user: UserId, before: Option<(Timestamp, ConversationId)>, limit: usize) -> Result<Vec<Listed>> {
        self.read(move |conn| views::listed(conn, user, before, limit).boxed()).await
    }

    async fn readable(&self, reader: UserId, ids: &[ConversationId]) -> Result<Vec<Option<Readable>>> {
        let ids = ids.to_vec();
        self.read(move |conn| members::readable(conn, reader, ids).boxed()).await
    }

    async fn members(&self, id: ConversationId, after: Option<UserId>, limit: usize) -> Result<Vec<Member>> {
        self.read(move |conn| members::current(conn, id, after, limit).boxed()).await
    }

    async fn members_at(&self, id: ConversationId, seq: Seq, after: Option<UserId>, limit: usize) -> Result<Vec<UserId>> {
        self.read(move |conn| members::at(conn, id, seq, after, limit).boxed()).await
    }

    async fn memberships(&self, id: ConversationId, users: &[UserId]) -> Result<Vec<Vec<Member>>> {
        let users = users.to_vec();
        self.read(move |conn| members::intervals(conn, id, users).boxed()).await
    }

    async fn manage(&self, id: ConversationId, actor: UserId, action: &GroupAction, event_id: MessageId, at: Timestamp) -> Result<Changed> {
        let action = action.clone();
        self.write(move |conn| manage::manage(conn, id, actor, action, event_id, at).boxed()).await
    }

    async fn conversation_by_link(&self, link_hash: &[u8]) -> Result<Option<Conversation>> {
        let link_hash = link_hash.to_vec();
        self.read(move |conn| conversations::by_link(conn, link_hash).boxed()).await
    }

    async fn join_requests(&self, id: ConversationId, limit: usize) -> Result<Vec<JoinRequest>> {
        self.read(move |conn| members::join_requests(conn, id, limit).boxed()).await
    }

    async fn set_muted(&self, id: ConversationId, user: UserId, muted: bool) -> Result<Member> {
        self.write(move |conn| members::set_muted(conn, id, user, muted).boxed()).await
    }
}

#[async_trait]
impl Messages for Database {
    async fn append(&self, batch: &AppendBatch) -> Result<Vec<Result<Appended>>> {
        if batch.drafts.len() > APPEND_DRAFTS_MAX {
            return Err(Error::new(Code::TooLarge, format!("an append has at most {APPEND_DRAFTS_MAX} drafts")));
        }
        if batch.drafts.is_empty() {
            self.set_dispatched(&batch.dispatched).await?;
            return Ok(Vec::new());
        }
        Database::append(self, batch.clone()).await
    }

    async fn history(&self, reader: UserId, id: ConversationId, after: Option<Seq>, before: Option<Seq>, limit: usize) -> Result<Vec<Message>> {
        Database::history(self, reader, id, after, before, limit).await
    }

    async fn log(&self, id: ConversationId, after: Seq, through: Seq, limit: usize) -> Result<Vec<Message>> {
        Database::log(self, id, after, through, limit).await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<Vec<Result<(Member, bool)>>> {
        if marks.is_empty() {
            return Ok(Vec::new());
        }
        let marks = marks.to_vec();
        self.write(move |conn| marks::mark(conn, marks).boxed()).await
    }

    async fn set_dispatched(&self, marks: &[(ConversationId, Seq)]) -> Result<()> {
        if marks.is_empty() {
            return Ok(());
        }
        let marks = marks.to_vec();
        self.write(move |conn| marks::set_dispatched(conn, marks).boxed()).await
    }

    async fn undispatched(&self, after: Option<ConversationId>, scan: usize) -> Result<(Vec<Conversation>, Option<ConversationId>)> {
        self.read(move |conn| conversations::undispatched(conn, after, scan).boxed()).await
    }
}

#[async_trait]
impl PushJobs for Database {
    async fn add_push_jobs(&self, jobs: &[NewPushJob]) -> Result<usize> {
        let jobs = jobs.to_vec();
        self.write(move |conn| push::add(conn, jobs).boxed()).await
    }

    async fn claim_push_jobs(&self, now: Timestamp, lease: Duration, limit: usize) -> Result<Vec<PushJob>> {
        // Asked every second, mostly for nothing: only a reader is bothered then.
        if !self.read(move |conn| push::any_due(conn, now).boxed()).await? {
            return Ok(Vec::new());
        }
        self.write(move |conn| push::claim(conn, now, lease, limit).boxed()).await
    }

    async fn finish_push_jobs(&self, results: &[(PushJobId, PushOutcome, Option<Timestamp>)], at: Timestamp) -> Result<()> {
        let results = results.to_vec();
        self.write(move |conn| push::finish(conn, results, at).boxed()).await
    }

    async fn push_log(&self, user: UserId, limit: usize) -> Result<Vec<PushLogEntry>> {
        self.read(move |conn| push::log(conn, user, limit).boxed()).await
    }
}
