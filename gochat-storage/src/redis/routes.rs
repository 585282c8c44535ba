//! Routes that all processes share.
//!
//! ```text
//! {prefix}user_gateway:{user}  string, one line per device:  device · epoch · end of the lease · connection · gateway
//!
//! attach, detach ─► a script per slot reads the string, decides, writes it anew
//! locate ─► TIME, MGET … ─► lines whose lease goes on
//! ```
//!
//! All devices of a user stand in one string because routes are looked up far more often than they change: a message to a group
//! of a thousand looks up a thousand users. `MGET` hands the strings out as they are; a hash per user would need a command per
//! user, or a script that asks for each one, at many times the cost. Fields stand at fixed places and in plain text, so that
//! scripts compare epochs as text and an operator can read them with `GET`.
//!
//! Leases begin and end by the clock of the server that has the key, read inside the script or in the pipeline of the lookup: no
//! caller's clock takes part. A route whose lease is over is not located, and is removed by whoever attaches or detaches next; the
//! key itself ends with its longest lease. After a failover to a server whose clock is ahead, leases end early by the difference:
//! gateways renew them.

use std::{borrow::Cow, time::Duration};

use gochat_core::{
    async_trait,
    error::Result,
    ids::{DeviceId, GatewayId, UserId},
    ports::{CacheKey, Route, Routes},
};
use redis::{Cmd, Value};
use uuid::{Uuid, fmt::Hyphenated};

use super::{
    PART_KEYS_MAX, Redis, from_sortable, millis, misunderstood, number,
    scripts::{self, Script},
    slots, sortable,
};

