//! A store with a cache in front.
//!
//! ```text
//! read:  cache ─► what is missing from the store ─► kept with its version
//! write: store ─► commit ─► CacheUpdater: kept if newer, else forgotten ─► answer
//! ```
//!
//! | key | what is kept | why it may be believed |
//! |---|---|---|
//! | `user:{id}` | a user | its writer replaces or forgets it before it answers; it shows names, it decides nothing |
//! | `conversation:{id}`, `group:{id}` | the row | the same; whoever needs the head asks [`Conversations::readable`] |
//! | `message:{id}` | the newest entries ([`pages`]) | the store says in the same call that their last one is the head |
//! | `user_conversations:{id}` | what a list reads from the logs ([`lists`]) | the store lists the rows in the same call; what is kept belongs to the very head and read mark that they show |
//!
//! The last two are kept only [`with_pages`](CachedStore::with_pages): before a database over the network they save the larger
//! statements; before SQLite in the same process they would cost more than they save. Neither is written or forgotten when a
//! message is stored: entries do not change, so that a new head makes them unused, and the next reader replaces them. A message
//! costs the cache nothing per recipient.
//!
//! Whatever decides, [`Store`] decides in its own transaction: no copy takes part (I14). Who sees what is decided on intervals
//! that the store reads in this very call. Credentials, sessions and members are never kept.
//!
//! Invariant: when a write has answered, no copy older than it is found any more; and what a reader must not miss does not rest
//! on that: heads, rows of lists and intervals come from the store.

mod lists;
mod pages;

use std::{mem, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{ErrorKind, Result},
    ids::{ConversationId, DeviceId, MessageId, PushJobId, Seq, UserId},
    model::{
        Caller, Connected, Conversation, ConversationKind, ConversationView, Credential, Device, GroupAction, JoinRequest, Listed, LoginAttempt,
        Mark, Member, Message, NewConversation, NewPushJob, NewSession, NewUser, ProfileChange, PushJob, PushLogEntry, PushOutcome, Readable,
        Refreshed, Rotation, User, UserStatus,
    },
    ports::{AppendBatch, Appended, Cache, CacheKey, Changed, Conversations, Created, Devices, Messages, PushJobs, Store, Users},
    time::Timestamp,
};

/// How long a copy may be used: the bound for whatever changes the store behind this decorator's back.
const TTL: Duration = Duration::from_secs(60);

/// A [`Store`] that keeps copies in a [`Cache`].
#[derive(Clone, Debug)]
pub struct CachedStore {
    store: Arc<dyn Store>,
    updater: CacheUpdater,
    pages: bool,
}

impl CachedStore {
    /// Puts `cache` in front of `store`.
    pub fn new(store: Arc<dyn Store>, cache: Arc<dyn Cache>) -> Self {
        CachedStore { store, updater: CacheUpdater { cache }, pages: false }
    }

    /// Keeps pages of messages and what lists read from them, too: for a store that is reached over the network.
    #[must_use]
    pub fn with_pages(self) -> Self {
        CachedStore { pages: true, ..self }
    }

    /// Runs a write that changes these values. If its outcome stays unknown, because it failed on its way or its caller went
    /// away, no copy of them is believed.
    async fn write<T>(&self, keys: Vec<CacheKey>, write: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let mut begun = Begun { updater: &self.updater, keys };
        let outcome = write.await;
        let keys = mem::take(&mut begun.keys);
        if let Err(error) = &outcome
            && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Internal)
        {
            self.updater.forget(&keys).await;
        }
        outcome
    }
}

/// Brings copies up to date behind a commit: a newer value takes the place of an older one, and where the new value is not at
/// hand the old one is forgotten. Values carry versions, so whoever comes late with an old one loses.
#[derive(Clone, Debug)]
pub struct CacheUpdater {
    cache: Arc<dyn Cache>,
}

impl CacheUpdater {
    /// A user has changed: this value takes the place of every older one.
    pub async fn user_changed(&self, user: &User) {
        self.cache.invalidate(&[(CacheKey::User(user.id), user.version)]).await;
        self.users(std::slice::from_ref(user)).await;
    }

    /// Keeps users as they were read.
    pub async fn users(&self, users: &[User]) {
        let entries: Vec<_> = users.iter().filter_map(|user| Some((CacheKey::User(user.id), user.version, encode(user)?))).collect();
        self.set(&entries).await;
    }

