//! A logic role that answers with fixed values, or with the refusal that a test asks for.

use std::{fmt::Debug, sync::Mutex};

use gochat_core::{
    async_trait,
    error::{Code, Error, Result},
    ids::{ClientMsgId, ConversationId, DeviceId, MessageId, Seq, UserId},
    model::{
        Body, Caller, Connected, Conversation, ConversationKind, ConversationView, Device, GroupAction, JoinMode, JoinRequest, LoginAttempt,
        LoginOutcome, Mark, Member, Message, MessageKind, ProfileChange, PushLogEntry, PushOutcome, Role, User, UserStatus,
    },
    ports::{
        AccountsApi, Authenticator, ConversationsApi, CreateConversation, Credentials, HistoryPage, HistoryQuery, Identity, LoginRequest,
        MessagesApi, Page, RegisterRequest, SendRequest, Session, Stored, SyncAnswer, SyncRequest, SyncedConversation,
    },
    time::Timestamp,
};

use super::super::MessageSender;

pub const ANA: UserId = UserId::from_bytes([0xaa; 16]);
pub const BO: UserId = UserId::from_bytes([0xbb; 16]);
pub const PHONE: DeviceId = DeviceId::from_bytes([0xdd; 16]);
pub const CHAT: ConversationId = ConversationId::from_bytes([0xcc; 16]);
const AT: Timestamp = Timestamp(1_800_000_000_000);

#[derive(Debug, Default)]
pub struct Fake {
    /// The calls, as text.
    pub calls: Mutex<Vec<String>>,
    /// What every call is refused with.
    pub refusal: Mutex<Option<Code>>,
    /// What a call does before it answers.
    pub trouble: Mutex<Option<Trouble>>,
}

#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    Hangs,
    Panics,
}

impl Fake {
    async fn call(&self, what: impl Debug) -> Result<()> {
        self.calls.lock().unwrap().push(format!("{what:?}"));
        let trouble = *self.trouble.lock().unwrap();
        match trouble {
            Some(Trouble::Hangs) => std::future::pending().await,
            Some(Trouble::Panics) => panic!("asked for by the test"),
            None => {}
        }
        let refusal = *self.refusal.lock().unwrap();
        match refusal {
            Some(code) => Err(Error::from(code).with_source("a technical cause")),
            None => Ok(()),
        }
    }

