//! Devices, their sessions, refresh tokens and the login log.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, btree_map::Entry};

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gochat_core::{
    error::{Code, Result as Outcome},
    ids::{DeviceId, UserId},
    limits::DEVICES_MAX,
    model::{Caller, Connected, Device, LoginAttempt, LoginOutcome, NewSession, Refreshed, Rotation, UserStatus},
    time::Timestamp,
};

use super::{Conn, Fail, IN_MAX, insert_devices, insert_logins, limit, locked, locked_devices, store_connections};
use crate::sql::{
    rows::{DeviceRow, LoginRow, TOKEN_CURRENT, TOKEN_USED, TokenRow, UserRow},
    schema::{devices, login_log, refresh_tokens, users},
};

pub async fn record_login(conn: &mut Conn, session: NewSession) -> Result<(Device, Vec<Caller>), Fail> {
    let user = locked!(users::table.find(&session.user.as_bytes()[..]).select(UserRow::as_select())).first(conn).await.optional()?;
    let user = user.filter(|user| user.status == UserStatus::Active as i32).ok_or(Code::LoginFailed)?;
    let device = match device(conn, session.user, session.device).await? {
        Some(mut row) => {
            row.session_epoch += i64::from(!row.signed_in);
            row.name = session.device_name;
            row.signed_in = true;
            row.last_seen_at = session.at.0;
            let values = (
                devices::name.eq(&row.name),
                devices::session_epoch.eq(row.session_epoch),
                devices::signed_in.eq(true),
                devices::last_seen_at.eq(row.last_seen_at),
            );
            diesel::update(devices::table.find((&row.user_id, &row.device_id))).set(values).execute(conn).await?;
            row
        }
        None => {
            // Epoch 0 belongs to devices that an external authenticator brought.
            let row = DeviceRow {
                user_id: session.user.as_bytes().to_vec(),
                device_id: session.device.as_bytes().to_vec(),
                name: session.device_name,
                session_epoch: 1,
                connection_epoch: 0,
                signed_in: true,
                last_seen_at: session.at.0,
                created_at: session.at.0,
            };
            diesel::insert_into(devices::table).values(&row).execute(conn).await?;
            row
        }
    };
    forget_expired_tokens(conn, &device, session.at).await?;
    let token = TokenRow {
        token_hash: session.refresh_hash.to_vec(),
        family_id: session.family.as_bytes().to_vec(),
        user_id: device.user_id.clone(),
        device_id: device.device_id.clone(),
        state: TOKEN_CURRENT,
        expires_at: session.refresh_expires_at.0,
        used_at: None,
        successor_sealed: None,
    };
    diesel::insert_into(refresh_tokens::table).values(&token).execute(conn).await?;
    let entry = LoginAttempt {
        user: Some(session.user),
        username: user.username,
        device: Some(session.device),
        outcome: LoginOutcome::Success,
        address: session.address,
        at: session.at,
    };
    diesel::insert_into(login_log::table).values(LoginRow::from_attempt(&entry)).execute(conn).await?;
    let ended = end_oldest(conn, session.user, session.device).await?;
    Ok((device.into_device()?, ended))
}

/// Signs out what is beyond the limit, the ones seen longest ago first, never the one that just came.
async fn end_oldest(conn: &mut Conn, user: UserId, newest: DeviceId) -> Result<Vec<Caller>, Fail> {
    let others = devices::table
        .filter(devices::user_id.eq(&user.as_bytes()[..]).and(devices::device_id.ne(&newest.as_bytes()[..])).and(devices::signed_in.eq(true)))
        .order((devices::last_seen_at.desc(), devices::created_at.desc(), devices::device_id.desc()))
        .select(DeviceRow::as_select())
        .load(conn)
        .await?;
    let mut ended = Vec::new();
    for row in others.into_iter().skip(DEVICES_MAX - 1) {
        ended.push(end(conn, row).await?);
    }
    Ok(ended)
}

