//! Routes of the devices that are connected to this process.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hasher},
    sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use gochat_core::{
    async_trait,
    error::Result,
    ids::UserId,
    ports::{Route, Routes},
};
use tokio::time::Instant;

/// Parts with a lock each. A power of two.
const SHARDS: usize = 64;
/// How often one part is looked through for leases that are over, by whoever attaches next.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// [`Routes`] in memory. Leases run on the monotonic clock.
pub struct LocalRoutes {
    shards: Vec<RwLock<Shard>>,
    sweep: Mutex<(usize, Option<Instant>)>,
}

type Shard = HashMap<u128, Vec<Leased>, BuildHasherDefault<IdHasher>>;

struct Leased {
    route: Route,
    until: Instant,
}

impl Default for LocalRoutes {
    fn default() -> Self {
        LocalRoutes { shards: std::iter::repeat_with(RwLock::default).take(SHARDS).collect(), sweep: Mutex::default() }
    }
}

impl fmt::Debug for LocalRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalRoutes").field("users", &(0..SHARDS).map(|shard| self.read(shard).len()).sum::<usize>()).finish()
    }
}

#[async_trait]
impl Routes for LocalRoutes {
    async fn attach(&self, routes: &[Route], lease: Duration) -> Result<Vec<bool>> {
        let now = Instant::now();
        self.sweep(now);
        Ok(routes.iter().map(|route| self.attach_one(route, now, now + lease)).collect())
    }

    async fn detach(&self, routes: &[Route]) -> Result<Vec<bool>> {
        let now = Instant::now();
        Ok(routes.iter().map(|route| self.detach_one(route, now)).collect())
    }

    async fn locate(&self, users: &[UserId]) -> Result<Vec<Route>> {
        let now = Instant::now();
        let mut found = Vec::with_capacity(users.len());
        for user in users {
            let key = key(*user);
            if let Some(leased) = self.read(shard(key)).get(&key) {
                found.extend(leased.iter().filter(|leased| now < leased.until).map(|leased| leased.route.clone()));
            }
        }
        Ok(found)
    }
}

impl LocalRoutes {
    fn attach_one(&self, route: &Route, now: Instant, until: Instant) -> bool {
        let key = key(route.user);
        let mut shard = self.write(shard(key));
        // Most users have one device connected; a vector that grows by itself would take room for four.
        let leased = shard.entry(key).or_insert_with(|| Vec::with_capacity(1));
        leased.retain(|leased| now < leased.until);
        match leased.iter_mut().find(|leased| leased.route.device == route.device) {
            Some(present) if present.route.epoch > route.epoch => return false,
            Some(present) => *present = Leased { route: route.clone(), until },
            None => leased.push(Leased { route: route.clone(), until }),
        }
        true
    }

    fn detach_one(&self, route: &Route, now: Instant) -> bool {
        let key = key(route.user);
        let mut shard = self.write(shard(key));
        let Some(leased) = shard.get_mut(&key) else { return true };
        leased.retain(|leased| now < leased.until && leased.route != *route);
        let taken = leased.iter().any(|leased| leased.route.device == route.device && leased.route.epoch > route.epoch);
        if leased.is_empty() {
            shard.remove(&key);
        }
        !taken
    }

    /// Whoever never comes back is forgotten, one part at a time.
    fn sweep(&self, now: Instant) {
        let part = {
            let mut sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
            if sweep.1.is_some_and(|last| now < last + SWEEP_EVERY) {
                return;
            }
            *sweep = ((sweep.0 + 1) % SHARDS, Some(now));
            sweep.0
        };
        self.write(part).retain(|_, leased| {
            leased.retain(|leased| now < leased.until);
            !leased.is_empty()
        });
    }

    fn read(&self, shard: usize) -> RwLockReadGuard<'_, Shard> {
        self.shards[shard].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, shard: usize) -> RwLockWriteGuard<'_, Shard> {
        self.shards[shard].write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(user: UserId) -> u128 {
    u128::from_be_bytes(*user.as_bytes())
}

fn shard(key: u128) -> usize {
    // The upper bits; the table itself uses the others.
    (mixed(key) >> 48) as usize % SHARDS
}

/// The random half of a UUID is at its end, its time at the front: both go in.
fn mixed(key: u128) -> u64 {
    let folded = (key as u64 ^ (key >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    folded ^ (folded >> 29)
}

/// Ids are made by the server, so nobody can choose them to collide: a multiplication is enough.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = mixed(u128::from(self.0) << 8 | u128::from(*byte));
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = mixed(key);
    }
}

#[cfg(test)]
mod tests {
    use gochat_core::ids::{DeviceId, GatewayId};

    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn route(user: u8, device: u8, connection: u64, epoch: i64) -> Route {
        Route {
            user: UserId::from_bytes([user; 16]),
            device: DeviceId::from_bytes([device; 16]),
            gateway: "gw-1".parse::<GatewayId>().unwrap(),
            connection,
            epoch,
        }
    }

    async fn located(routes: &LocalRoutes, user: u8) -> Vec<u64> {
        let mut found: Vec<u64> = routes.locate(&[UserId::from_bytes([user; 16])]).await.unwrap().iter().map(|route| route.connection).collect();
        found.sort_unstable();
        found
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_connection_of_a_device_has_the_route() {
        let routes = LocalRoutes::default();
        assert_eq!(routes.attach(&[route(1, 1, 10, 5), route(1, 2, 20, 1), route(2, 1, 30, 1)], LEASE).await.unwrap(), [true, true, true]);
        assert_eq!(located(&routes, 1).await, [10, 20]);
        assert_eq!(routes.attach(&[route(1, 1, 9, 4), route(1, 1, 10, 5), route(1, 1, 11, 6)], LEASE).await.unwrap(), [false, true, true]);
        assert_eq!(located(&routes, 1).await, [11, 20]);
        assert_eq!(routes.detach(&[route(1, 1, 10, 5)]).await.unwrap(), [false], "a late close takes nobody else's route");
        assert_eq!(located(&routes, 1).await, [11, 20]);
        assert_eq!(routes.detach(&[route(1, 1, 11, 6), route(1, 2, 20, 1)]).await.unwrap(), [true, true]);
        assert_eq!(located(&routes, 1).await, [0; 0]);
        assert_eq!(located(&routes, 2).await, [30]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_unless_it_is_renewed() {
        let routes = LocalRoutes::default();
        routes.attach(&[route(1, 1, 10, 5), route(2, 1, 20, 1)], LEASE).await.unwrap();
        tokio::time::advance(LEASE / 2).await;
        routes.attach(&[route(2, 1, 20, 1)], LEASE).await.unwrap();
        tokio::time::advance(LEASE / 2).await;
        assert_eq!((located(&routes, 1).await, located(&routes, 2).await), (vec![], vec![20]));
        for _ in 0..2 * SHARDS {
            tokio::time::advance(SWEEP_EVERY).await;
            routes.attach(&[], LEASE).await.unwrap();
        }
        assert!((0..SHARDS).all(|shard| routes.read(shard).is_empty()), "what nobody renews is forgotten");
    }
}
