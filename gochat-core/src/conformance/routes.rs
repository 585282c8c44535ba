//! The suite of [`Routes`].

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Case, cases};
use crate::{
    ids::{DeviceId, GatewayId, UserId},
    ports::{Route, Routes},
};

/// Every case.
pub const CASES: &[Case<dyn Routes>] = cases![dyn Routes:
    every_device_has_one_route,
    the_newest_epoch_has_the_route,
    a_late_close_takes_nobody_elses_route,
    a_lease_ends_unless_it_is_renewed,
    many_users_are_located_in_one_call,
    racing_connections_leave_the_newest,
];

const LEASE: Duration = Duration::from_secs(60);

fn route(user: UserId, device: DeviceId, epoch: i64) -> Route {
    let gateway: GatewayId = "gateway-1".parse().unwrap();
    Route { user, device, gateway, connection: epoch as u64, epoch }
}

fn user() -> UserId {
    UserId::from(Uuid::now_v7())
}

fn device() -> DeviceId {
    DeviceId::from(Uuid::now_v7())
}

/// What is located, in the order of the connections.
async fn located(routes: &dyn Routes, users: &[UserId]) -> Vec<Route> {
    let mut found = routes.locate(users).await.unwrap();
    found.sort_by_key(|route| (route.user, route.device));
    found
}

fn ordered<const N: usize>(mut routes: [Route; N]) -> [Route; N] {
    routes.sort_by_key(|route| (route.user, route.device));
    routes
}

/// Devices of one user stand beside each other, and the same device id of another user is another device (I7).
pub async fn every_device_has_one_route(routes: Arc<dyn Routes>) {
    let (a, b, phone, laptop) = (user(), user(), device(), device());
    let [a_phone, a_laptop, b_phone] = [route(a, phone, 1), route(a, laptop, 2), route(b, phone, 3)];
    let attached = routes.attach(&[a_phone.clone(), a_laptop.clone(), b_phone.clone()], LEASE).await.unwrap();
    assert_eq!(attached, [true, true, true]);
    assert_eq!(located(&*routes, &[a]).await, ordered([a_phone.clone(), a_laptop.clone()]));
    assert_eq!(located(&*routes, &[b]).await, std::slice::from_ref(&b_phone));
    assert_eq!(located(&*routes, &[user()]).await, []);
    assert_eq!(routes.detach(&[a_phone]).await.unwrap(), [true]);
    assert_eq!(located(&*routes, &[a, b]).await, ordered([a_laptop, b_phone]));
}

/// An older connection that attaches late is told that it has lost; the same epoch renews, also elsewhere in one batch (I16).
pub async fn the_newest_epoch_has_the_route(routes: Arc<dyn Routes>) {
    let (user, device) = (user(), device());
    let at = |epoch| route(user, device, epoch);
    assert_eq!(routes.attach(&[at(5)], LEASE).await.unwrap(), [true]);
    assert_eq!(routes.attach(&[at(4), at(5), at(6), at(5)], LEASE).await.unwrap(), [false, true, true, false]);
    assert_eq!(located(&*routes, &[user]).await, [at(6)]);
    let moved = Route { gateway: "gateway-2".parse().unwrap(), ..at(7) };
    assert_eq!(routes.attach(std::slice::from_ref(&moved), LEASE).await.unwrap(), [true]);
    assert_eq!(located(&*routes, &[user]).await, [moved]);
}

/// `detach` removes the very route that it names; a newer one stays, and the answer says so.
pub async fn a_late_close_takes_nobody_elses_route(routes: Arc<dyn Routes>) {
    let (user, device) = (user(), device());
    let at = |epoch| route(user, device, epoch);
    routes.attach(&[at(1)], LEASE).await.unwrap();
    routes.attach(&[at(2)], LEASE).await.unwrap();
    assert_eq!(routes.detach(&[at(1)]).await.unwrap(), [false]);
    assert_eq!(located(&*routes, &[user]).await, [at(2)]);
    assert_eq!(routes.detach(&[at(2)]).await.unwrap(), [true]);
    assert_eq!(located(&*routes, &[user]).await, []);
    assert_eq!(routes.detach(&[at(2)]).await.unwrap(), [true], "gone is gone: nothing newer is there");
    assert_eq!(routes.attach(&[at(3)], LEASE).await.unwrap(), [true]);
}

/// A gateway that died leaves nothing behind for longer than its lease; one that renews stays.
pub async fn a_lease_ends_unless_it_is_renewed(routes: Arc<dyn Routes>) {
    let user = user();
    let [dead, alive] = [route(user, device(), 3), route(user, device(), 4)];
    routes.attach(&[dead.clone(), alive.clone()], Duration::from_millis(400)).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(routes.attach(std::slice::from_ref(&alive), LEASE).await.unwrap(), [true]);
    }
    assert_eq!(located(&*routes, &[user]).await, [alive]);
    assert_eq!(routes.attach(std::slice::from_ref(&dead), LEASE).await.unwrap(), [true], "it may come back with its own epoch");
}

/// A whole page of a large group, connected and not.
pub async fn many_users_are_located_in_one_call(routes: Arc<dyn Routes>) {
    let all: Vec<Route> = (0..1000).map(|n| route(user(), device(), n)).collect();
    let users: Vec<UserId> = all.iter().map(|route| route.user).collect();
    let attached: Vec<Route> = all.iter().step_by(3).cloned().collect();
    assert!(routes.attach(&attached, LEASE).await.unwrap().into_iter().all(|attached| attached));
    let found = routes.locate(&users).await.unwrap();
    assert_eq!(found.len(), attached.len());
    let expected: HashSet<UserId> = attached.iter().map(|route| route.user).collect();
    assert_eq!(found.into_iter().map(|route| route.user).collect::<HashSet<_>>(), expected);
    assert_eq!(routes.locate(&[]).await.unwrap(), []);
    assert!(routes.detach(&attached).await.unwrap().into_iter().all(|detached| detached));
    assert_eq!(routes.locate(&users).await.unwrap(), []);
}

/// Connections of one device that come and go at once: what stays is the newest, and only it was told to the end that it has
/// the route.
pub async fn racing_connections_leave_the_newest(routes: Arc<dyn Routes>) {
    let (user, device) = (user(), device());
    let mut tasks = JoinSet::new();
    for epoch in 1..=40 {
        let routes = routes.clone();
        tasks.spawn(async move {
            let route = [route(user, device, epoch)];
            routes.attach(&route, LEASE).await.unwrap();
            tokio::task::yield_now().await;
            if epoch < 40 {
                routes.detach(&route).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(located(&*routes, &[user]).await, [route(user, device, 40)]);
    assert_eq!(routes.attach(&[route(user, device, 39)], LEASE).await.unwrap(), [false]);
}