pub async fn record_failed_logins(conn: &mut Conn, attempts: Vec<LoginAttempt>) -> Result<(), Fail> {
    let rows: Vec<LoginRow> = attempts.iter().map(LoginRow::from_attempt).collect();
    insert_logins(conn, &rows).await
}

pub async fn login_log(conn: &mut Conn, user: UserId, rows: usize) -> Result<Vec<LoginAttempt>, Fail> {
    let query = login_log::table.filter(login_log::user_id.eq(&user.as_bytes()[..])).order(login_log::id.desc()).limit(limit(rows));
    query.select(LoginRow::as_select()).load(conn).await?.into_iter().map(LoginRow::into_attempt).collect()
}

pub async fn rotate_refresh(conn: &mut Conn, rotation: Rotation) -> Result<Refreshed, Fail> {
    let presented = refresh_tokens::table.find(&rotation.presented_hash[..]).select(TokenRow::as_select());
    let Some(token) = locked!(presented).first(conn).await.optional()? else { return Ok(Refreshed::Refused) };
    if token.expires_at <= rotation.at.0 {
        return Ok(Refreshed::Refused);
    }
    let (user, device) = (UserId::from_slice(&token.user_id)?, DeviceId::from_slice(&token.device_id)?);
    let account = users::table.find(&token.user_id).select(UserRow::as_select()).first(conn).await.optional()?;
    let account = account.filter(|account| account.status == UserStatus::Active as i32);
    let session = self::device(conn, user, device).await?.filter(|device| device.signed_in);
    let (Some(account), Some(session)) = (account, session) else { return Ok(Refreshed::Refused) };
    let caller = Caller { user, device, session_epoch: session.session_epoch };
    if token.state == TOKEN_USED {
        let used_at = Timestamp(token.used_at.unwrap_or(0));
        return match token.successor_sealed {
            Some(successor_sealed) if rotation.at <= used_at.plus(rotation.grace) => {
                Ok(Refreshed::Repeated { caller, user: account.into_user()?, successor_sealed })
            }
            _ => Ok(Refreshed::Reused { caller: end(conn, session).await? }),
        };
    }
    // Sealed successors are kept for the grace only.
    let family = refresh_tokens::table.filter(refresh_tokens::user_id.eq(&token.user_id).and(refresh_tokens::device_id.eq(&token.device_id)));
    let before = rotation.at.0.saturating_sub(Timestamp(0).plus(rotation.grace).0);
    diesel::update(family.filter(refresh_tokens::used_at.lt(before))).set(refresh_tokens::successor_sealed.eq(None::<Vec<u8>>)).execute(conn).await?;
    forget_expired_tokens(conn, &session, rotation.at).await?;
    let used = (
        refresh_tokens::state.eq(TOKEN_USED),
        refresh_tokens::used_at.eq(Some(rotation.at.0)),
        refresh_tokens::successor_sealed.eq(Some(rotation.successor_sealed)),
    );
    diesel::update(refresh_tokens::table.find(&token.token_hash)).set(used).execute(conn).await?;
    let successor = TokenRow {
        token_hash: rotation.successor_hash.to_vec(),
        state: TOKEN_CURRENT,
        expires_at: rotation.expires_at.0,
        used_at: None,
        successor_sealed: None,
        ..token
    };
    diesel::insert_into(refresh_tokens::table).values(&successor).execute(conn).await?;
    Ok(Refreshed::Rotated { caller, user: account.into_user()? })
}

pub async fn of_users(conn: &mut Conn, users: Vec<UserId>) -> Result<Vec<Vec<Device>>, Fail> {
    let mut found = load(conn, &users).await?;
    for devices in found.values_mut() {
        devices.sort_by_key(|device| std::cmp::Reverse((device.last_seen_at, device.created_at, device.id)));
    }
    Ok(users.iter().map(|user| found.get(user).cloned().unwrap_or_default()).collect())
}

pub async fn by_keys(conn: &mut Conn, keys: Vec<(UserId, DeviceId)>) -> Result<Vec<Option<Device>>, Fail> {
    let found = load(conn, &keys.iter().map(|(user, _)| *user).collect::<Vec<_>>()).await?;
    Ok(keys.iter().map(|(user, id)| found.get(user)?.iter().find(|device| device.id == *id).cloned()).collect())
}

