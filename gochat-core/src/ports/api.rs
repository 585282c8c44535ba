use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    ids::{ClientMsgId, ConversationId, DeviceId, GatewayId, Seq, UserId},
    model::{
        Body, Caller, Connected, Conversation, ConversationKind, ConversationView, Device, GroupAction, JoinMode, JoinRequest, LoginAttempt, Mark,
        Member, Message, ProfileChange, PushLogEntry, User, UserStatus,
    },
    ports::Port,
};

/// What the logic role does for gateways (the seed's LogicService): everything but sending, which goes over
/// the bus. Every method that serves a user takes its [`Caller`]; what a caller may not know of is `NotFound`.
pub trait LogicApi: AccountsApi + ConversationsApi + MessagesApi {}
impl<T: AccountsApi + ConversationsApi + MessagesApi + ?Sized> LogicApi for T {}

/// Accounts, sessions and devices (flow 1).
#[async_trait]
pub trait AccountsApi: Port {
    /// Makes an account.
    async fn register(&self, request: &RegisterRequest) -> Result<User>;
    /// Signs a device in. `LOGIN_FAILED` for unknown, wrong and disabled alike, at equal cost; `RATE_LIMITED`
    /// after several failures; `OVERLOADED` when the hashing pool's queue is full.
    async fn login(&self, request: &LoginRequest) -> Result<Session>;
    /// Exchanges a refresh token for a new pair. Shown a second time after the grace it ends the session.
    async fn refresh(&self, refresh_token: &str) -> Result<Session>;
    /// Ends the caller's own session.
    async fn logout(&self, caller: &Caller) -> Result<()>;
    /// Registers connections of devices, on the device's row (see [`Devices::connect`](crate::ports::Devices::connect)).
    async fn connect(&self, callers: &[Caller]) -> Result<Vec<Result<Connected>>>;
    /// The session epochs that are valid now: `None` for who is signed out, disabled or unknown.
    async fn sessions(&self, devices: &[(UserId, DeviceId)]) -> Result<Vec<Option<i64>>>;
    /// The caller's devices, newest first.
    async fn devices(&self, caller: &Caller) -> Result<Vec<Device>>;
    /// Signs one of the caller's devices out.
    async fn sign_out_device(&self, caller: &Caller, device: DeviceId) -> Result<()>;
    /// The newest entries of the caller's login log.
    async fn login_log(&self, caller: &Caller, limit: usize) -> Result<Vec<LoginAttempt>>;
    /// Users by id; absent ones are left out.
    async fn users(&self, caller: &Caller, ids: &[UserId]) -> Result<Vec<User>>;
    /// Finds users by exact name or id; by the beginning of the name where a setting allows it (decision 35).
    async fn find_users(&self, caller: &Caller, query: &str, limit: usize) -> Result<Vec<User>>;
    /// Changes the caller's profile.
    async fn update_profile(&self, caller: &Caller, change: &ProfileChange) -> Result<User>;
    /// Changes the password; every other device is signed out.
    async fn change_password(&self, caller: &Caller, current: &str, new: &str) -> Result<()>;
    /// For operators: accounts by name, behind `after`.
    async fn list_users(&self, after: Option<&str>, limit: usize) -> Result<Vec<User>>;
    /// For operators: enables or disables an account; a disabled one is out everywhere within 2 s.
    async fn set_user_status(&self, username: &str, status: UserStatus) -> Result<()>;
    /// For operators: sets a password; every device is signed out.
    async fn reset_password(&self, username: &str, new: &str) -> Result<()>;
}

/// Conversations and groups (flows 5 and 6).
#[async_trait]
pub trait ConversationsApi: Port {
    /// Makes a conversation with its first members; the second answer is `true` if it was there before.
    async fn create(&self, caller: &Caller, request: &CreateConversation) -> Result<(ConversationView, bool)>;
    /// The caller's conversations, most recently active first.
    async fn list(&self, caller: &Caller, cursor: Option<&str>, limit: usize) -> Result<Page<ConversationView>>;
    /// One conversation.
    async fn conversation(&self, caller: &Caller, id: ConversationId) -> Result<ConversationView>;
    /// Current members, in the order of their ids.
    async fn members(&self, caller: &Caller, id: ConversationId, cursor: Option<&str>, limit: usize) -> Result<Page<Member>>;
    /// Does something to a group (or leaves a 1:1).
    async fn manage(&self, caller: &Caller, id: ConversationId, action: &GroupAction) -> Result<Conversation>;
    /// Makes a new invitation link; answers with its secret, which is shown this once.
    async fn new_link(&self, caller: &Caller, id: ConversationId) -> Result<String>;
    /// Joins the group that a link belongs to.
    async fn join_by_link(&self, caller: &Caller, secret: &str) -> Result<Conversation>;
    /// Open requests to join; for admins.
    async fn join_requests(&self, caller: &Caller, id: ConversationId) -> Result<Vec<JoinRequest>>;
    /// Sets the caller's own choice not to be notified.
    async fn set_muted(&self, caller: &Caller, id: ConversationId, muted: bool) -> Result<Member>;
}