    /// Keeps the rows of conversations as they were read: those whose members have been told of every entry. The others are about
    /// to change, and in a way (`dispatched_seq`) that does not show in their version.
    pub async fn conversations(&self, conversations: &[Conversation]) {
        let told = conversations.iter().filter(|conversation| conversation.dispatched_seq == conversation.head_seq);
        let entries: Vec<_> = told.filter_map(|conversation| Some((key_of(conversation), version(conversation), encode(conversation)?))).collect();
        self.set(&entries).await;
    }

    /// Conversations have changed: what is older than this head and version is forgotten.
    pub async fn conversations_changed(&self, heads: &[(ConversationId, i64)]) {
        let entries: Vec<_> = heads.iter().flat_map(|(id, version)| keys_of(*id).map(|key| (key, *version))).collect();
        if !entries.is_empty() {
            self.cache.invalidate(&entries).await;
        }
    }

    /// Forgets values whatever their version, and takes none of them for a while.
    pub async fn forget(&self, keys: &[CacheKey]) {
        if !keys.is_empty() {
            self.cache.invalidate(&keys.iter().map(|key| (*key, i64::MAX)).collect::<Vec<_>>()).await;
        }
    }

    async fn set(&self, entries: &[(CacheKey, i64, Bytes)]) {
        if !entries.is_empty() {
            self.cache.set(entries, TTL).await;
        }
    }

    async fn get<T: DeserializeOwned>(&self, keys: &[CacheKey]) -> Vec<Option<T>> {
        let found = self.cache.get(keys).await;
        // What cannot be read is of another version of the program: a miss.
        found.into_iter().map(|value| value.and_then(|(_, bytes)| serde_json::from_slice(&bytes).ok())).collect()
    }
}

/// A write on its way.
struct Begun<'a> {
    updater: &'a CacheUpdater,
    keys: Vec<CacheKey>,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        // The caller went away in the middle; the store goes on with its transaction all the same.
        if !self.keys.is_empty()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (updater, keys) = (self.updater.clone(), mem::take(&mut self.keys));
            runtime.spawn(async move { updater.forget(&keys).await });
        }
    }
}

fn encode(value: &impl Serialize) -> Option<Bytes> {
    serde_json::to_vec(value).ok().map(Bytes::from)
}

fn key_of(conversation: &Conversation) -> CacheKey {
    match conversation.kind {
        ConversationKind::Single => CacheKey::Conversation(conversation.id),
        ConversationKind::Group => CacheKey::Group(conversation.id),
    }
}

/// Who has only the id cannot know the kind: one of the two is never there.
fn keys_of(id: ConversationId) -> [CacheKey; 2] {
    [CacheKey::Conversation(id), CacheKey::Group(id)]
}

/// Grows with every change of a row that is kept: an entry raises the head, a change without an entry the row's own version.
fn version(conversation: &Conversation) -> i64 {
    at_head(conversation.head_seq) + conversation.version.clamp(0, VERSIONS_PER_HEAD - 1)
}

/// Not above the version of any row with this head, above all with a lower one.
fn at_head(head: Seq) -> i64 {
    head.0.saturating_mul(VERSIONS_PER_HEAD)
}

/// Heads count to 2^39 then, which no conversation reaches.
const VERSIONS_PER_HEAD: i64 = 1 << 24;

#[async_trait]
impl Users for CachedStore {
    async fn create_user(&self, user: &NewUser) -> Result<User> {
        let user = self.store.create_user(user).await?;
        self.updater.user_changed(&user).await;
        Ok(user)
    }

    async fn users(&self, ids: &[UserId]) -> Result<Vec<Option<User>>> {
        let keys: Vec<CacheKey> = ids.iter().map(|id| CacheKey::User(*id)).collect();
        let mut users: Vec<Option<User>> = self.updater.get(&keys).await;
        let missing: Vec<usize> = (0..ids.len()).filter(|&index| users[index].is_none()).collect();
        if !missing.is_empty() {
            let found = self.store.users(&missing.iter().map(|&index| ids[index]).collect::<Vec<_>>()).await?;
            self.updater.users(&found.iter().flatten().cloned().collect::<Vec<_>>()).await;
            for (index, user) in missing.into_iter().zip(found) {
                users[index] = user;
            }
        }
        Ok(users)
    }

