//! The caller's devices.

use axum::extract::State;
use gochat_core::{error::Code, ids::DeviceId};

use super::{
    Shared,
    extract::{Answer, Id, Signed, done, ok},
    route::Route,
};
use crate::gateway::wire::{DeviceJson, ItemsJson};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/devices", list).summary("The own devices, the one seen last first").answers(200, "The devices", "DeviceItems"),
        Route::delete("/devices/{id}", sign_out)
            .summary("Signs one of the own devices out")
            .ends(204, "The device is signed out")
            .refuses(&[Code::DeviceNotFound]),
    ]
}

async fn list(State(http): State<Shared>, Signed(caller): Signed) -> Answer {
    let devices = http.api.devices(&caller).await?;
    ok(&ItemsJson { items: devices.iter().map(|device| DeviceJson::new(device, &caller)).collect() })
}

async fn sign_out(State(http): State<Shared>, Signed(caller): Signed, Id(id): Id<DeviceId>) -> Answer {
    http.api.sign_out_device(&caller, id).await?;
    done()
}