    /// The last call.
    pub fn called(&self) -> String {
        self.calls.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

pub fn user() -> User {
    User {
        id: ANA,
        username: "ana".into(),
        display_name: "Ana".into(),
        avatar_url: None,
        status: UserStatus::Active,
        external_id: Some("a host's own id".into()),
        version: 3,
        created_at: AT,
    }
}

fn session() -> Session {
    Session { access_token: "access".into(), expires_in: 7200, refresh_token: "refresh".into(), user: user(), device_id: PHONE }
}

fn conversation(kind: ConversationKind) -> Conversation {
    Conversation {
        id: CHAT,
        kind,
        name: "Lunch".into(),
        description: String::new(),
        avatar_url: Some("/pictures/1".into()),
        owner: (kind == ConversationKind::Group).then_some(ANA),
        join_mode: JoinMode::Invite,
        max_members: 500,
        member_count: 2,
        head_seq: Seq(2),
        dispatched_seq: Seq(1),
        members_seq: Seq(1),
        dissolved: false,
        version: 1,
        created_at: AT,
        active_at: AT,
    }
}

fn member() -> Member {
    Member {
        conversation: CHAT,
        user: ANA,
        role: Role::Owner,
        join_seq: Seq(1),
        leave_seq: None,
        read_seq: Seq(1),
        delivered_seq: Seq(2),
        muted: true,
        silenced_until: None,
        hidden_seq: Seq(0),
    }
}

fn message(kind: MessageKind, content: &str) -> Message {
    Message {
        conversation: CHAT,
        seq: Seq(2),
        id: MessageId::from_bytes([1; 16]),
        sender: BO,
        client_msg_id: ClientMsgId::from_bytes([2; 16]),
        body: Body { kind, content: content.into() },
        reply_to: Some(Seq(1)),
        created_at: AT,
    }
}

fn messages() -> Vec<Message> {
    vec![
        message(MessageKind::Event, r#"{"type":"created","users":[]}"#),
        message(MessageKind::Text, "Hello"),
        message(MessageKind::Location, r#"{"latitude":1.5,"longitude":2}"#),
    ]
}

fn view(kind: ConversationKind) -> ConversationView {
    ConversationView {
        conversation: conversation(kind),
        member: member(),
        peer: (kind == ConversationKind::Single).then_some(BO),
        last_message: messages().pop(),
        unread: 1,
        peer_delivered_seq: Seq(2),
        peer_read_seq: Seq(1),
    }
}

#[async_trait]
impl Authenticator for Fake {
    async fn verify(&self, credentials: &Credentials) -> Result<Identity> {
        match credentials.token.as_str() {
            "expired" => Err(Code::TokenExpired.into()),
            "good" | "revoked" => {
                let session_epoch = i64::from(credentials.token == "good");
                Ok(Identity { caller: Caller { user: ANA, device: PHONE, session_epoch }, expires_at: AT })
            }
            _ => Err(Code::Unauthenticated.into()),
        }
    }

    async fn check(&self, caller: &Caller) -> Result<()> {
        if caller.session_epoch == 1 { Ok(()) } else { Err(Code::SessionRevoked.into()) }
    }

    fn revoked(&self, _: &Caller) {}
}

#[async_trait]
impl MessageSender for Fake {
    async fn send(&self, caller: &Caller, request: SendRequest) -> Result<Stored> {
        self.call(("send", caller.user, &request)).await?;
        Ok(Stored { conversation: request.conversation, seq: Seq(3), message: MessageId::from_bytes([3; 16]), created_at: AT })
    }
}

#[async_trait]
impl AccountsApi for Fake {
    async fn register(&self, request: &RegisterRequest) -> Result<User> {
        self.call(("register", &request.username, &request.display_name)).await?;
        Ok(user())
    }

    async fn login(&self, request: &LoginRequest) -> Result<Session> {
        self.call(("login", &request.username, &request.device_name, &request.address)).await?;
        Ok(session())
    }

    async fn refresh(&self, refresh_token: &str) -> Result<Session> {
        self.call(("refresh", refresh_token)).await?;
        Ok(session())
    }

    async fn logout(&self, caller: &Caller) -> Result<()> {
        self.call(("logout", caller.device)).await
    }

    async fn connect(&self, _: &[Caller]) -> Result<Vec<Result<Connected>>> {
        panic!("HTTP does not connect")
    }

    async fn sessions(&self, _: &[(UserId, DeviceId)]) -> Result<Vec<Option<i64>>> {
        panic!("asked by the authenticator only")
    }

    async fn devices(&self, caller: &Caller) -> Result<Vec<Device>> {
        self.call(("devices", caller.user)).await?;
        let device = |id| Device {
            user: ANA,
            id,
            name: "Phone".into(),
            session_epoch: 1,
            connection_epoch: 9,
            signed_in: true,
            last_seen_at: AT,
            created_at: AT,
        };
        Ok(vec![device(PHONE), device(DeviceId::from_bytes([0xde; 16]))])
    }

    async fn sign_out_device(&self, _: &Caller, device: DeviceId) -> Result<()> {
        self.call(("sign_out_device", device)).await
    }

    async fn login_log(&self, caller: &Caller, limit: usize) -> Result<Vec<LoginAttempt>> {
        self.call(("login_log", limit)).await?;
        let attempt =
            |outcome, device| LoginAttempt { user: Some(caller.user), username: "ana".into(), device, outcome, address: "192.0.2.1".into(), at: AT };
        Ok(vec![attempt(LoginOutcome::Success, Some(PHONE)), attempt(LoginOutcome::WrongPassword, None)])
    }

    async fn users(&self, _: &Caller, ids: &[UserId]) -> Result<Vec<User>> {
        self.call(("users", ids)).await?;
        Ok(ids.iter().filter(|id| **id == ANA).map(|_| user()).collect())
    }

    async fn find_users(&self, _: &Caller, query: &str, limit: usize) -> Result<Vec<User>> {
        self.call(("find_users", query, limit)).await?;
        Ok(vec![user()])
    }

    async fn update_profile(&self, _: &Caller, change: &ProfileChange) -> Result<User> {
        self.call(("update_profile", change)).await?;
        Ok(user())
    }

    async fn change_password(&self, _: &Caller, current: &str, new: &str) -> Result<()> {
        self.call(("change_password", current.len(), new.len())).await
    }

    async fn list_users(&self, _: Option<&str>, _: usize) -> Result<Vec<User>> {
        panic!("for operators")
    }

    async fn set_user_status(&self, _: &str, _: UserStatus) -> Result<()> {
        panic!("for operators")
    }

    async fn reset_password(&self, _: &str, _: &str) -> Result<()> {
        panic!("for operators")
    }
}

#[async_trait]
impl ConversationsApi for Fake {
    async fn create(&self, _: &Caller, request: &CreateConversation) -> Result<(ConversationView, bool)> {
        self.call(("create", request)).await?;
        Ok((view(request.kind), request.idempotency_key.as_deref() == Some("used")))
    }

    async fn list(&self, _: &Caller, cursor: Option<&str>, limit: usize) -> Result<Page<ConversationView>> {
        self.call(("list", cursor, limit)).await?;
        Ok(Page { items: vec![view(ConversationKind::Group), view(ConversationKind::Single)], next_cursor: Some("next".into()) })
    }

    async fn conversation(&self, _: &Caller, id: ConversationId) -> Result<ConversationView> {
        if self.calls.lock().unwrap().last().is_none_or(|call| !call.contains("manage")) {
            self.call(("conversation", id)).await?;
        }
        Ok(view(ConversationKind::Group))
    }

    async fn members(&self, _: &Caller, id: ConversationId, cursor: Option<&str>, limit: usize) -> Result<Page<Member>> {
        self.call(("members", id, cursor, limit)).await?;
        Ok(Page { items: vec![member()], next_cursor: None })
    }

    async fn manage(&self, _: &Caller, id: ConversationId, action: &GroupAction) -> Result<Conversation> {
        self.call(("manage", id, action)).await?;
        Ok(conversation(ConversationKind::Group))
    }

    async fn new_link(&self, _: &Caller, id: ConversationId) -> Result<String> {
        self.call(("new_link", id)).await?;
        Ok("secret".into())
    }

    async fn join_by_link(&self, _: &Caller, secret: &str) -> Result<Conversation> {
        self.call(("join_by_link", secret)).await?;
        Ok(conversation(ConversationKind::Group))
    }

    async fn join_requests(&self, _: &Caller, id: ConversationId) -> Result<Vec<JoinRequest>> {
        self.call(("join_requests", id)).await?;
        Ok(vec![JoinRequest { conversation_id: id, user_id: BO, created_at: AT }])
    }

    async fn set_muted(&self, _: &Caller, id: ConversationId, muted: bool) -> Result<Member> {
        self.call(("set_muted", id, muted)).await?;
        Ok(member())
    }
}

#[async_trait]
impl MessagesApi for Fake {
    async fn history(&self, _: &Caller, query: &HistoryQuery) -> Result<HistoryPage> {
        self.call(("history", query)).await?;
        Ok(HistoryPage { messages: messages(), more: true })
    }

    async fn sync(&self, _: &Caller, request: &SyncRequest) -> Result<SyncAnswer> {
        self.call(("sync", request)).await?;
        let synced = SyncedConversation { id: CHAT, head_seq: Seq(2), read_seq: Seq(1), messages: messages(), more: false };
        Ok(SyncAnswer { conversations: vec![synced] })
    }

    async fn mark(&self, _: &Caller, marks: &[Mark]) -> Result<Vec<Result<Member>>> {
        self.call(("mark", marks)).await?;
        Ok(marks.iter().map(|_| Ok(member())).collect())
    }

    async fn push_log(&self, _: &Caller, limit: usize) -> Result<Vec<PushLogEntry>> {
        self.call(("push_log", limit)).await?;
        let entry = |outcome| PushLogEntry {
            user_id: ANA,
            device_id: PHONE,
            conversation_id: CHAT,
            seq: Seq(2),
            outcome,
            attempts: 1,
            created_at: AT,
            finished_at: outcome.map(|_| AT),
        };
        Ok(vec![entry(Some(PushOutcome::Sent)), entry(None)])
    }
}
