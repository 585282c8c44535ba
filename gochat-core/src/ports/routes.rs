use std::time::Duration;

use async_trait::async_trait;

use crate::{
    error::Result,
    ids::{DeviceId, GatewayId, UserId},
    ports::Port,
};

/// Where devices are connected. Holds only what gateways can tell again; one route per (user, device).
///
/// # Contract
/// - `attach` wins if its epoch is not lower than the present one's; `false`: a newer connection has the route.
///   Attaching again with the same epoch renews the lease.
/// - `detach` removes this very route; `false`: a newer epoch has taken its place, and stays.
/// - A route whose lease is over is not located. `locate` answers for all users in one call, in any order.
/// - `UNAVAILABLE` means that presence is unknown, not that anybody is offline.
#[async_trait]
pub trait Routes: Port {
    /// Sets routes for the time of the lease.
    async fn attach(&self, routes: &[Route], lease: Duration) -> Result<Vec<bool>>;
    /// Removes routes.
    async fn detach(&self, routes: &[Route]) -> Result<Vec<bool>>;
    /// The routes of these users.
    async fn locate(&self, users: &[UserId]) -> Result<Vec<Route>>;
}

/// A device is connected at a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// The gateway.
    pub gateway: GatewayId,
    /// The connection within the gateway.
    pub connection: u64,
    /// Epoch of the connection, from the store: the newest connection of a device wins (I16).
    pub epoch: i64,
}
