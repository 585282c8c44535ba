//! Accounts and their password hashes.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gochat_core::{
    error::Code,
    ids::{DeviceId, UserId},
    model::{Caller, Credential, NewUser, ProfileChange, User, UserStatus},
};

use super::{Conn, Fail, IN_MAX, devices, limit, locked};
use crate::sql::{
    rows::UserRow,
    schema::{credentials, users},
};

pub async fn create(conn: &mut Conn, new: NewUser) -> Result<User, Fail> {
    let row = UserRow {
        id: new.id.as_bytes().to_vec(),
        username: new.username,
        display_name: new.display_name,
        avatar_url: None,
        status: UserStatus::Active as i32,
        external_id: new.external_id,
        version: 1,
        created_at: new.created_at.0,
    };
    match diesel::insert_into(users::table).values(&row).execute(conn).await.map_err(Fail::from) {
        Ok(_) => {}
        Err(fail) if fail.is_unique_violation() => return taken(conn, row).await,
        Err(fail) => return Err(fail),
    }
    if let Some(phc) = new.password_phc {
        let values = (credentials::user_id.eq(&row.id), credentials::phc.eq(phc));
        diesel::insert_into(credentials::table).values(values).execute(conn).await?;
    }
    row.into_user()
}

/// Which key is in use. The very same account is none: the call is repeated.
async fn taken(conn: &mut Conn, new: UserRow) -> Result<User, Fail> {
    let named = users::table.filter(users::username.eq(&new.username)).select(UserRow::as_select()).first(conn).await.optional()?;
    match named {
        Some(stored) if stored.id == new.id && stored.external_id == new.external_id => stored.into_user(),
        Some(_) => Err(Code::UsernameTaken.into()),
        None => Err(Code::IdempotencyConflict.into()),
    }
}

pub async fn by_ids(conn: &mut Conn, ids: Vec<UserId>) -> Result<Vec<Option<User>>, Fail> {
    let mut found: HashMap<UserId, User> = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(IN_MAX) {
        let ids = ids.iter().map(|id| &id.as_bytes()[..]);
        for row in users::table.filter(users::id.eq_any(ids)).select(UserRow::as_select()).load(conn).await? {
            let user = row.into_user()?;
            found.insert(user.id, user);
        }
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

pub async fn by_name(conn: &mut Conn, username: String) -> Result<Option<User>, Fail> {
    let row = users::table.filter(users::username.eq(username)).select(UserRow::as_select()).first(conn).await.optional()?;
    row.map(UserRow::into_user).transpose()
}

pub async fn by_external_id(conn: &mut Conn, external_id: String) -> Result<Option<User>, Fail> {
    let row = users::table.filter(users::external_id.eq(external_id)).select(UserRow::as_select()).first(conn).await.optional()?;
    row.map(UserRow::into_user).transpose()
}

pub async fn by_prefix(conn: &mut Conn, prefix: String, after: Option<String>, rows: usize) -> Result<Vec<User>, Fail> {
    // A range of the index instead of LIKE: nothing to escape, case and all.
    let end = format!("{prefix}\u{10ffff}");
    let from = after.unwrap_or_default();
    let query = users::table.filter(users::username.ge(prefix).and(users::username.lt(end)).and(users::username.gt(from)));
    let found = query.order(users::username).limit(limit(rows)).select(UserRow::as_select()).load(conn).await?;
    found.into_iter().map(UserRow::into_user).collect()
}

pub async fn update_profile(conn: &mut Conn, id: UserId, change: ProfileChange) -> Result<User, Fail> {
    let mut row = account(conn, id).await?;
    if change == ProfileChange::default() {
        return row.into_user();
    }
    row.display_name = change.display_name.unwrap_or(row.display_name);
    row.avatar_url = change.avatar_url.unwrap_or(row.avatar_url);
    row.version += 1;
    let values = (users::display_name.eq(&row.display_name), users::avatar_url.eq(&row.avatar_url), users::version.eq(row.version));
    diesel::update(users::table.find(&row.id)).set(values).execute(conn).await?;
    row.into_user()
}

pub async fn set_status(conn: &mut Conn, id: UserId, status: UserStatus) -> Result<Vec<Caller>, Fail> {
    let row = account(conn, id).await?;
    if row.status != status as i32 {
        let values = (users::status.eq(status as i32), users::version.eq(row.version + 1));
        diesel::update(users::table.find(&row.id)).set(values).execute(conn).await?;
    }
    match status {
        UserStatus::Active => Ok(Vec::new()),
        UserStatus::Disabled => devices::end_all(conn, id, None).await,
    }
}

pub async fn credential(conn: &mut Conn, user: UserId) -> Result<Option<Credential>, Fail> {
    let phc = credentials::table.find(&user.as_bytes()[..]).select(credentials::phc).first(conn).await.optional()?;
    Ok(phc.map(|phc| Credential { user, phc }))
}

pub async fn set_credential(conn: &mut Conn, credential: Credential, revoke_except: Option<Option<DeviceId>>) -> Result<Vec<Caller>, Fail> {
    let row = account(conn, credential.user).await?;
    let values = (credentials::user_id.eq(&row.id), credentials::phc.eq(credential.phc));
    diesel::replace_into(credentials::table).values(values).execute(conn).await?;
    match revoke_except {
        Some(kept) => devices::end_all(conn, credential.user, kept).await,
        None => Ok(Vec::new()),
    }
}

/// The account that a write is about.
async fn account(conn: &mut Conn, id: UserId) -> Result<UserRow, Fail> {
    let row = locked!(users::table.find(&id.as_bytes()[..]).select(UserRow::as_select())).first(conn).await.optional()?;
    row.ok_or_else(|| Code::UserNotFound.into())
}
