//! Users: the caller's own profile and the others'.

use axum::extract::State;
use gochat_core::{
    error::{Code, Error},
    ids::UserId,
    limits::PAGE_MAX,
    model::{Caller, ProfileChange, User},
};
use serde::Deserialize;

use super::{
    Shared,
    extract::{Answer, Id, JsonBody, Params, Signed, done, invalid, ok, present},
    route::{LIMIT, Parameter, Route},
};
use crate::gateway::wire::{ItemsJson, UserJson};

/// Bytes of what is searched for.
const QUERY_BYTES_MAX: usize = 128;

pub fn routes() -> Vec<Route> {
    let query = Parameter { required: true, ..Parameter::query("q", "UserQuery", "A user name or id.") };
    vec![
        Route::get("/users/me", me).summary("The own account").answers(200, "The account", "User").refuses(&[Code::UserNotFound]),
        Route::patch("/users/me", edit)
            .summary("Changes the own profile")
            .body("ProfileChange")
            .answers(200, "The account", "User")
            .refuses(&[Code::UserNotFound]),
        Route::post("/users/me/password", change_password)
            .summary("Changes the own password; the other devices are signed out")
            .body("PasswordChange")
            .ends(204, "The new password holds")
            .refuses(&[Code::LoginFailed]),
        Route::get("/users/{id}", user).summary("A user").answers(200, "The user", "User").refuses(&[Code::UserNotFound]),
        Route::get("/users", search)
            .summary("Finds users by exact name or id; by the beginning of the name where the operator allows it")
            .takes(query)
            .takes(LIMIT)
            .answers(200, "The users, if there are any", "UserItems"),
        Route::post("/users/lookup", lookup).summary("Users by id; unknown ones are left out").body("UserLookup").answers(
            200,
            "The users that there are",
            "UserItems",
        ),
    ]
}

async fn me(State(http): State<Shared>, Signed(caller): Signed) -> Answer {
    ok(&UserJson::from(&find(&http, &caller, caller.user).await?))
}

async fn user(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<UserId>) -> Answer {
    ok(&UserJson::from(&find(&http, &caller, id).await?))
}

async fn find(http: &Shared, caller: &Caller, id: UserId) -> Result<User, Error> {
    http.api.users(caller, &[id]).await?.pop().ok_or_else(|| Code::UserNotFound.into())
}

#[derive(Deserialize)]
struct Profile {
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    avatar_url: Option<Option<String>>,
}

async fn edit(State(http): State<Shared>, Signed(caller): Signed, JsonBody(Profile { display_name, avatar_url }): JsonBody<Profile>) -> Answer {
    ok(&UserJson::from(&http.api.update_profile(&caller, &ProfileChange { display_name, avatar_url }).await?))
}

#[derive(Deserialize)]
struct Passwords {
    current: String,
    new: String,
}

async fn change_password(State(http): State<Shared>, Signed(caller): Signed, JsonBody(Passwords { current, new }): JsonBody<Passwords>) -> Answer {
    http.api.change_password(&caller, &current, &new).await?;
    done()
}

async fn search(State(http): State<Shared>, Signed(caller): Signed, params: Params) -> Answer {
    let query = params.text("q", QUERY_BYTES_MAX)?.filter(|query| !query.is_empty()).ok_or_else(|| invalid("q", "is missing"))?;
    let users = http.api.find_users(&caller, query, params.limit()?.min(http.settings.user_search_max)).await?;
    ok(&ItemsJson { items: users.iter().map(UserJson::from).collect() })
}

#[derive(Deserialize)]
struct Lookup {
    ids: Vec<UserId>,
}

async fn lookup(State(http): State<Shared>, Signed(caller): Signed, JsonBody(Lookup { ids }): JsonBody<Lookup>) -> Answer {
    if ids.len() > PAGE_MAX {
        return Err(invalid("ids", &format!("has more than {PAGE_MAX} items")).into());
    }
    let users = http.api.users(&caller, &ids).await?;
    ok(&ItemsJson { items: users.iter().map(UserJson::from).collect() })
}
