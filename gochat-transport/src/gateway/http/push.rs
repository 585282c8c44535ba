//! What was pushed to the caller's devices.

use axum::extract::State;

use super::{
    Shared,
    extract::{Answer, Params, Signed, ok},
    route::{LIMIT, Route},
};
use crate::gateway::wire::{ItemsJson, PushLogJson};

pub fn routes() -> Vec<Route> {
    vec![Route::get("/push/log", log).summary("The own push log, newest first").takes(LIMIT).answers(200, "Pushes", "PushItems")]
}

async fn log(State(http): State<Shared>, Signed(caller): Signed, params: Params) -> Answer {
    let log = http.api.push_log(&caller, params.limit()?).await?;
    ok(&ItemsJson { items: log.iter().map(PushLogJson::from).collect() })
}