/// Where the fields of a line end; a space stands between two of them.
const DEVICE_END: usize = Hyphenated::LENGTH;
const EPOCH_END: usize = DEVICE_END + 1 + 20;
const LEASE_END: usize = EPOCH_END + 1 + 16;
/// Gateways whose names one lookup remembers.
const GATEWAYS_MAX: usize = 32;

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

    /// Runs a script that answers with a number for each route.
    async fn decide(&self, script: &Script, lease: Option<Duration>, routes: &[Route]) -> Result<Vec<bool>> {
        let parts = self.redis.parts(routes.iter().map(|route| self.redis.key(CacheKey::UserGateway(route.user))));
        let mut device = [0; Hyphenated::LENGTH];
        let commands = parts.iter().map(|part| {
            let mut call = scripts::call(script, &part.keys);
            if let Some(lease) = lease {
                call.arg(millis(lease));
            }
            for (item, place) in &part.items {
                let route = &routes[*item];
                call.arg(*place).arg(&*Uuid::from_bytes(*route.device.as_bytes()).hyphenated().encode_lower(&mut device));
                call.arg(sortable(route.epoch)).arg(format!("{} {}", route.connection, route.gateway));
            }
            (part.slot, call)
        });
        let commands = commands.collect();
        let mut decided = vec![false; routes.len()];
        for (part, answer) in parts.iter().zip(self.redis.run(commands).await) {
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

    /// Commands that fetch what is there of these users, which are all different, and how many of them each one names. In a
    /// Cluster the users are brought into the order of their slots.
    fn fetch(&self, users: &mut Cow<'_, [UserId]>) -> (Vec<(u16, Cmd)>, Vec<usize>) {
        let mut key = Key::new(&self.redis.0.settings.prefix);
        let mut commands = Vec::new();
        let mut counts = Vec::new();
        if self.redis.0.cluster.is_none() {
            for page in users.chunks(PART_KEYS_MAX) {
                commands.push((0, key.mget(page.iter().copied())));
                counts.push(page.len());
            }
            return (commands, counts);
        }
        let mut placed: Vec<(u16, UserId)> = users.iter().map(|user| (slots::slot_of(key.of(*user)), *user)).collect();
        placed.sort_unstable();
        for slot in placed.chunk_by(|(one, _), (next, _)| one == next) {
            for page in slot.chunks(PART_KEYS_MAX) {
                commands.push((page[0].0, key.mget(page.iter().map(|(_, user)| *user))));
                counts.push(page.len());
            }
        }
        *users = Cow::Owned(placed.into_iter().map(|(_, user)| user).collect());
        (commands, counts)
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
        let mut users = Cow::Borrowed(users);
        if !users.is_sorted_by(|one, next| one < next) {
            let users = users.to_mut();
            users.sort_unstable();
            users.dedup();
        }
        let (commands, counts) = self.fetch(&mut users);
        let mut reader = Reader { found: Vec::with_capacity(users.len()), ..Reader::default() };
        let mut rest = &*users;
        for (count, answer) in counts.into_iter().zip(self.redis.run_timed(commands).await) {
            let (page, behind) = rest.split_at(count);
            rest = behind;
            let (Value::Array(values), now) = answer? else { return Err(misunderstood()) };
            if values.len() != count {
                return Err(misunderstood());
            }
            for (user, value) in page.iter().zip(&values) {
                match value {
                    Value::BulkString(lines) => reader.read(*user, lines, now),
                    Value::Nil => {}
                    _ => return Err(misunderstood()),
                }
            }
        }
        if reader.unread > 0 {
            // Of another version of the program; their gateways will tell again.
            tracing::warn!(routes = reader.unread, "routes that cannot be read are passed over");
        }
        Ok(reader.found)
    }
}

/// The key of one user after the other, in one buffer.
struct Key {
    bytes: Vec<u8>,
    /// Length of what stands before the user.
    prefix: usize,
}

impl Key {
    fn new(prefix: &str) -> Self {
        let mut bytes = [prefix.as_bytes(), b"user_gateway:"].concat();
        let prefix = bytes.len();
        bytes.resize(prefix + Hyphenated::LENGTH, 0);
        Key { bytes, prefix }
    }

    fn of(&mut self, user: UserId) -> &[u8] {
        Uuid::from_bytes(*user.as_bytes()).hyphenated().encode_lower(&mut self.bytes[self.prefix..]);
        &self.bytes
    }

    fn mget(&mut self, users: impl ExactSizeIterator<Item = UserId>) -> Cmd {
        let mut get = Cmd::with_capacity(1 + users.len(), 4 + users.len() * self.bytes.len());
        get.arg("MGET");
        for user in users {
            get.arg(self.of(user));
        }
        get
    }
}

/// Reads strings into routes.
#[derive(Default)]
struct Reader {
    found: Vec<Route>,
    /// Lines that are of another form.
    unread: usize,
    /// Gateways of the routes so far: a few names stand in thousands of routes.
    gateways: Vec<GatewayId>,
}

impl Reader {
    /// The routes of this user whose lease goes on at this time.
    fn read(&mut self, user: UserId, lines: &[u8], now: u64) {
        for line in lines.split(|byte| *byte == b'\n') {
            match self.route(user, line) {
                Some((route, ends)) if ends > now => self.found.push(route),
                Some(_) => {}
                None => self.unread += 1,
            }
        }
    }

    /// A line as route and end of its lease.
    fn route(&mut self, user: UserId, line: &[u8]) -> Option<(Route, u64)> {
        let (head, tail) = line.split_at_checked(LEASE_END + 1)?;
        if [DEVICE_END, EPOCH_END, LEASE_END].iter().any(|space| head[*space] != b' ') {
            return None;
        }
        let device = DeviceId::from(Uuid::try_parse_ascii(&head[..DEVICE_END]).ok()?);
        let epoch = from_sortable(&head[DEVICE_END + 1..EPOCH_END])?;
        let ends = number(&head[EPOCH_END + 1..LEASE_END])?;
        let space = tail.iter().position(|byte| *byte == b' ')?;
        let connection = number(&tail[..space])?;
        Some((Route { user, device, gateway: self.gateway(&tail[space + 1..])?, connection, epoch }, ends))
    }

    fn gateway(&mut self, name: &[u8]) -> Option<GatewayId> {
        if let Some(known) = self.gateways.iter().find(|known| known.as_str().as_bytes() == name) {
            return Some(known.clone());
        }
        let new: GatewayId = std::str::from_utf8(name).ok()?.parse().ok()?;
        if self.gateways.len() < GATEWAYS_MAX {
            self.gateways.push(new.clone());
        }
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: UserId = UserId::from_bytes([7; 16]);

    fn line(device: u8, epoch: i64, ends: u64, tail: &str) -> String {
        format!("{} {} {ends:016} {tail}", DeviceId::from_bytes([device; 16]), sortable(epoch))
    }

    fn read(value: &[u8], now: u64) -> (Vec<Route>, usize) {
        let mut reader = Reader::default();
        reader.read(USER, value, now);
        (reader.found, reader.unread)
    }

    fn route(device: u8, epoch: i64, gateway: &str, connection: u64) -> Route {
        Route { user: USER, device: DeviceId::from_bytes([device; 16]), gateway: gateway.parse().unwrap(), connection, epoch }
    }

    #[test]
    fn every_line_whose_lease_goes_on_is_a_route() {
        let value = [line(1, -5, 100, "18446744073709551615 a"), line(2, i64::MAX, 99, "0 b-1"), line(3, 0, 101, "9 a")].join("\n");
        let [first, second, third] = [route(1, -5, "a", u64::MAX), route(2, i64::MAX, "b-1", 0), route(3, 0, "a", 9)];
        assert_eq!(read(value.as_bytes(), 98), (vec![first.clone(), second, third.clone()], 0));
        assert_eq!(read(value.as_bytes(), 99), (vec![first, third.clone()], 0), "a lease is over at its end");
        assert_eq!(read(value.as_bytes(), 100), (vec![third], 0));
        assert_eq!(read(value.as_bytes(), 101), (vec![], 0));
    }

    #[test]
    fn damaged_lines_are_passed_over_and_those_beside_them_are_read() {
        let whole = line(1, 5, 100, "17 gateway-1");
        let found = vec![route(1, 5, "gateway-1", 17)];
        // Cut anywhere: another name of the gateway at most, never another route.
        for end in 0..whole.len() {
            let (routes, unread) = read(&whole.as_bytes()[..end], 0);
            assert_eq!(routes.len() + unread, 1, "{end}");
            assert_eq!(routes.len(), usize::from(end > whole.len() - "gateway-1".len()), "{end}");
        }
        // One byte that cannot stand anywhere.
        for at in 0..whole.len() {
            for byte in [0, b'~', 0xff] {
                let mut damaged = whole.clone().into_bytes();
                damaged[at] = byte;
                assert_eq!(read(&damaged, 0), (vec![], 1), "{byte} at {at}");
                let beside = [damaged.as_slice(), whole.as_bytes()].join(&b'\n');
                assert_eq!(read(&beside, 0), (found.clone(), 1));
            }
        }
        for damaged in ["", "x", "17 gateway-1 and more", &format!(" {whole}"), &whole.replace("17 ", "18446744073709551616 ")] {
            assert_eq!(read(damaged.as_bytes(), 0), (vec![], 1), "{damaged}");
        }
        for tail in
            ["", " ", "17", "17 ", " gateway-1", "-1 gateway-1", "+1 gateway-1", "1  gateway-1", "1 GATEWAY", &format!("1 {}", "g".repeat(41))]
        {
            assert_eq!(read(line(1, 5, 100, tail).as_bytes(), 0), (vec![], 1), "{tail}");
        }
    }

    #[test]
    fn more_gateways_than_are_remembered_are_read_all_the_same() {
        let mut reader = Reader::default();
        for round in 0..2 {
            for n in 0..2 * GATEWAYS_MAX {
                reader.read(USER, line(1, 5, 100, &format!("17 gateway-{n}")).as_bytes(), 0);
                assert_eq!(reader.found.pop(), Some(route(1, 5, &format!("gateway-{n}"), 17)), "{round}");
            }
        }
        assert_eq!((reader.gateways.len(), reader.unread), (GATEWAYS_MAX, 0));
    }

    #[test]
    fn keys_are_those_of_the_port() {
        let mut key = Key::new("some:");
        for user in [USER, UserId::from_bytes([0xab; 16])] {
            assert_eq!(key.of(user), format!("some:{}", CacheKey::UserGateway(user)).as_bytes());
        }
    }
}
