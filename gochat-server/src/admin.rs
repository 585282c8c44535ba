//! The admin listener: what an operator, a test or the bench asks a server for. On loopback, with a token of its own; nothing
//! of it is reachable from the public listener (decision 37).
//!
//! | method and path | body → answer |
//! |---|---|
//! | `GET /healthz`, `GET /readyz` | whether the process lives; whether it serves, or what it waits for. Without the token |
//! | `GET /metrics` | counters in the text format of Prometheus |
//! | `GET /admin/users?after=&limit=` | accounts by name → `{"items":[account],"next":name or null}` |
//! | `POST /admin/users/{username}/status` | `{"status":"active"` or `"disabled"}` → 204; a disabled user is out everywhere within 2 s |
//! | `POST /admin/users/{username}/password` | `{"password"}` → 204; every device is signed out |
//! | `POST /admin/provision` | [`Provision`] → [`Provisioned`] |
//!
//! Accounts are there in a process with a logic role. Every other request needs `Authorization: Bearer <admin token>`. Errors are problems as on the public listener.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, Request, State, rejection::PathRejection, rejection::QueryRejection},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use gochat_core::{
    auth::{Secret, Tokens},
    error::{Code, Error, Result},
    ids::{ConversationId, DeviceId, MessageId, UserId},
    limits::{DEVICES_MAX, MEMBERS_DEFAULT, MEMBERS_MAX, NAME_CHARS_MAX, PAGE_DEFAULT, PAGE_MAX},
    model::{Caller, ConversationKind, JoinMode, NewConversation, NewUser, User, UserStatus},
    ports::{AccountsApi, Store},
    rules,
    time::{Clock, IdGenerator},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{metrics::Metrics, readiness::Readiness};

/// Bytes of a request body: lists of members are long.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Users made by one request.
const USERS_MAX: usize = 100_000;
/// Groups made by one request.
const GROUPS_MAX: usize = 10_000;
/// Memberships made by one request.
const MEMBERSHIPS_MAX: usize = 1_000_000;
/// Writes that one request keeps waiting for the store: enough to fill its group commits, far from its queue's end.
const WRITES_AT_ONCE: usize = 128;
/// Devices registered in one call of the store.
const CONNECT_PAGE: usize = 500;

/// What the admin listener works on.
#[derive(Clone)]
pub struct AdminState {
    /// What every request must bring.
    pub token: Secret<String>,
    /// Whether the process serves.
    pub readiness: Readiness,
    /// The counters of this process.
    pub metrics: Arc<Metrics>,
    /// Set once a process with a logic role has started.
    pub operators: Arc<OnceLock<Operators>>,
}

/// What operators work on: accounts, in a process with a logic role.
#[derive(Debug)]
pub struct Operators {
    /// Accounts, with everything that follows from a change of them.
    pub accounts: Arc<dyn AccountsApi>,
    /// For making in bulk what nobody is connected to yet.
    pub store: Arc<dyn Store>,
    /// Signs the access tokens of provisioned users.
    pub tokens: Arc<Tokens>,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub ids: Arc<dyn IdGenerator>,
}

impl AdminState {
    fn operators(&self) -> Result<&Operators> {
        self.operators.get().ok_or_else(|| Error::new(Code::Unavailable, "no logic role serves in this process: ask one that has it"))
    }
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminState")
    }
}

/// Users, devices and conversations to be made for a test or the bench.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provision {
    /// How many users. They are called `<prefix>0`, `<prefix>1`, … and have no password.
    pub users: usize,
    /// What their names begin with. A name that is taken refuses the request (`USERNAME_TAKEN`).
    pub prefix: String,
    /// Signed-in devices of each user.
    #[serde(default = "one")]
    pub devices_per_user: usize,
    /// Whether to make a 1:1 of the users 0 and 1, of 2 and 3, and so on.
    #[serde(default)]
    pub pairs: bool,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<ProvisionGroup>,
}

/// A group to be made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvisionGroup {
    /// Who is a member.
    pub members: ProvisionMembers,
    /// Its name; by default `<prefix> group <number>`.
    #[serde(default)]
    pub name: Option<String>,
}

