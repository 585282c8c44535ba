//! What is done to groups. Who may do it is decided by logic, on locked rows.

use axum::extract::State;
use gochat_core::{
    error::Code,
    ids::{ConversationId, UserId},
    limits::INVITE_MAX,
    model::{Caller, GroupAction, JoinMode, Role},
    time::Timestamp,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    Problem, Shared,
    extract::{Answer, Id, Ids, JsonBody, Signed, done, invalid, json, ok, present},
    route::Route,
};
use crate::gateway::wire::{ItemsJson, JoinRequestJson, ViewJson};

/// Refusals of whatever is done by a member to a group.
const MEMBER: &[Code] = &[Code::ConversationNotFound, Code::NotAMember, Code::Denied, Code::WrongKind, Code::Dissolved];

pub fn routes() -> Vec<Route> {
    vec![
        Route::patch("/groups/{id}", edit)
            .summary("Changes name, description, picture or settings; for admins")
            .body("GroupEdit")
            .answers(200, "The group", "Conversation")
            .refuses(MEMBER),
        Route::post("/groups/{id}/members", invite)
            .summary("Adds users; those who are members already are skipped; for admins")
            .body("Invite")
            .answers(200, "The group", "Conversation")
            .refuses(MEMBER)
            .refuses(&[Code::UserNotFound, Code::GroupFull]),
        Route::delete("/groups/{id}/members/{user}", remove)
            .summary("Removes a member of a lower role; for admins")
            .ends(204, "The member is removed")
            .refuses(MEMBER)
            .refuses(&[Code::UserNotFound]),
        Route::patch("/groups/{id}/members/{user}", edit_member)
            .summary("Sets the role of a member (for the owner) or silences one of a lower role (for admins)")
            .body("MemberEdit")
            .ends(204, "It is set")
            .refuses(MEMBER)
            .refuses(&[Code::UserNotFound]),
        Route::put("/groups/{id}/owner", hand_over)
            .summary("Makes a member the owner; the owner becomes an admin")
            .body("HandOver")
            .answers(200, "The group", "Conversation")
            .refuses(MEMBER)
            .refuses(&[Code::UserNotFound]),
        Route::post("/groups/{id}/join", join)
            .summary("Joins an open group")
            .answers(200, "The group", "Conversation")
            .refuses(MEMBER)
            .refuses(&[Code::AlreadyMember, Code::GroupFull]),
        Route::post("/groups/{id}/link", new_link)
            .summary("Makes an invitation link; the one before it ends; for admins")
            .answers(201, "The link's secret, shown this once", "Link")
            .refuses(MEMBER),
        Route::delete("/groups/{id}/link", remove_link).summary("Ends the invitation link; for admins").ends(204, "There is no link").refuses(MEMBER),
        Route::post("/groups/join", join_by_link)
            .summary("Joins the group that a link belongs to")
            .body("Link")
            .answers(200, "The group", "Conversation")
            .refuses(MEMBER)
            .refuses(&[Code::LinkNotFound, Code::AlreadyMember, Code::GroupFull]),
        Route::post("/groups/{id}/requests", ask)
            .summary("Asks to be let in")
            .ends(202, "The admins are asked")
            .refuses(MEMBER)
            .refuses(&[Code::AlreadyMember, Code::GroupFull]),
        Route::get("/groups/{id}/requests", requests)
            .summary("Open requests, oldest first; for admins")
            .answers(200, "The requests", "JoinRequestItems")
            .refuses(MEMBER),
        Route::put("/groups/{id}/requests/{user}", answer_request)
            .summary("Accepts or refuses a request; for admins")
            .body("RequestAnswer")
            .ends(204, "The request is answered")
            .refuses(MEMBER)
            .refuses(&[Code::RequestNotFound, Code::UserNotFound, Code::GroupFull, Code::AlreadyMember]),
        Route::delete("/groups/{id}", dissolve)
            .summary("Ends the group for good; its history stays readable; for the owner")
            .ends(204, "The group is dissolved")
            .refuses(MEMBER),
    ]
}

/// Does something to a group and answers without a body.
async fn act(http: &Shared, caller: &Caller, id: ConversationId, action: GroupAction) -> Answer {
    http.api.manage(caller, id, &action).await?;
    done()
}

/// Does something to a group and answers with the group as the caller sees it afterwards.
async fn change(http: &Shared, caller: &Caller, id: ConversationId, action: GroupAction) -> Answer {
    http.api.manage(caller, id, &action).await?;
    ok(&ViewJson::from(&http.api.conversation(caller, id).await?))
}

