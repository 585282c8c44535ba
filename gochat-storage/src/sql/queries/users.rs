//! Accounts.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper, TextExpressionMethods};
use diesel_async::RunQueryDsl;
use gochat_core::{
    error::{Code, Error},
    ids::{DeviceId, UserId},
    model::{Caller, Credential, NewUser, ProfileChange, User, UserStatus},
};

use super::{Conn, devices};
use crate::sql::{
    fail::Fail,
    rows::UserRow,
    schema::{credentials, users},
};

pub async fn create(conn: &mut Conn, new: NewUser) -> Result<User, Fail> {
    let taken: Option<Vec<u8>> = users::table.filter(users::username.eq(&new.username)).select(users::id).first(conn).await.optional()?;
    if taken.is_some() {
        return Err(Error::new(Code::UsernameTaken, format!("the user name {} is taken", new.username)).into());
    }
    let row = UserRow {
        id: new.id.as_bytes().to_vec(),
        username: new.username,
        display_name: new.display_name,
        avatar_url: None,
        status: status_number(UserStatus::Active),
        external_id: new.external_id,
        version: 1,
        created_at: new.created_at.0,
    };
    match diesel::insert_into(users::table).values(&row).execute(conn).await.map_err(Fail::from) {
        Err(fail) if fail.is_unique_violation() => return Err(Error::new(Code::IdempotencyConflict, "the user id or external id is in use").into()),
        done => done?,
    };
    if let Some(phc) = new.password_phc {
        diesel::insert_into(credentials::table).values((credentials::user_id.eq(row.id.clone()), credentials::phc.eq(phc))).execute(conn).await?;
    }
    row.into_user()
}

fn status_number(status: UserStatus) -> i32 {
    match status {
        UserStatus::Active => 0,
        UserStatus::Disabled => 1,
    }
}

pub async fn by_ids(conn: &mut Conn, ids: Vec<UserId>) -> Result<Vec<Option<User>>, Fail> {
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        found.push(by_id(conn, id).await?);
    }
    Ok(found)
}

pub async fn by_id(conn: &mut Conn, id: UserId) -> Result<Option<User>, Fail> {
    let row: Option<UserRow> = users::table.find(&id.as_bytes()[..]).select(UserRow::as_select()).first(conn).await.optional()?;
    row.map(UserRow::into_user).transpose()
}

pub async fn by_name(conn: &mut Conn, username: String) -> Result<Option<User>, Fail> {
    let row: Option<UserRow> = users::table.filter(users::username.eq(username)).select(UserRow::as_select()).first(conn).await.optional()?;
    row.map(UserRow::into_user).transpose()
}

pub async fn by_external_id(conn: &mut Conn, external_id: String) -> Result<Option<User>, Fail> {
    let row: Option<UserRow> = users::table.filter(users::external_id.eq(external_id)).select(UserRow::as_select()).first(conn).await.optional()?;
    row.map(UserRow::into_user).transpose()
}

pub async fn by_prefix(conn: &mut Conn, prefix: String, after: Option<String>, limit: usize) -> Result<Vec<User>, Fail> {
    // A user name holds no `%`, and its `_` is escaped here.
    let pattern = format!("{}%", prefix.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%"));
    let rows: Vec<UserRow> = users::table
        .filter(users::username.like(pattern).escape('\\'))
        .filter(users::username.gt(after.unwrap_or_default()))
        .order(users::username)
        .limit(limit as i64)
        .select(UserRow::as_select())
        .load(conn)
        .await?;
    rows.into_iter().map(UserRow::into_user).collect()
}

pub async fn update_profile(conn: &mut Conn, id: UserId, change: ProfileChange) -> Result<User, Fail> {
    let mut user = by_id(conn, id).await?.ok_or(Code::UserNotFound)?;
    user.display_name = change.display_name.unwrap_or(user.display_name);
    user.avatar_url = change.avatar_url.unwrap_or(user.avatar_url);
    user.version += 1;
    diesel::update(users::table.find(&id.as_bytes()[..]))
        .set((users::display_name.eq(user.display_name.clone()), users::avatar_url.eq(user.avatar_url.clone()), users::version.eq(user.version)))
        .execute(conn)
        .await?;
    Ok(user)
}

pub async fn set_status(conn: &mut Conn, id: UserId, status: UserStatus) -> Result<Vec<Caller>, Fail> {
    let changed = diesel::update(users::table.find(&id.as_bytes()[..]))
        .set((users::status.eq(status_number(status)), users::version.eq(users::version + 1)))
        .execute(conn)
        .await?;
    if changed == 0 {
        return Err(Code::UserNotFound.into());
    }
    match status {
        UserStatus::Active => Ok(Vec::new()),
        UserStatus::Disabled => devices::sign_out_user(conn, id, None).await,
    }
}

pub async fn credential(conn: &mut Conn, id: UserId) -> Result<Option<Credential>, Fail> {
    let phc: Option<String> = credentials::table.find(&id.as_bytes()[..]).select(credentials::phc).first(conn).await.optional()?;
    Ok(phc.map(|phc| Credential { user: id, phc }))
}

pub async fn set_credential(conn: &mut Conn, credential: Credential, revoke_except: Option<Option<DeviceId>>) -> Result<Vec<Caller>, Fail> {
    let id = credential.user;
    if by_id(conn, id).await?.is_none() {
        return Err(Code::UserNotFound.into());
    }
    let changed =
        diesel::update(credentials::table.find(&id.as_bytes()[..])).set(credentials::phc.eq(credential.phc.clone())).execute(conn).await?;
    if changed == 0 {
        let row = (credentials::user_id.eq(id.as_bytes().to_vec()), credentials::phc.eq(credential.phc));
        diesel::insert_into(credentials::table).values(row).execute(conn).await?;
    }
    match revoke_except {
        Some(except) => devices::sign_out_user(conn, id, except).await,
        None => Ok(Vec::new()),
    }
}