/// The members of a group; the first one owns it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum ProvisionMembers {
    /// The first so many users.
    Count(usize),
    /// These users.
    Users(Vec<usize>),
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct Provisioned {
    /// The users, in order.
    pub users: Vec<ProvisionedUser>,
    /// First the 1:1s, then the groups.
    pub conversations: Vec<ProvisionedConversation>,
}

/// A user who was made, signed in.
#[derive(Clone, Serialize)]
pub struct ProvisionedUser {
    /// The user.
    pub id: UserId,
    /// `<prefix><number>`.
    pub username: String,
    /// The first device.
    pub device_id: DeviceId,
    /// The first device's access token.
    pub access_token: String,
    /// The further devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more_devices: Vec<ProvisionedDevice>,
}

impl fmt::Debug for ProvisionedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvisionedUser").field("id", &self.id).field("username", &self.username).finish_non_exhaustive()
    }
}

/// A further device of a user.
#[derive(Clone, Serialize)]
pub struct ProvisionedDevice {
    /// The device.
    pub device_id: DeviceId,
    /// Its access token.
    pub access_token: String,
}

impl fmt::Debug for ProvisionedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvisionedDevice").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}

/// A conversation that was made.
#[derive(Clone, Debug, Serialize)]
pub struct ProvisionedConversation {
    /// The conversation.
    pub id: ConversationId,
    /// 1:1 or group.
    pub kind: ConversationKind,
    /// The numbers of its members; the first one owns a group.
    pub members: Vec<usize>,
}

/// The routes of the admin listener.
pub fn routes(state: AdminState) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/admin/users", get(users))
        .route("/admin/users/{username}/status", post(set_status))
        .route("/admin/users/{username}/password", post(set_password))
        .route("/admin/provision", post(provision))
        .fallback(|| async { Problem::from(Error::from(Code::NotFound)) })
        .method_not_allowed_fallback(|| async { Problem::from(Error::from(Code::MethodNotAllowed)) })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::new(state.clone()), authenticated))
        .with_state(Arc::new(state.clone()))
        .merge(state.readiness.routes())
}

/// A refusal as an answer (RFC 9457).
#[derive(Debug)]
struct Problem(Error);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Problem(error) = self;
        if error.code == Code::Internal {
            tracing::error!(?error, "an admin request failed");
        }
        let status = StatusCode::from_u16(error.kind().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::json!({
            "type": format!("urn:gochat:error:{}", error.code.as_str()),
            "title": error.code.cause(),
            "status": status.as_u16(),
            "detail": error.message,
            "code": error.code.as_str(),
            "hint": error.code.hint(),
        });
        let mut response = (status, Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

/// Looks at the token before anything else of the request, and keeps every answer out of caches.
async fn authenticated(State(state): State<Arc<AdminState>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
    // Hashes are compared, so that the time tells nothing about the token.
    let known = shown.is_some_and(|shown| Sha256::digest(shown) == Sha256::digest(state.token.reveal()));
    let mut response = if known {
        next.run(request).await
    } else {
        tracing::warn!(path = request.uri().path(), "an admin request without the admin token");
        Problem(Error::new(Code::Unauthenticated, "the admin token is missing or wrong")).into_response()
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn metrics(State(state): State<Arc<AdminState>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.text()).into_response()
}

#[derive(Deserialize)]
struct UsersQuery {
    after: Option<String>,
    limit: Option<usize>,
}

/// An account as its operator sees it.
#[derive(Serialize)]
struct Account {
    id: UserId,
    username: String,
    display_name: String,
    status: UserStatus,
    external_id: Option<String>,
    created_at: i64,
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Account {
            id: user.id,
            username: user.username,
            display_name: user.display_name,
            status: user.status,
            external_id: user.external_id,
            created_at: user.created_at.0,
        }
    }
}

async fn users(State(state): State<Arc<AdminState>>, query: Result<Query<UsersQuery>, QueryRejection>) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|refused| Error::new(Code::InvalidRequest, refused.body_text()))?;
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let items: Vec<Account> = state.operators()?.accounts.list_users(query.after.as_deref(), limit).await?.into_iter().map(Account::from).collect();
    let next = items.last().filter(|_| items.len() == limit).map(|last| last.username.clone());
    Ok(Json(serde_json::json!({"items": items, "next": next})).into_response())
}