pub async fn sign_out(conn: &mut Conn, keys: Vec<(UserId, DeviceId)>) -> Result<Vec<Option<Caller>>, Fail> {
    let mut ended = Vec::with_capacity(keys.len());
    for (user, id) in keys {
        ended.push(match device(conn, user, id).await?.filter(|device| device.signed_in) {
            Some(row) => Some(end(conn, row).await?),
            None => None,
        });
    }
    Ok(ended)
}

pub async fn connect(conn: &mut Conn, callers: Vec<Caller>, at: Timestamp) -> Result<Vec<Outcome<Connected>>, Fail> {
    let active = locked_active(conn, callers.iter().map(|caller| caller.user)).await?;
    let mut keys: Vec<(UserId, DeviceId)> =
        callers.iter().filter(|caller| active.contains(&caller.user)).map(|caller| (caller.user, caller.device)).collect();
    keys.sort_unstable();
    keys.dedup();
    // In the order of their keys: whoever else locks them does so in the same order.
    let mut rows: BTreeMap<(UserId, DeviceId), Connecting> = BTreeMap::new();
    for row in locked_devices(conn, &keys).await? {
        let key = (UserId::from_slice(&row.user_id)?, DeviceId::from_slice(&row.device_id)?);
        rows.insert(key, Connecting { row, is_new: false, connected: false });
    }
    let mut connected = Vec::with_capacity(callers.len());
    for caller in callers {
        connected.push(if active.contains(&caller.user) { connect_one(&mut rows, &caller, at) } else { Err(Code::SessionRevoked.into()) });
    }
    let (new, known): (Vec<&Connecting>, Vec<&Connecting>) = rows.values().filter(|device| device.connected).partition(|device| device.is_new);
    insert_devices(conn, &new.iter().map(|device| &device.row).collect::<Vec<_>>()).await?;
    store_connections(conn, &known.iter().map(|device| &device.row).collect::<Vec<_>>()).await?;
    Ok(connected)
}

/// A device whose connections are registered.
struct Connecting {
    row: DeviceRow,
    is_new: bool,
    connected: bool,
}

fn connect_one(rows: &mut BTreeMap<(UserId, DeviceId), Connecting>, caller: &Caller, at: Timestamp) -> Outcome<Connected> {
    let device = match rows.entry((caller.user, caller.device)) {
        Entry::Occupied(device) => device.into_mut(),
        // An external authenticator knows the device; we see it for the first time.
        Entry::Vacant(place) if caller.session_epoch == 0 => {
            let row = DeviceRow {
                user_id: caller.user.as_bytes().to_vec(),
                device_id: caller.device.as_bytes().to_vec(),
                name: String::new(),
                session_epoch: 0,
                connection_epoch: 0,
                signed_in: true,
                last_seen_at: at.0,
                created_at: at.0,
            };
            place.insert(Connecting { row, is_new: true, connected: false })
        }
        Entry::Vacant(_) => return Err(Code::SessionRevoked.into()),
    };
    if !device.row.signed_in || device.row.session_epoch != caller.session_epoch {
        return Err(Code::SessionRevoked.into());
    }
    device.connected = true;
    device.row.connection_epoch += 1;
    device.row.last_seen_at = device.row.last_seen_at.max(at.0);
    Ok(Connected { connection_epoch: device.row.connection_epoch })
}

/// Ends the sessions of a user, but not on the device that is `kept`. Answers with the devices that were signed in.
pub async fn end_all(conn: &mut Conn, user: UserId, kept: Option<DeviceId>) -> Result<Vec<Caller>, Fail> {
    let all = devices::table.filter(devices::user_id.eq(&user.as_bytes()[..])).order(devices::device_id);
    let mut ended = Vec::new();
    for row in locked!(all.select(DeviceRow::as_select())).load(conn).await? {
        if kept.is_some_and(|kept| kept.as_bytes()[..] == row.device_id[..]) {
            continue;
        }
        let was_signed_in = row.signed_in;
        let caller = end(conn, row).await?;
        ended.extend(was_signed_in.then_some(caller));
    }
    Ok(ended)
}

