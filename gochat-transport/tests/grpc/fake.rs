//! A store and a logic role that do what a test tells them, and remember how they were called.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use gochat_core::{
    error::{Code, Error, Result},
    ids::{ConversationId, DeviceId, MessageId, PushJobId, Seq, UserId},
    model::{
        Caller, Connected, Conversation, ConversationView, Credential, Device, GroupAction, JoinRequest, Listed, LoginAttempt, Mark, Member, Message,
        NewConversation, NewPushJob, NewSession, NewUser, ProfileChange, PushJob, PushLogEntry, PushOutcome, Readable, Refreshed, Rotation, User,
        UserStatus,
    },
    ports::{
        AccountsApi, AppendBatch, Appended, Changed, Conversations, ConversationsApi, CreateConversation, Created, Devices, HistoryPage,
        HistoryQuery, LoginRequest, Messages, MessagesApi, Page, PushJobs, RegisterRequest, Session, SyncAnswer, SyncRequest, Users,
    },
    time::Timestamp,
};

/// What a call is answered with: a value of the method's own type.
pub type Answer = Result<Box<dyn Any + Send>>;
type Script = dyn Fn(&str) -> BoxFuture<'static, Answer> + Send + Sync;

/// An answer.
pub fn answer<T: Any + Send>(value: T) -> Answer {
    Ok(Box::new(value))
}

/// A port that follows a script.
#[derive(Clone)]
pub struct Fake {
    script: Arc<Script>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    /// Answers each call by the name of its method.
    pub fn new<F: Future<Output = Answer> + Send + 'static>(script: impl Fn(&str) -> F + Send + Sync + 'static) -> Self {
        Fake { script: Arc::new(move |method| Box::pin(script(method))), calls: Arc::default() }
    }

    /// Answers everything with one error.
    pub fn failing(code: Code) -> Self {
        Fake::new(move |_| async move { Err(Error::from(code)) })
    }

    /// Knows nobody, after a while.
    pub fn slow(wait: Duration) -> Self {
        Fake::new(move |_| async move {
            tokio::time::sleep(wait).await;
            answer(None::<User>)
        })
    }

    /// The calls so far, as method and arguments.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    async fn play<T: Any>(&self, method: &'static str, arguments: String) -> Result<T> {
        self.calls.lock().unwrap().push(format!("{method}{arguments}"));
        let answer = (self.script)(method).await?;
        Ok(*answer.downcast().unwrap_or_else(|_| panic!("{method} has no answer of its type")))
    }
}

macro_rules! fake {
    ($($Trait:ident { $($method:ident($($arg:ident: $Arg:ty),*) -> $Reply:ty;)* })*) => {$(
        #[async_trait]
        impl $Trait for Fake {
            $(async fn $method(&self, $($arg: $Arg),*) -> Result<$Reply> {
                let arguments = format!("{:?}", ($($arg,)*));
                self.play(stringify!($method), arguments).await
            })*
        }
    )*};
}