#[derive(Deserialize)]
struct StatusChange {
    status: UserStatus,
}

async fn set_status(State(state): State<Arc<AdminState>>, path: Result<Path<String>, PathRejection>, body: Bytes) -> Result<StatusCode, Problem> {
    let username = username(path)?;
    let StatusChange { status } = parse(&body)?;
    state.operators()?.accounts.set_user_status(&username, status).await?;
    tracing::info!(target: "gochat::audit", username, ?status, "an operator changed the status of an account");
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct PasswordChange {
    password: String,
}

async fn set_password(State(state): State<Arc<AdminState>>, path: Result<Path<String>, PathRejection>, body: Bytes) -> Result<StatusCode, Problem> {
    let username = username(path)?;
    let PasswordChange { password } = parse(&body)?;
    state.operators()?.accounts.reset_password(&username, &password).await?;
    tracing::info!(target: "gochat::audit", username, "an operator set the password of an account");
    Ok(StatusCode::NO_CONTENT)
}

async fn provision(State(state): State<Arc<AdminState>>, body: Bytes) -> Result<Json<Provisioned>, Problem> {
    let wanted: Provision = parse(&body)?;
    let conversations = plan(&wanted)?;
    tracing::info!(target: "gochat::audit", users = wanted.users, prefix = %wanted.prefix, "provisioning");
    let users = state.operators()?.make_users(&wanted).await?;
    let ids: Vec<UserId> = users.iter().map(|user| user.id).collect();
    let conversations = state.operators()?.make_conversations(conversations, &ids).await?;
    Ok(Json(Provisioned { users, conversations }))
}

fn username(path: Result<Path<String>, PathRejection>) -> Result<String> {
    path.map(|Path(username)| username).map_err(|_| Code::UserNotFound.into())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| Error::new(Code::InvalidJson, format!("the body is not what is expected here: {error}")))
}

fn one() -> usize {
    1
}

/// A conversation to be made, by the numbers of its members.
#[derive(Debug, PartialEq)]
struct Planned {
    kind: ConversationKind,
    name: String,
    members: Vec<usize>,
}

/// What conversations are wanted, or why the request is refused: before anything is made.
fn plan(wanted: &Provision) -> Result<Vec<Planned>> {
    let invalid = |why: String| Err(Error::new(Code::InvalidField, why));
    if !(1..=USERS_MAX).contains(&wanted.users) {
        return invalid(format!("users is 1 to {USERS_MAX}"));
    }
    if !(1..=DEVICES_MAX).contains(&wanted.devices_per_user) {
        return invalid(format!("devices_per_user is 1 to {DEVICES_MAX}"));
    }
    if wanted.groups.len() > GROUPS_MAX {
        return invalid(format!("at most {GROUPS_MAX} groups"));
    }
    rules::username(&format!("{}{}", wanted.prefix, wanted.users - 1))?;
    let mut planned = Vec::new();
    if wanted.pairs {
        let pairs = (0..wanted.users / 2).map(|pair| vec![2 * pair, 2 * pair + 1]);
        planned.extend(pairs.map(|members| Planned { kind: ConversationKind::Single, name: String::new(), members }));
    }
    let mut memberships = 0;
    for (number, group) in wanted.groups.iter().enumerate() {
        let count = match &group.members {
            ProvisionMembers::Count(count) => *count,
            ProvisionMembers::Users(users) => users.len(),
        };
        if count == 0 || count > wanted.users || count > MEMBERS_MAX as usize {
            return invalid(format!("group {number} has 1 to {} members, each once", wanted.users.min(MEMBERS_MAX as usize)));
        }
        memberships += count;
        if memberships > MEMBERSHIPS_MAX {
            return invalid(format!("at most {MEMBERSHIPS_MAX} memberships"));
        }
        let members = match &group.members {
            ProvisionMembers::Count(count) => (0..*count).collect(),
            ProvisionMembers::Users(users) => {
                let mut sorted = users.clone();
                sorted.sort_unstable();
                sorted.dedup();
                if sorted.len() != users.len() || sorted.last().is_some_and(|last| *last >= wanted.users) {
                    return invalid(format!("group {number} names a user twice or one who is not made here"));
                }
                users.clone()
            }
        };
        let name = group.name.clone().unwrap_or_else(|| format!("{} group {number}", wanted.prefix));
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
            return invalid(format!("a name has 1 to {NAME_CHARS_MAX} characters"));
        }
        planned.push(Planned { kind: ConversationKind::Group, name, members });
    }
    Ok(planned)
}