    async fn user_by_name(&self, username: &str) -> Result<Option<User>> {
        self.store.user_by_name(username).await
    }

    async fn user_by_external_id(&self, external_id: &str) -> Result<Option<User>> {
        self.store.user_by_external_id(external_id).await
    }

    async fn users_by_prefix(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<User>> {
        self.store.users_by_prefix(prefix, after, limit).await
    }

    async fn update_profile(&self, id: UserId, change: &ProfileChange) -> Result<User> {
        let user = self.write(vec![CacheKey::User(id)], self.store.update_profile(id, change)).await?;
        self.updater.user_changed(&user).await;
        Ok(user)
    }

    async fn set_user_status(&self, id: UserId, status: UserStatus) -> Result<Vec<Caller>> {
        let ended = self.write(vec![CacheKey::User(id)], self.store.set_user_status(id, status)).await?;
        self.updater.forget(&[CacheKey::User(id)]).await;
        Ok(ended)
    }

    async fn credential(&self, id: UserId) -> Result<Option<Credential>> {
        self.store.credential(id).await
    }

    async fn set_credential(&self, credential: &Credential, revoke_except: Option<Option<DeviceId>>) -> Result<Vec<Caller>> {
        self.store.set_credential(credential, revoke_except).await
    }
}

#[async_trait]
impl Devices for CachedStore {
    async fn record_login(&self, session: &NewSession) -> Result<(Device, Vec<Caller>)> {
        self.store.record_login(session).await
    }

    async fn record_failed_logins(&self, attempts: &[LoginAttempt]) -> Result<()> {
        self.store.record_failed_logins(attempts).await
    }

    async fn login_log(&self, user: UserId, limit: usize) -> Result<Vec<LoginAttempt>> {
        self.store.login_log(user, limit).await
    }

    async fn rotate_refresh(&self, rotation: &Rotation) -> Result<Refreshed> {
        self.store.rotate_refresh(rotation).await
    }

    async fn devices_of(&self, users: &[UserId]) -> Result<Vec<Vec<Device>>> {
        self.store.devices_of(users).await
    }

    async fn devices(&self, keys: &[(UserId, DeviceId)]) -> Result<Vec<Option<Device>>> {
        self.store.devices(keys).await
    }

    async fn sign_out(&self, keys: &[(UserId, DeviceId)]) -> Result<Vec<Option<Caller>>> {
        self.store.sign_out(keys).await
    }

    async fn connect(&self, callers: &[Caller], at: Timestamp) -> Result<Vec<Result<Connected>>> {
        self.store.connect(callers, at).await
    }
}

#[async_trait]
impl Conversations for CachedStore {
    async fn create_conversation(&self, new: &NewConversation) -> Result<Created> {
        self.store.create_conversation(new).await
    }

    async fn conversations(&self, ids: &[ConversationId]) -> Result<Vec<Option<Conversation>>> {
        let keys: Vec<CacheKey> = ids.iter().flat_map(|id| keys_of(*id)).collect();
        let mut copies = self.updater.get(&keys).await.into_iter();
        let mut conversations: Vec<Option<Conversation>> = ids.iter().map(|_| copies.next().flatten().or(copies.next().flatten())).collect();
        let missing: Vec<usize> = (0..ids.len()).filter(|&index| conversations[index].is_none()).collect();
        if !missing.is_empty() {
            let found = self.store.conversations(&missing.iter().map(|&index| ids[index]).collect::<Vec<_>>()).await?;
            self.updater.conversations(&found.iter().flatten().cloned().collect::<Vec<_>>()).await;
            for (index, conversation) in missing.into_iter().zip(found) {
                conversations[index] = conversation;
            }
        }
        Ok(conversations)
    }

    async fn conversation_view(&self, user: UserId, id: ConversationId) -> Result<Option<ConversationView>> {
        self.store.conversation_view(user, id).await
    }

    async fn conversations_of(&self, user: UserId, before: Option<(Timestamp, ConversationId)>, limit: usize) -> Result<Vec<ConversationView>> {
        if self.pages && before.is_none() {
            return lists::newest(self, user, limit).await;
        }
        self.store.conversations_of(user, before, limit).await
    }

    async fn listed(&self, user: UserId, before: Option<(Timestamp, ConversationId)>, limit: usize) -> Result<Vec<Listed>> {
        self.store.listed(user, before, limit).await
    }