fake! {
    Users {
        create_user(user: &NewUser) -> User;
        users(ids: &[UserId]) -> Vec<Option<User>>;
        user_by_name(username: &str) -> Option<User>;
        user_by_external_id(external_id: &str) -> Option<User>;
        users_by_prefix(prefix: &str, after: Option<&str>, limit: usize) -> Vec<User>;
        update_profile(id: UserId, change: &ProfileChange) -> User;
        set_user_status(id: UserId, status: UserStatus) -> Vec<Caller>;
        credential(id: UserId) -> Option<Credential>;
        set_credential(credential: &Credential, revoke_except: Option<Option<DeviceId>>) -> Vec<Caller>;
    }
    Devices {
        record_login(session: &NewSession) -> (Device, Vec<Caller>);
        record_failed_logins(attempts: &[LoginAttempt]) -> ();
        login_log(user: UserId, limit: usize) -> Vec<LoginAttempt>;
        rotate_refresh(rotation: &Rotation) -> Refreshed;
        devices_of(users: &[UserId]) -> Vec<Vec<Device>>;
        devices(keys: &[(UserId, DeviceId)]) -> Vec<Option<Device>>;
        sign_out(keys: &[(UserId, DeviceId)]) -> Vec<Option<Caller>>;
        connect(callers: &[Caller], at: Timestamp) -> Vec<Result<Connected>>;
    }
    Conversations {
        create_conversation(new: &NewConversation) -> Created;
        conversations(ids: &[ConversationId]) -> Vec<Option<Conversation>>;
        conversation_view(user: UserId, id: ConversationId) -> Option<ConversationView>;
        conversations_of(user: UserId, before: Option<(Timestamp, ConversationId)>, limit: usize) -> Vec<ConversationView>;
        listed(user: UserId, before: Option<(Timestamp, ConversationId)>, limit: usize) -> Vec<Listed>;
        readable(reader: UserId, ids: &[ConversationId]) -> Vec<Option<Readable>>;
        members(id: ConversationId, after: Option<UserId>, limit: usize) -> Vec<Member>;
        members_at(id: ConversationId, seq: Seq, after: Option<UserId>, limit: usize) -> Vec<UserId>;
        memberships(id: ConversationId, users: &[UserId]) -> Vec<Vec<Member>>;
        manage(id: ConversationId, actor: UserId, action: &GroupAction, event_id: MessageId, at: Timestamp) -> Changed;
        conversation_by_link(link_hash: &[u8]) -> Option<Conversation>;
        join_requests(id: ConversationId, limit: usize) -> Vec<JoinRequest>;
        set_muted(id: ConversationId, user: UserId, muted: bool) -> Member;
    }
    Messages {
        append(batch: &AppendBatch) -> Vec<Result<Appended>>;
        history(reader: UserId, id: ConversationId, after: Option<Seq>, before: Option<Seq>, limit: usize) -> Vec<Message>;
        log(id: ConversationId, after: Seq, through: Seq, limit: usize) -> Vec<Message>;
        mark(marks: &[Mark]) -> Vec<Result<(Member, bool)>>;
        set_dispatched(marks: &[(ConversationId, Seq)]) -> ();
        undispatched(after: Option<ConversationId>, scan: usize) -> (Vec<Conversation>, Option<ConversationId>);
    }
    PushJobs {
        add_push_jobs(jobs: &[NewPushJob]) -> usize;
        claim_push_jobs(now: Timestamp, lease: Duration, limit: usize) -> Vec<PushJob>;
        finish_push_jobs(results: &[(PushJobId, PushOutcome, Option<Timestamp>)], at: Timestamp) -> ();
        push_log(user: UserId, limit: usize) -> Vec<PushLogEntry>;
    }
    AccountsApi {
        register(request: &RegisterRequest) -> User;
        login(request: &LoginRequest) -> Session;
        refresh(refresh_token: &str) -> Session;
        logout(caller: &Caller) -> ();
        connect(callers: &[Caller]) -> Vec<Result<Connected>>;
        sessions(devices: &[(UserId, DeviceId)]) -> Vec<Option<i64>>;
        devices(caller: &Caller) -> Vec<Device>;
        sign_out_device(caller: &Caller, device: DeviceId) -> ();
        login_log(caller: &Caller, limit: usize) -> Vec<LoginAttempt>;
        users(caller: &Caller, ids: &[UserId]) -> Vec<User>;
        find_users(caller: &Caller, query: &str, limit: usize) -> Vec<User>;
        update_profile(caller: &Caller, change: &ProfileChange) -> User;
        change_password(caller: &Caller, current: &str, new: &str) -> ();
        list_users(after: Option<&str>, limit: usize) -> Vec<User>;
        set_user_status(username: &str, status: UserStatus) -> ();
        reset_password(username: &str, new: &str) -> ();
    }
    ConversationsApi {
        create(caller: &Caller, request: &CreateConversation) -> (ConversationView, bool);
        list(caller: &Caller, cursor: Option<&str>, limit: usize) -> Page<ConversationView>;
        conversation(caller: &Caller, id: ConversationId) -> ConversationView;
        members(caller: &Caller, id: ConversationId, cursor: Option<&str>, limit: usize) -> Page<Member>;
        manage(caller: &Caller, id: ConversationId, action: &GroupAction) -> Conversation;
        new_link(caller: &Caller, id: ConversationId) -> String;
        join_by_link(caller: &Caller, secret: &str) -> Conversation;
        join_requests(caller: &Caller, id: ConversationId) -> Vec<JoinRequest>;
        set_muted(caller: &Caller, id: ConversationId, muted: bool) -> Member;
    }
    MessagesApi {
        history(caller: &Caller, query: &HistoryQuery) -> HistoryPage;
        sync(caller: &Caller, request: &SyncRequest) -> SyncAnswer;
        mark(caller: &Caller, marks: &[Mark]) -> Vec<Result<Member>>;
        push_log(caller: &Caller, limit: usize) -> Vec<PushLogEntry>;
    }
}
