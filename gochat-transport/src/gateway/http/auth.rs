//! Accounts and sessions. What is open to everybody is counted by address before its body is read.

use axum::extract::{FromRequest, Request, State};
use gochat_core::{
    error::Code,
    ports::{LoginRequest, RegisterRequest},
};
use http::StatusCode;
use serde::Deserialize;

use super::{
    Shared,
    extract::{Answer, From, JsonBody, Params, Signed, done, json, ok},
    limits::Door,
    route::{LIMIT, Route},
};
use crate::gateway::wire::{ItemsJson, LoginJson, SessionJson, UserJson};

pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/auth/register", register)
            .summary("Makes an account")
            .open()
            .limited()
            .body("Register")
            .answers(201, "The account", "User")
            .refuses(&[Code::UsernameTaken]),
        Route::post("/auth/login", login)
            .summary("Signs a device in")
            .open()
            .limited()
            .body("Login")
            .answers(200, "The session of the device", "Session")
            .refuses(&[Code::LoginFailed]),
        Route::post("/auth/refresh", refresh)
            .summary("Exchanges a refresh token for a new pair of tokens; each is good for one use")
            .open()
            .limited()
            .body("Refresh")
            .answers(200, "The session of the device", "Session")
            .refuses(&[Code::RefreshRefused]),
        Route::post("/auth/logout", logout).summary("Ends the session of this device").ends(204, "The session has ended"),
        Route::get("/auth/log", log).summary("The own login log, newest first").takes(LIMIT).answers(200, "Attempts to log in", "LoginItems"),
    ]
}

async fn register(State(http): State<Shared>, from: From, request: Request) -> Answer {
    from.admitted(&http, Door::Register)?;
    let JsonBody(request) = JsonBody::<RegisterRequest>::from_request(request, &http).await?;
    json(StatusCode::CREATED, &UserJson::from(&http.api.register(&request).await?))
}

async fn login(State(http): State<Shared>, from: From, request: Request) -> Answer {
    from.admitted(&http, Door::Login)?;
    let JsonBody(request) = JsonBody::<LoginRequest>::from_request(request, &http).await?;
    let request = LoginRequest { address: from.0.to_string(), ..request };
    ok(&SessionJson::from(&http.api.login(&request).await?))
}

#[derive(Deserialize)]
struct Refresh {
    refresh_token: String,
}

async fn refresh(State(http): State<Shared>, from: From, request: Request) -> Answer {
    from.admitted(&http, Door::Refresh)?;
    let JsonBody(Refresh { refresh_token }) = JsonBody::from_request(request, &http).await?;
    ok(&SessionJson::from(&http.api.refresh(&refresh_token).await?))
}

async fn logout(State(http): State<Shared>, Signed(caller): Signed) -> Answer {
    http.api.logout(&caller).await?;
    done()
}

async fn log(State(http): State<Shared>, Signed(caller): Signed, params: Params) -> Answer {
    let log = http.api.login_log(&caller, params.limit()?).await?;
    ok(&ItemsJson { items: log.iter().map(LoginJson::from).collect() })
}