#[derive(Deserialize)]
struct Edit {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default, deserialize_with = "present")]
    avatar_url: Option<Option<String>>,
    #[serde(default)]
    max_members: Option<i32>,
    #[serde(default)]
    join_mode: Option<JoinMode>,
}

async fn edit(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<ConversationId>, JsonBody(edit): JsonBody<Edit>) -> Answer {
    let Edit { name, description, avatar_url, max_members, join_mode } = edit;
    change(&http, &caller, id, GroupAction::Edit { name, description, avatar_url, max_members, join_mode }).await
}

#[derive(Deserialize)]
struct Invite {
    user_ids: Vec<UserId>,
}

async fn invite(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<ConversationId>, JsonBody(invite): JsonBody<Invite>) -> Answer {
    let users = invite.user_ids;
    if users.is_empty() || users.len() > INVITE_MAX {
        return Err(invalid("user_ids", &format!("has 1 to {INVITE_MAX} items")).into());
    }
    change(&http, &caller, id, GroupAction::Invite { users }).await
}

async fn remove(State(http): State<Shared>, Signed(caller): Signed, Ids(id, user): Ids<ConversationId, UserId>) -> Answer {
    act(&http, &caller, id, GroupAction::Remove { user }).await
}

#[derive(Deserialize)]
struct MemberEdit {
    #[serde(default)]
    role: Option<Role>,
    #[serde(default, deserialize_with = "present")]
    silenced_until: Option<Option<Timestamp>>,
}

/// One thing at a time, so that a request is done whole or not at all.
async fn edit_member(
    State(http): State<Shared>,
    Signed(caller): Signed,
    Ids(id, user): Ids<ConversationId, UserId>,
    JsonBody(edit): JsonBody<MemberEdit>,
) -> Answer {
    let action = match (edit.role, edit.silenced_until) {
        (Some(Role::Owner), _) => return Err(invalid("role", "is admin or member; hand the group over to make an owner").into()),
        (Some(role), None) => GroupAction::SetRole { user, role },
        (None, Some(Some(until))) if until < Timestamp(0) => return Err(invalid("silenced_until", "is a time after 1970 or null").into()),
        (None, Some(until)) => GroupAction::Silence { user, until },
        _ => return Err(invalid("either role or silenced_until", "is needed").into()),
    };
    act(&http, &caller, id, action).await
}

#[derive(Deserialize)]
struct HandOver {
    user_id: UserId,
}

async fn hand_over(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<ConversationId>, JsonBody(to): JsonBody<HandOver>) -> Answer {
    change(&http, &caller, id, GroupAction::HandOver { user: to.user_id }).await
}

async fn join(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<ConversationId>) -> Answer {
    change(&http, &caller, id, GroupAction::Join).await
}

/// The secret of an invitation link.
#[derive(Serialize, Deserialize)]
struct Link {
    secret: String,
}

async fn new_link(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<ConversationId>) -> Answer {
    json(StatusCode::CREATED, &Link { secret: http.api.new_link(&caller, id).await? })
}

async fn remove_link(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<ConversationId>) -> Answer {
    act(&http, &caller, id, GroupAction::SetLink { link_hash: None }).await
}

async fn join_by_link(State(http): State<Shared>, Signed(caller): Signed, JsonBody(Link { secret }): JsonBody<Link>) -> Answer {
    let group = http.api.join_by_link(&caller, &secret).await?;
    ok(&ViewJson::from(&http.api.conversation(&caller, group.id).await?))
}

async fn ask(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<ConversationId>) -> Result<StatusCode, Problem> {
    http.api.manage(&caller, id, &GroupAction::AskToJoin).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn requests(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<ConversationId>) -> Answer {
    let requests = http.api.join_requests(&caller, id).await?;
    ok(&ItemsJson { items: requests.iter().map(JoinRequestJson::from).collect() })
}

#[derive(Deserialize)]
struct RequestAnswer {
    accept: bool,
}

async fn answer_request(
    State(http): State<Shared>,
    Signed(caller): Signed,
    Ids(id, user): Ids<ConversationId, UserId>,
    JsonBody(RequestAnswer { accept }): JsonBody<RequestAnswer>,
) -> Answer {
    act(&http, &caller, id, GroupAction::AnswerRequest { user, accept }).await
}

async fn dissolve(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<ConversationId>) -> Answer {
    act(&http, &caller, id, GroupAction::Dissolve).await
}