/// Reading (flows 2 to 4).
#[async_trait]
pub trait MessagesApi: Port {
    /// A page of history.
    async fn history(&self, caller: &Caller, query: &HistoryQuery) -> Result<HistoryPage>;
    /// What the caller is missing of many conversations.
    async fn sync(&self, caller: &Caller, request: &SyncRequest) -> Result<SyncAnswer>;
    /// Raises the caller's marks and tells the other members; `mark.user` must be the caller.
    async fn mark(&self, caller: &Caller, marks: &[Mark]) -> Result<Vec<Result<Member>>>;
    /// The newest entries of the caller's push log.
    async fn push_log(&self, caller: &Caller, limit: usize) -> Result<Vec<PushLogEntry>>;
}

/// A new account.
#[derive(Clone, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// Wanted user name.
    pub username: String,
    /// Password in clear; never logged.
    pub password: String,
    /// What others see; the user name if absent.
    #[serde(default)]
    pub display_name: Option<String>,
}

/// A login.
#[derive(Clone, Serialize, Deserialize)]
pub struct LoginRequest {
    /// User name.
    pub username: String,
    /// Password in clear; never logged.
    pub password: String,
    /// The device, if it has an id already; else the server makes one.
    #[serde(default)]
    pub device_id: Option<DeviceId>,
    /// What to call the device.
    #[serde(default)]
    pub device_name: Option<String>,
    /// Address of the client, set by the gateway.
    #[serde(skip)]
    pub address: String,
}

macro_rules! without_password {
    ($($name:ident)*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).field("username", &self.username).field("password", &"***").finish_non_exhaustive()
            }
        }
    )*};
}
without_password!(RegisterRequest LoginRequest);

/// A sign-in as its device gets it.
#[derive(Clone, Serialize)]
pub struct Session {
    /// Bearer token (JWT) for requests and connections.
    pub access_token: String,
    /// Its life in seconds.
    pub expires_in: u64,
    /// Opaque token for the next pair; each is good for one use.
    pub refresh_token: String,
    /// The account.
    pub user: User,
    /// The device that is signed in.
    pub device_id: DeviceId,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("user", &self.user.id).field("device_id", &self.device_id).finish_non_exhaustive()
    }
}

/// A message to be sent, as a gateway takes it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendRequest {
    /// Where.
    pub conversation: ConversationId,
    /// Its id as the sender names it.
    pub client_msg_id: ClientMsgId,
    /// Kind and content.
    pub body: Body,
    /// The entry that it answers.
    pub reply_to: Option<Seq>,
}

/// Where the answer to a send goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The gateway that took it in.
    pub gateway: GatewayId,
    /// Connection, or waiting HTTP request, within the gateway.
    pub connection: u64,
    /// The sender's own number of the request.
    pub request: u64,
    /// The sending device.
    pub device: DeviceId,
}

/// A conversation to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateConversation {
    /// 1:1 or group.
    pub kind: ConversationKind,
    /// The other members.
    pub participants: Vec<UserId>,
    /// Name of a group.
    #[serde(default)]
    pub name: String,
    /// What the group is about.
    #[serde(default)]
    pub description: String,
    /// Picture.
    #[serde(default)]
    pub avatar_url: Option<String>,
    /// How one becomes a member.
    #[serde(default)]
    pub join_mode: JoinMode,
    /// Members that the group may have.
    #[serde(default)]
    pub max_members: Option<i32>,
    /// From the `Idempotency-Key` header.
    #[serde(skip)]
    pub idempotency_key: Option<String>,
}

/// Part of a longer list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; absent at the end.
    pub next_cursor: Option<String>,
}

/// Which part of a conversation's log. Neither bound: the newest entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Where.
    pub conversation: ConversationId,
    /// The oldest entries above this seq.
    pub after: Option<Seq>,
    /// The newest entries below this seq.
    pub before: Option<Seq>,
    /// At most so many.
    pub limit: usize,
}

/// A page of history, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// The entries.
    pub messages: Vec<Message>,
    /// Whether there are more that the caller can see in the direction that was asked for.
    pub more: bool,
}

/// What a device has, to learn what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRequest {
    /// For each conversation the highest seq that the device has; conversations that it has never seen are
    /// found through the list. At most [`SYNC_CONVERSATIONS_MAX`](crate::limits::SYNC_CONVERSATIONS_MAX).
    pub have: Vec<(ConversationId, Seq)>,
    /// Entries of one conversation at most.
    pub limit: usize,
}

/// What a device lacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncAnswer {
    /// One item for each conversation that was asked for; one that the caller cannot see has no entries and
    /// `head_seq` 0.
    pub conversations: Vec<SyncedConversation>,
}

/// One conversation's part of a sync answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncedConversation {
    /// Which.
    pub id: ConversationId,
    /// The newest entry that the caller can see.
    pub head_seq: Seq,
    /// The caller's read mark.
    pub read_seq: Seq,
    /// The entries above what the device had, ascending.
    pub messages: Vec<Message>,
    /// Whether there are more: ask again from the last one.
    pub more: bool,
}
