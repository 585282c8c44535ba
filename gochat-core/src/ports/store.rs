use async_trait::async_trait;

use crate::{
    error::Result,
    ids::{ConversationId, DeviceId, PushJobId, Seq, UserId},
    model::{
        Caller, Connected, Conversation, ConversationView, Credential, Device, Draft, GroupAction, JoinRequest, Listed, LoginAttempt, Mark, Member,
        Message, NewConversation, NewPushJob, NewSession, NewUser, ProfileChange, PushJob, PushLogEntry, PushOutcome, Readable, Refreshed, Rotation,
        User, UserStatus,
    },
    ports::Port,
    time::Timestamp,
};

/// Everything that is kept.
///
/// # What holds for every method
/// - **Atomic.** A write method is one transaction: whole or absent, and durable once it has answered `Ok`.
/// - **Aligned.** A method that takes a slice answers with one item per item, in the same order; one item's
///   refusal does not touch the others.
/// - **Absence** is `None` (or an empty vector); `NotFound` codes come only where the caller required the thing.
/// - **Ambiguity.** `UNAVAILABLE` from a write means that the outcome is unknown: repeat the same call.
///   `OVERLOADED` and `STORAGE_FULL` mean that nothing was stored.
/// - **Cancel safety.** A transaction runs in a task of the store: dropping the future never cuts it in half.
pub trait Store: Users + Devices + Conversations + Messages + PushJobs {}
impl<T: Users + Devices + Conversations + Messages + PushJobs + ?Sized> Store for T {}

