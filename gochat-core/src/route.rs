//! Recipients and routes in, one list of targets per gateway and the offline list out: pure.

use std::collections::{BTreeMap, HashSet};

use crate::{
    ids::{DeviceId, GatewayId, UserId},
    ports::{Route, Target},
};

/// What a message's recipients come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// For each gateway the connections to tell.
    pub gateways: BTreeMap<GatewayId, Vec<Target>>,
    /// Recipients without any route.
    pub offline: Vec<UserId>,
}

/// Sorts the routes of `recipients` by gateway. The sending device is left out, since it gets the ack instead;
/// its user's other devices are told like anybody's (I7).
pub fn route(recipients: &[UserId], routes: &[Route], from: Option<(UserId, DeviceId)>) -> Routed {
    let mut routed = Routed::default();
    let mut online = HashSet::with_capacity(routes.len());
    for route in routes {
        online.insert(route.user);
        if from != Some((route.user, route.device)) {
            let target = Target { connection: route.connection, epoch: route.epoch };
            match routed.gateways.get_mut(&route.gateway) {
                Some(targets) => targets.push(target),
                None => {
                    routed.gateways.insert(route.gateway.clone(), vec![target]);
                }
            }
        }
    }
    routed.offline.extend(recipients.iter().filter(|user| !online.contains(user)));
    routed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: u8) -> UserId {
        UserId::from_bytes([n; 16])
    }

    fn route_of(n: u8, device: u8, gateway: &str) -> Route {
        Route {
            user: user(n),
            device: DeviceId::from_bytes([device; 16]),
            gateway: gateway.parse().unwrap(),
            connection: u64::from(device),
            epoch: 1,
        }
    }

    #[test]
    fn one_list_per_gateway_the_senders_other_devices_and_who_is_offline() {
        let routes = [route_of(1, 1, "a"), route_of(1, 2, "b"), route_of(2, 3, "a")];
        let routed = route(&[user(1), user(2), user(3)], &routes, Some((user(1), DeviceId::from_bytes([1; 16]))));
        let connections =
            |name: &str| routed.gateways[&name.parse::<GatewayId>().unwrap()].iter().map(|target| target.connection).collect::<Vec<_>>();
        assert_eq!(connections("a"), [3]);
        assert_eq!(connections("b"), [2]);
        assert_eq!(routed.offline, [user(3)]);
    }
}