    async fn readable(&self, reader: UserId, ids: &[ConversationId]) -> Result<Vec<Option<Readable>>> {
        self.store.readable(reader, ids).await
    }

    async fn members(&self, id: ConversationId, after: Option<UserId>, limit: usize) -> Result<Vec<Member>> {
        self.store.members(id, after, limit).await
    }

    async fn members_at(&self, id: ConversationId, seq: Seq, after: Option<UserId>, limit: usize) -> Result<Vec<UserId>> {
        self.store.members_at(id, seq, after, limit).await
    }

    async fn memberships(&self, id: ConversationId, users: &[UserId]) -> Result<Vec<Vec<Member>>> {
        self.store.memberships(id, users).await
    }

    async fn manage(&self, id: ConversationId, actor: UserId, action: &GroupAction, event_id: MessageId, at: Timestamp) -> Result<Changed> {
        let changed = self.write(keys_of(id).to_vec(), self.store.manage(id, actor, action, event_id, at)).await?;
        self.updater.conversations_changed(&[(id, version(&changed.conversation))]).await;
        Ok(changed)
    }

    async fn conversation_by_link(&self, link_hash: &[u8]) -> Result<Option<Conversation>> {
        self.store.conversation_by_link(link_hash).await
    }

    async fn join_requests(&self, id: ConversationId, limit: usize) -> Result<Vec<JoinRequest>> {
        self.store.join_requests(id, limit).await
    }

    async fn set_muted(&self, id: ConversationId, user: UserId, muted: bool) -> Result<Member> {
        self.store.set_muted(id, user, muted).await
    }
}

#[async_trait]
impl Messages for CachedStore {
    async fn append(&self, batch: &AppendBatch) -> Result<Vec<Result<Appended>>> {
        let mut ids: Vec<ConversationId> = batch.drafts.iter().map(|draft| draft.conversation).collect();
        ids.sort_unstable();
        ids.dedup();
        let keys = ids.iter().flat_map(|id| keys_of(*id)).collect();
        let outcomes = self.write(keys, self.store.append(batch)).await?;
        let mut heads: Vec<(ConversationId, i64)> = outcomes
            .iter()
            .flatten()
            .filter(|appended| !appended.repeated)
            .map(|appended| (appended.message.conversation, at_head(appended.message.seq)))
            .collect();
        // The highest of each conversation.
        heads.sort_unstable_by(|a, b| b.cmp(a));
        heads.dedup_by_key(|(id, _)| *id);
        self.updater.conversations_changed(&heads).await;
        Ok(outcomes)
    }

    async fn history(&self, reader: UserId, id: ConversationId, after: Option<Seq>, before: Option<Seq>, limit: usize) -> Result<Vec<Message>> {
        if self.pages {
            return pages::history(self, reader, id, after, before, limit).await;
        }
        self.store.history(reader, id, after, before, limit).await
    }

    async fn log(&self, id: ConversationId, after: Seq, through: Seq, limit: usize) -> Result<Vec<Message>> {
        self.store.log(id, after, through, limit).await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<Vec<Result<(Member, bool)>>> {
        self.store.mark(marks).await
    }

    async fn set_dispatched(&self, marks: &[(ConversationId, Seq)]) -> Result<()> {
        self.store.set_dispatched(marks).await
    }

    async fn undispatched(&self, after: Option<ConversationId>, scan: usize) -> Result<(Vec<Conversation>, Option<ConversationId>)> {
        self.store.undispatched(after, scan).await
    }
}

#[async_trait]
impl PushJobs for CachedStore {
    async fn add_push_jobs(&self, jobs: &[NewPushJob]) -> Result<usize> {
        self.store.add_push_jobs(jobs).await
    }

    async fn claim_push_jobs(&self, now: Timestamp, lease: Duration, limit: usize) -> Result<Vec<PushJob>> {
        self.store.claim_push_jobs(now, lease, limit).await
    }

    async fn finish_push_jobs(&self, results: &[(PushJobId, PushOutcome, Option<Timestamp>)], at: Timestamp) -> Result<()> {
        self.store.finish_push_jobs(results, at).await
    }

    async fn push_log(&self, user: UserId, limit: usize) -> Result<Vec<PushLogEntry>> {
        self.store.push_log(user, limit).await
    }
}