/// Accounts.
#[async_trait]
pub trait Users: Port {
    /// Makes an account. `USERNAME_TAKEN` if the name is in use, `IDEMPOTENCY_CONFLICT` if the external id is.
    async fn create_user(&self, user: &NewUser) -> Result<User>;
    /// The accounts with these ids.
    async fn users(&self, ids: &[UserId]) -> Result<Vec<Option<User>>>;
    /// The account with this canonical user name.
    async fn user_by_name(&self, username: &str) -> Result<Option<User>>;
    /// The account of a host's own user id.
    async fn user_by_external_id(&self, external_id: &str) -> Result<Option<User>>;
    /// Accounts whose name begins with `prefix`, after the name `after`, ordered by name; at most `limit`.
    async fn users_by_prefix(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<User>>;
    /// Changes name or picture.
    async fn update_profile(&self, id: UserId, change: &ProfileChange) -> Result<User>;
    /// Enables or disables an account. Disabling raises the session epoch of all its devices and revokes their
    /// refresh tokens; answers with the devices that were signed in.
    async fn set_user_status(&self, id: UserId, status: UserStatus) -> Result<Vec<Caller>>;
    /// The password hash, where the account has one. Never cached.
    async fn credential(&self, id: UserId) -> Result<Option<Credential>>;
    /// Stores a new password hash. With `revoke_except`, signs out every device but the named one
    /// (`Some(None)`: all) and answers with them.
    async fn set_credential(&self, credential: &Credential, revoke_except: Option<Option<DeviceId>>) -> Result<Vec<Caller>>;
}

/// Devices, sessions and their refresh tokens.
#[async_trait]
pub trait Devices: Port {
    /// Records a login: device, session, refresh token and login log in one transaction. The device's session
    /// epoch stays, or rises by one if the device was signed out. Beyond
    /// [`DEVICES_MAX`](crate::limits::DEVICES_MAX) signed-in devices the ones seen longest ago are signed out;
    /// they are the second answer.
    async fn record_login(&self, session: &NewSession) -> Result<(Device, Vec<Caller>)>;
    /// Writes failed attempts to the login log.
    async fn record_failed_logins(&self, attempts: &[LoginAttempt]) -> Result<()>;
    /// The newest entries of a user's login log.
    async fn login_log(&self, user: UserId, limit: usize) -> Result<Vec<LoginAttempt>>;
    /// Exchanges a refresh token (see [`Rotation`]); atomic, so that racing presentations yield one successor.
    async fn rotate_refresh(&self, rotation: &Rotation) -> Result<Refreshed>;
    /// The devices of each of these users, signed in or not, newest first.
    async fn devices_of(&self, users: &[UserId]) -> Result<Vec<Vec<Device>>>;
    /// The devices with these keys.
    async fn devices(&self, keys: &[(UserId, DeviceId)]) -> Result<Vec<Option<Device>>>;
    /// Ends sessions: raises the session epoch, revokes the refresh tokens. Answers with the new epochs
    /// (`None`: there was no such signed-in device).
    async fn sign_out(&self, keys: &[(UserId, DeviceId)]) -> Result<Vec<Option<Caller>>>;
    /// Registers connections: checks on the row that the account is active and the session epoch current
    /// (`SESSION_REVOKED` otherwise) and raises the connection epoch. A device that was never signed in here
    /// (an external authenticator, epoch 0) is made.
    async fn connect(&self, callers: &[Caller], at: Timestamp) -> Result<Vec<Result<Connected>>>;
}

/// Conversations, their members and what is done to them.
#[async_trait]
pub trait Conversations: Port {
    /// Makes a conversation with its members and its first log entry (I13). Members must be active accounts
    /// (`USER_NOT_FOUND`). An existing 1:1 of the pair, or the creator's repeated key, answers with what is
    /// there (`existed`), unhidden for the creator; a repeated key for another request is `IDEMPOTENCY_CONFLICT`.
    async fn create_conversation(&self, new: &NewConversation) -> Result<Created>;
    /// The conversations with these ids, whoever asks: for dispatch and checks, never for answers to users.
    async fn conversations(&self, ids: &[ConversationId]) -> Result<Vec<Option<Conversation>>>;
    /// One conversation as `user` sees it; `None` for who never was a member.
    async fn conversation_view(&self, user: UserId, id: ConversationId) -> Result<Option<ConversationView>>;
    /// The conversations of a user, most recently active first, starting behind `before`
    /// (`active_at`, id); those that the user has left are not listed, a hidden 1:1 not while it is hidden.
    async fn conversations_of(&self, user: UserId, before: Option<(Timestamp, ConversationId)>, limit: usize) -> Result<Vec<ConversationView>>;
    /// The rows of [`conversations_of`](Self::conversations_of) without what has to be read from the log. Answered by the store
    /// itself: what is taken from copies is verified by it.
    async fn listed(&self, user: UserId, before: Option<(Timestamp, ConversationId)>, limit: usize) -> Result<Vec<Listed>>;
    /// For each of these conversations its head and the reader's intervals, both read in one statement; `None` for who never was
    /// a member. Answered by the store itself: every entry that was acknowledged before this call is at or below the head, and
    /// what a reader sees is decided on it.
    async fn readable(&self, reader: UserId, ids: &[ConversationId]) -> Result<Vec<Option<Readable>>>;
    /// The current members behind `after`, ordered by user id.
    async fn members(&self, id: ConversationId, after: Option<UserId>, limit: usize) -> Result<Vec<Member>>;
    /// Who sees the entry `seq`: the users with an interval that contains it, ordered by user id, behind `after`.
    async fn members_at(&self, id: ConversationId, seq: Seq, after: Option<UserId>, limit: usize) -> Result<Vec<UserId>>;
    /// The intervals of these users, oldest first.
    async fn memberships(&self, id: ConversationId, users: &[UserId]) -> Result<Vec<Vec<Member>>>;
    /// Does something to a group. Decided by [`rules::decide`](crate::rules::decide) on rows locked in this
    /// transaction; members, settings and the log entry change together or not at all. `event_id` becomes the
    /// id of the log entry.
    async fn manage(
        &self,
        id: ConversationId,
        actor: UserId,
        action: &GroupAction,
        event_id: crate::ids::MessageId,
        at: Timestamp,
    ) -> Result<Changed>;
    /// The group that a link's secret (its SHA-256) belongs to.
    async fn conversation_by_link(&self, link_hash: &[u8]) -> Result<Option<Conversation>>;
    /// Open requests to join, oldest first.
    async fn join_requests(&self, id: ConversationId, limit: usize) -> Result<Vec<JoinRequest>>;
    /// Sets the member's own choice not to be notified; `NOT_A_MEMBER` for who has left, `CONVERSATION_NOT_FOUND` for a stranger.
    async fn set_muted(&self, id: ConversationId, user: UserId, muted: bool) -> Result<Member>;
}

/// The log of every conversation, and how far its readers have got.
#[async_trait]
pub trait Messages: Port {
    /// Stores drafts. One transaction; conversations mixed; at most
    /// [`APPEND_DRAFTS_MAX`](crate::limits::APPEND_DRAFTS_MAX) drafts.
    ///
    /// # Promise
    /// Each new message has the next seq of its conversation, in the order of the drafts, without gaps. The
    /// permission to send is decided by [`rules::may_send`](crate::rules::may_send) on rows read in this
    /// transaction. A draft whose (client message id, conversation, sender) is stored already answers with the
    /// message stored first (`repeated`) if the payload hash is equal, else with `IDEMPOTENCY_CONFLICT`; also
    /// within one batch. `batch.dispatched` raises `dispatched_seq` of those conversations in the same
    /// transaction.
    ///
    /// # Errors
    /// Of an item: `CONVERSATION_NOT_FOUND`, `NOT_A_MEMBER`, `SILENCED`, `DISSOLVED`, `MESSAGE_NOT_FOUND` (an
    /// answer to something the sender cannot see), `IDEMPOTENCY_CONFLICT`. Of the call: see [`Store`].
    async fn append(&self, batch: &AppendBatch) -> Result<Vec<Result<Appended>>>;
    /// Entries of a conversation that `reader` can see: the newest `limit` below `before`, or the oldest
    /// `limit` above `after`; always in ascending order. `CONVERSATION_NOT_FOUND` for who never was a member.
    async fn history(&self, reader: UserId, id: ConversationId, after: Option<Seq>, before: Option<Seq>, limit: usize) -> Result<Vec<Message>>;
    /// Entries by exact seq, whoever asks: for dispatch, never for answers to users. `after` < seq <= `through`.
    async fn log(&self, id: ConversationId, after: Seq, through: Seq, limit: usize) -> Result<Vec<Message>>;
    /// Raises marks; never lowers one, never above the head or the member's last visible entry. Answers with
    /// the member and whether something rose.
    async fn mark(&self, marks: &[Mark]) -> Result<Vec<Result<(Member, bool)>>>;
    /// Raises `dispatched_seq`; may be delayed by up to a second and lost in a crash: dispatch repeats harmlessly.
    async fn set_dispatched(&self, marks: &[(ConversationId, Seq)]) -> Result<()>;
    /// Conversations behind `after` (ordered by id) with `dispatched_seq` below `head_seq`; looks at no more
    /// than `scan` rows and answers with the id to go on from, or `None` at the end.
    async fn undispatched(&self, after: Option<ConversationId>, scan: usize) -> Result<(Vec<Conversation>, Option<ConversationId>)>;
}

/// Push jobs: claimed by lease, never by `id > cursor`.
#[async_trait]
pub trait PushJobs: Port {
    /// Adds jobs; one that exists for (user, device, message) is left as it is. Answers with how many are new.
    async fn add_push_jobs(&self, jobs: &[NewPushJob]) -> Result<usize>;
    /// Takes up to `limit` jobs that are due and not leased, and leases them until `now + lease`.
    async fn claim_push_jobs(&self, now: Timestamp, lease: std::time::Duration, limit: usize) -> Result<Vec<PushJob>>;
    /// Ends jobs; [`PushOutcome::Failed`] with a time makes it due again then.
    async fn finish_push_jobs(&self, results: &[(PushJobId, PushOutcome, Option<Timestamp>)], at: Timestamp) -> Result<()>;
    /// The newest entries of the push log of a user.
    async fn push_log(&self, user: UserId, limit: usize) -> Result<Vec<PushLogEntry>>;
}

/// What [`Messages::append`] stores.
#[derive(Clone, Debug, Default)]
pub struct AppendBatch {
    /// The drafts, in the order in which they were accepted.
    pub drafts: Vec<Draft>,
    /// How far conversations have been dispatched; rides along.
    pub dispatched: Vec<(ConversationId, Seq)>,
}

/// A stored draft, with what dispatch needs to know of its conversation at that entry.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The message.
    pub message: Message,
    /// It was stored before, by an earlier try.
    pub repeated: bool,
    /// Members of the conversation when it was stored (now, for a repeated one).
    pub member_count: i32,
    /// Version of the member list: the last entry that changed it.
    pub members_seq: Seq,
    /// Up to this seq the conversation had been dispatched.
    pub dispatched_seq: Seq,
}

/// What [`Conversations::create_conversation`] made or found.
#[derive(Clone, Debug)]
pub struct Created {
    /// The conversation.
    pub conversation: Conversation,
    /// Its first entry, when it was made now.
    pub event: Option<Message>,
    /// It was there before.
    pub existed: bool,
}

/// What [`Conversations::manage`] changed.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The conversation afterwards.
    pub conversation: Conversation,
    /// The entry that tells of it, if something changed that members are told.
    pub event: Option<Message>,
}