/// Ends the session of one device; answers with its new epoch.
async fn end(conn: &mut Conn, row: DeviceRow) -> Result<Caller, Fail> {
    let caller =
        Caller { user: UserId::from_slice(&row.user_id)?, device: DeviceId::from_slice(&row.device_id)?, session_epoch: row.session_epoch + 1 };
    let values = (devices::session_epoch.eq(caller.session_epoch), devices::signed_in.eq(false));
    diesel::update(devices::table.find((&row.user_id, &row.device_id))).set(values).execute(conn).await?;
    let tokens = refresh_tokens::table.filter(refresh_tokens::user_id.eq(&row.user_id).and(refresh_tokens::device_id.eq(&row.device_id)));
    diesel::delete(tokens).execute(conn).await?;
    Ok(caller)
}

async fn forget_expired_tokens(conn: &mut Conn, device: &DeviceRow, now: Timestamp) -> Result<(), Fail> {
    let tokens = refresh_tokens::table.filter(refresh_tokens::user_id.eq(&device.user_id).and(refresh_tokens::device_id.eq(&device.device_id)));
    diesel::delete(tokens.filter(refresh_tokens::expires_at.le(now.0))).execute(conn).await?;
    Ok(())
}

async fn device(conn: &mut Conn, user: UserId, id: DeviceId) -> Result<Option<DeviceRow>, Fail> {
    let query = devices::table.find((&user.as_bytes()[..], &id.as_bytes()[..])).select(DeviceRow::as_select());
    Ok(locked!(query).first(conn).await.optional()?)
}

async fn load(conn: &mut Conn, users: &[UserId]) -> Result<HashMap<UserId, Vec<Device>>, Fail> {
    let users: Vec<UserId> = users.iter().copied().collect::<HashSet<_>>().into_iter().collect();
    let mut found: HashMap<UserId, Vec<Device>> = HashMap::with_capacity(users.len());
    for page in users.chunks(IN_MAX) {
        let ids = page.iter().map(|id| &id.as_bytes()[..]);
        for row in devices::table.filter(devices::user_id.eq_any(ids)).select(DeviceRow::as_select()).load(conn).await? {
            let device = row.into_device()?;
            found.entry(device.user).or_default().push(device);
        }
    }
    Ok(found)
}

/// Those of these users whose accounts may be used, and stay so until this transaction ends.
async fn locked_active(conn: &mut Conn, ids: impl Iterator<Item = UserId>) -> Result<HashSet<UserId>, Fail> {
    let ids: Vec<UserId> = ids.collect::<BTreeSet<_>>().into_iter().collect();
    let mut active = HashSet::with_capacity(ids.len());
    for page in ids.chunks(IN_MAX) {
        let query = users::table.filter(users::id.eq_any(page.iter().map(|id| &id.as_bytes()[..]))).order(users::id);
        for (id, status) in locked!(query.select((users::id, users::status))).load::<(Vec<u8>, i32)>(conn).await? {
            if status == UserStatus::Active as i32 {
                active.insert(UserId::from_slice(&id)?);
            }
        }
    }
    Ok(active)
}

/// Those of these users whose accounts may be used.
pub async fn active(conn: &mut Conn, ids: impl Iterator<Item = UserId>) -> Result<HashSet<UserId>, Fail> {
    let ids: Vec<UserId> = ids.collect::<HashSet<_>>().into_iter().collect();
    let mut active = HashSet::with_capacity(ids.len());
    for page in ids.chunks(IN_MAX) {
        let query = users::table.filter(users::id.eq_any(page.iter().map(|id| &id.as_bytes()[..])).and(users::status.eq(UserStatus::Active as i32)));
        for id in query.select(users::id).load::<Vec<u8>>(conn).await? {
            active.insert(UserId::from_slice(&id)?);
        }
    }
    Ok(active)
}