impl Operators {
    async fn make_users(&self, wanted: &Provision) -> Result<Vec<ProvisionedUser>> {
        let at = self.clock.now();
        let new = (0..wanted.users).map(|number| {
            let username = rules::username(&format!("{}{number}", wanted.prefix))?;
            let display_name = username.clone();
            Ok(NewUser { id: self.ids.uuid().into(), username, display_name, password_phc: None, external_id: None, created_at: at })
        });
        let created = stream::iter(new).map(|new: Result<NewUser>| async move { self.store.create_user(&new?).await });
        let created: Vec<User> = created.buffered(WRITES_AT_ONCE).try_collect().await?;

        // Epoch 0 is that of a device nobody signed in with a password: connecting makes it, many in one transaction.
        let devices = created.iter().flat_map(|user| std::iter::repeat_n(user.id, wanted.devices_per_user));
        let callers: Vec<Caller> = devices.map(|user| Caller { user, device: self.ids.uuid().into(), session_epoch: 0 }).collect();
        for page in callers.chunks(CONNECT_PAGE) {
            self.store.connect(page, at).await?.into_iter().collect::<Result<Vec<_>>>()?;
        }
        let mut access_tokens = self.sign(callers).await?.into_iter();
        let mut users = Vec::with_capacity(created.len());
        for user in created {
            let mut devices = access_tokens.by_ref().take(wanted.devices_per_user);
            let first = devices.next().ok_or_else(|| Error::internal("a user without a device"))?;
            let ProvisionedDevice { device_id, access_token } = first;
            users.push(ProvisionedUser { id: user.id, username: user.username, device_id, access_token, more_devices: devices.collect() });
        }
        Ok(users)
    }

    /// Access tokens of these devices. Signing is dear: it stays off the threads that serve others.
    async fn sign(&self, callers: Vec<Caller>) -> Result<Vec<ProvisionedDevice>> {
        let (tokens, now) = (self.tokens.clone(), self.clock.now());
        let sign = move || {
            let device = |caller: Caller| Ok(ProvisionedDevice { device_id: caller.device, access_token: tokens.issue(&caller, now)? });
            callers.into_iter().map(device).collect()
        };
        tokio::task::spawn_blocking(sign).await.map_err(Error::internal)?
    }

    async fn make_conversations(&self, planned: Vec<Planned>, users: &[UserId]) -> Result<Vec<ProvisionedConversation>> {
        let at = self.clock.now();
        let made = stream::iter(planned).map(|planned| async move {
            let mut members = planned.members.iter().map(|&number| users[number]);
            let creator = members.next().ok_or_else(|| Error::internal("a conversation without members"))?;
            let max_members = match planned.kind {
                ConversationKind::Single => 2,
                ConversationKind::Group => MEMBERS_DEFAULT.max(i32::try_from(planned.members.len()).unwrap_or(MEMBERS_MAX)),
            };
            let new = NewConversation {
                id: self.ids.uuid().into(),
                kind: planned.kind,
                creator,
                members: members.collect(),
                name: planned.name,
                description: String::new(),
                avatar_url: None,
                join_mode: JoinMode::Invite,
                max_members,
                event_id: MessageId::from(self.ids.uuid()),
                idempotency: None,
                at,
            };
            let created = self.store.create_conversation(&new).await?.conversation;
            Ok::<_, Error>((created.head_seq, ProvisionedConversation { id: created.id, kind: planned.kind, members: planned.members }))
        });
        let made: Vec<_> = made.buffered(WRITES_AT_ONCE).try_collect().await?;
        // These users were made a moment ago and nobody knows them yet, so there is nobody to tell.
        let told: Vec<_> = made.iter().map(|(head, conversation)| (conversation.id, *head)).collect();
        for page in told.chunks(CONNECT_PAGE) {
            self.store.set_dispatched(page).await?;
        }
        Ok(made.into_iter().map(|(_, conversation)| conversation).collect())
    }
}
