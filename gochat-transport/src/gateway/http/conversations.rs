//! Conversations of either kind.

use axum::extract::State;
use gochat_core::{
    error::{Code, Error, Result},
    ids::{ConversationId, UserId},
    limits::IDEMPOTENCY_KEY_BYTES_MAX,
    model::{ConversationKind, GroupAction, JoinMode},
    ports::CreateConversation,
};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::{
    Shared,
    extract::{Answer, Id, JsonBody, Params, Signed, done, invalid, json, ok},
    route::{CURSOR, LIMIT, Parameter, Route},
};
use crate::gateway::wire::{MemberJson, PageJson, ViewJson};

/// The header that makes a repeated create harmless.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

pub fn routes() -> Vec<Route> {
    let create_codes = &[Code::UserNotFound, Code::GroupFull, Code::IdempotencyConflict];
    let key = Parameter {
        place: "header",
        ..Parameter::query("Idempotency-Key", "IdempotencyKey", "The same key and request again: the conversation that was made first.")
    };
    vec![
        Route::post("/conversations", create)
            .summary("Makes a 1:1 or a group")
            .takes(key)
            .body("CreateConversation")
            .answers(201, "The new conversation", "Conversation")
            .answers(200, "It was there before", "Conversation")
            .refuses(create_codes),
        Route::post("/groups", create_group)
            .summary("Makes a group")
            .takes(key)
            .body("CreateGroup")
            .answers(201, "The new group", "Conversation")
            .answers(200, "It was there before", "Conversation")
            .refuses(create_codes),
        Route::get("/conversations", list).summary("The own conversations, most recently active first").takes(LIMIT).takes(CURSOR).answers(
            200,
            "A page of conversations",
            "ConversationPage",
        ),
        Route::get("/conversations/{id}", conversation)
            .summary("A conversation")
            .answers(200, "The conversation", "Conversation")
            .refuses(&[Code::ConversationNotFound]),
        Route::post("/conversations/{id}/leave", leave)
            .summary("Leaves a group; hides a 1:1 until its next message")
            .ends(204, "The caller has left")
            .refuses(&[Code::ConversationNotFound, Code::NotAMember, Code::OwnerLeaves, Code::Dissolved]),
        Route::put("/conversations/{id}/mute", mute)
            .summary("Sets whether the caller is notified")
            .body("Mute")
            .ends(204, "It is set")
            .refuses(&[Code::ConversationNotFound, Code::NotAMember]),
        Route::get("/conversations/{id}/members", members)
            .summary("The members, ordered by id")
            .takes(LIMIT)
            .takes(CURSOR)
            .answers(200, "A page of members", "MemberPage")
            .refuses(&[Code::ConversationNotFound, Code::NotAMember]),
    ]
}

/// What a client may name of a new conversation. `null` is as good as absent.
#[derive(Deserialize)]
struct Create {
    #[serde(default)]
    kind: Option<ConversationKind>,
    #[serde(default)]
    participants: Option<Vec<UserId>>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    avatar_url: Option<String>,
    #[serde(default)]
    join_mode: Option<JoinMode>,
    #[serde(default)]
    max_members: Option<i32>,
}

async fn create(State(http): State<Shared>, Signed(caller): Signed, headers: HeaderMap, JsonBody(create): JsonBody<Create>) -> Answer {
    let kind = create.kind.ok_or_else(|| invalid("kind", "is missing"))?;
    make(&http, &caller, request(create, kind, &headers)?).await
}

async fn create_group(State(http): State<Shared>, Signed(caller): Signed, headers: HeaderMap, JsonBody(create): JsonBody<Create>) -> Answer {
    if create.kind == Some(ConversationKind::Single) {
        return Err(invalid("kind", "is group here").into());
    }
    make(&http, &caller, request(create, ConversationKind::Group, &headers)?).await
}

fn request(create: Create, kind: ConversationKind, headers: &HeaderMap) -> Result<CreateConversation> {
    Ok(CreateConversation {
        kind,
        participants: create.participants.ok_or_else(|| invalid("participants", "is missing"))?,
        name: create.name.unwrap_or_default(),
        description: create.description.unwrap_or_default(),
        avatar_url: create.avatar_url,
        join_mode: create.join_mode.unwrap_or_default(),
        max_members: create.max_members,
        idempotency_key: idempotency_key(headers)?,
    })
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let sane = |key: &&str| !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX && key.bytes().all(|byte| byte.is_ascii_graphic());
    match (key.to_str().ok().filter(sane), keys.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => Err(Error::new(Code::InvalidField, format!("Idempotency-Key is one of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters"))),
    }
}

async fn make(http: &Shared, caller: &gochat_core::model::Caller, request: CreateConversation) -> Answer {
    let (view, existed) = http.api.create(caller, &request).await?;
    json(if existed { StatusCode::OK } else { StatusCode::CREATED }, &ViewJson::from(&view))
}

async fn list(State(http): State<Shared>, Signed(caller): Signed, params: Params) -> Answer {
    let page = http.api.list(&caller, params.cursor()?, params.limit()?).await?;
    ok(&PageJson { items: page.items.iter().map(ViewJson::from).collect(), next_cursor: page.next_cursor.as_deref() })
}

async fn conversation(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<ConversationId>) -> Answer {
    ok(&ViewJson::from(&http.api.conversation(&caller, id).await?))
}

async fn leave(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<ConversationId>) -> Answer {
    http.api.manage(&caller, id, &GroupAction::Leave).await?;
    done()
}

#[derive(Deserialize)]
struct Mute {
    muted: bool,
}

async fn mute(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<ConversationId>, JsonBody(Mute { muted }): JsonBody<Mute>) -> Answer {
    http.api.set_muted(&caller, id, muted).await?;
    done()
}

async fn members(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<ConversationId>, params: Params) -> Answer {
    let page = http.api.members(&caller, id, params.cursor()?, params.limit()?).await?;
    ok(&PageJson { items: page.items.iter().map(MemberJson::from).collect(), next_cursor: page.next_cursor.as_deref() })
}
