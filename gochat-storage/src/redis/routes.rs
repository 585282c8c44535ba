//! Routes that all processes share.
//!
//! ```text
//! {prefix}user_gateway:{user}  hash, one field per device:  device ─► epoch · end of the lease · connection · gateway
//! ```
//!
//! Leases begin and end by the clock of the server that has the key, read inside the script: no caller's clock takes part. A
//! route whose lease is over is not located, and is removed by whoever attaches or detaches next; the key itself ends with its
//! longest lease. After a failover to a server whose clock is ahead, leases end early by the difference: gateways renew them.

use std::{collections::HashMap, time::Duration};

use gochat_core::{
    async_trait,
    error::{Code, Error, Result},
    ids::{DeviceId, UserId},
    ports::{CacheKey, Route, Routes},
};
use redis::Value;

use super::{
    Redis, from_sortable, millis,
    scripts::{self, Script},
    sortable,
};

/// Digits of the epoch, and of epoch and lease, at the beginning of a field.
const EPOCH_DIGITS: usize = 20;
const DIGITS: usize = 36;

/// [`Routes`] in Redis.
#[derive(Clone, Debug)]
pub struct RedisRoutes {
    redis: Redis,
}

impl RedisRoutes {
    /// Routes in this Redis, under its prefix.
    pub fn new(redis: Redis) -> Self {
        RedisRoutes { redis }
    }

    fn key(&self, user: UserId) -> String {
        self.redis.key(CacheKey::UserGateway(user))
    }

    /// Runs a script that answers with a number for each route.
    async fn decide(&self, script: &Script, lease: Option<Duration>, routes: &[Route]) -> Result<Vec<bool>> {
        let parts = self.redis.parts(routes.iter().map(|route| self.key(route.user)));
        let commands = parts.iter().map(|part| {
            let mut call = scripts::call(script, &part.keys);
            if let Some(lease) = lease {
                call.arg(millis(lease));
            }
            for (item, place) in &part.items {
                let route = &routes[*item];
                call.arg(*place).arg(route.device.to_string()).arg(sortable(route.epoch)).arg(format!("{} {}", route.connection, route.gateway));
            }
            (part.slot, call)
        });
        let mut decided = vec![false; routes.len()];
        for (part, answer) in parts.iter().zip(self.redis.run(commands.collect()).await) {
            match answer? {
                Value::Array(answers) if answers.len() == part.items.len() => {
                    for ((item, _), answer) in part.items.iter().zip(answers) {
                        decided[*item] = answer == Value::Int(1);
                    }
                }
                _ => return Err(misunderstood()),
            }
        }
        Ok(decided)
    }
}

#[async_trait]
impl Routes for RedisRoutes {
    async fn attach(&self, routes: &[Route], lease: Duration) -> Result<Vec<bool>> {
        self.decide(&scripts::ATTACH, Some(lease), routes).await
    }

    async fn detach(&self, routes: &[Route]) -> Result<Vec<bool>> {
        self.decide(&scripts::DETACH, None, routes).await
    }

    async fn locate(&self, users: &[UserId]) -> Result<Vec<Route>> {
        let parts = self.redis.parts(users.iter().map(|user| self.key(*user)));
        let commands = parts.iter().map(|part| (part.slot, scripts::call(&scripts::LOCATE, &part.keys))).collect();
        let mut found = Vec::new();
        for (part, answer) in parts.iter().zip(self.redis.run(commands).await) {
            let owners: HashMap<usize, UserId> = part.items.iter().map(|(item, place)| (*place, users[*item])).collect();
            let Value::Array(answers) = answer? else { return Err(misunderstood()) };
            for fields in answers.chunks_exact(3) {
                let [Value::Int(place), Value::BulkString(device), Value::BulkString(field)] = fields else { return Err(misunderstood()) };
                let user = usize::try_from(*place).ok().and_then(|place| owners.get(&place));
                match user.and_then(|user| parse(*user, device, field)) {
                    Some(route) => found.push(route),
                    // Of another version of the program; its gateway will tell again.
                    None => tracing::warn!(device = %String::from_utf8_lossy(device), "a route that cannot be read is passed over"),
                }
            }
        }
        Ok(found)
    }
}

fn parse(user: UserId, device: &[u8], field: &[u8]) -> Option<Route> {
    let device: DeviceId = std::str::from_utf8(device).ok()?.parse().ok()?;
    let epoch = from_sortable(field.get(..EPOCH_DIGITS)?)?;
    let (connection, gateway) = std::str::from_utf8(field.get(DIGITS..)?).ok()?.split_once(' ')?;
    Some(Route { user, device, gateway: gateway.parse().ok()?, connection: connection.parse().ok()?, epoch })
}

fn misunderstood() -> Error {
    Error::new(Code::Unavailable, "redis answered in another form than was asked for")
}
