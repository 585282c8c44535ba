//! Who is, and who was, a member: one row per interval (decision 6).

use std::collections::HashMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gochat_core::{
    error::Code,
    ids::{ConversationId, Seq, UserId},
    model::{JoinRequest, Member, Readable},
    time::Timestamp,
};

use super::{Conn, Fail, IN_MAX, builder::Diesel, limit, locked, log::Pages};
use crate::sql::{
    rows::MemberRow,
    schema::{conversations, join_requests, members},
};

pub async fn current(conn: &mut Conn, id: ConversationId, after: Option<UserId>, rows: usize) -> Result<Vec<Member>, Fail> {
    let after = after.map_or(Vec::new(), |user| user.as_bytes().to_vec());
    let query =
        members::table.filter(members::conversation_id.eq(&id.as_bytes()[..]).and(members::user_id.gt(after)).and(members::leave_seq.is_null()));
    let found = query.order(members::user_id).limit(limit(rows)).select(MemberRow::as_select()).load(conn).await?;
    found.into_iter().map(MemberRow::into_member).collect()
}

pub async fn at(conn: &mut Conn, id: ConversationId, seq: Seq, after: Option<UserId>, rows: usize) -> Result<Vec<UserId>, Fail> {
    let after = after.map_or(Vec::new(), |user| user.as_bytes().to_vec());
    // A user's intervals do not overlap: nobody is named twice.
    let query = members::table
        .filter(members::conversation_id.eq(&id.as_bytes()[..]).and(members::user_id.gt(after)))
        .filter(members::join_seq.le(seq.0).and(members::leave_seq.is_null().or(members::leave_seq.ge(seq.0))));
    let found: Vec<Vec<u8>> = query.order(members::user_id).limit(limit(rows)).select(members::user_id).load(conn).await?;
    found.iter().map(|user| UserId::from_slice(user).map_err(Fail::from)).collect()
}

pub async fn intervals(conn: &mut Conn, id: ConversationId, users: Vec<UserId>) -> Result<Vec<Vec<Member>>, Fail> {
    let found = intervals_of(conn, id, &users).await?;
    Ok(users.iter().map(|user| found.get(user).cloned().unwrap_or_default()).collect())
}

/// The intervals of each of these users, oldest first.
pub async fn intervals_of(conn: &mut Conn, id: ConversationId, users: &[UserId]) -> Result<HashMap<UserId, Vec<Member>>, Fail> {
    let mut found: HashMap<UserId, Vec<Member>> = HashMap::with_capacity(users.len());
    for page in users.chunks(IN_MAX) {
        let ids = page.iter().map(|user| &user.as_bytes()[..]);
        let query = members::table.filter(members::conversation_id.eq(&id.as_bytes()[..]).and(members::user_id.eq_any(ids)));
        for row in locked!(query.order((members::user_id, members::join_seq)).select(MemberRow::as_select())).load(conn).await? {
            let member = row.into_member()?;
            found.entry(member.user).or_default().push(member);
        }
    }
    Ok(found)
}

/// The intervals of one user, oldest first. Unlike [`intervals_of`] this text is always the same, so that it is prepared once.
pub async fn intervals_of_one(conn: &mut Conn, id: ConversationId, user: UserId) -> Result<Vec<Member>, Fail> {
    let query = members::table.filter(members::conversation_id.eq(&id.as_bytes()[..]).and(members::user_id.eq(&user.as_bytes()[..])));
    let rows = locked!(query.order(members::join_seq).select(MemberRow::as_select())).load(conn).await?;
    rows.into_iter().map(MemberRow::into_member).collect()
}

/// The head and the reader's intervals of each of these conversations, in one statement per page: an entry that is stored behind
/// a removal which the statement has not seen is above the head that it has seen (I4).
pub async fn readable(conn: &mut Conn, reader: UserId, ids: Vec<ConversationId>) -> Result<Vec<Option<Readable>>, Fail> {
    if let [id] = ids.as_slice() {
        // The same text for every conversation, prepared once.
        let (head_seq, intervals) = Diesel(conn).view(*id, reader).await?;
        return Ok(vec![(!intervals.is_empty()).then_some(Readable { head_seq, intervals })]);
    }
    let mut found: HashMap<ConversationId, Readable> = HashMap::with_capacity(ids.len());
    for page in ids.chunks(IN_MAX) {
        let query = members::table
            .inner_join(conversations::table.on(conversations::id.eq(members::conversation_id)))
            .filter(members::user_id.eq(&reader.as_bytes()[..]).and(members::conversation_id.eq_any(page.iter().map(|id| &id.as_bytes()[..]))))
            .order((members::conversation_id, members::join_seq))
            .select((conversations::head_seq, MemberRow::as_select()));
        for (head, row) in query.load::<(i64, MemberRow)>(conn).await? {
            let member = row.into_member()?;
            let readable = found.entry(member.conversation).or_insert_with(|| Readable { head_seq: Seq(head), intervals: Vec::with_capacity(1) });
            readable.intervals.push(member);
        }
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

pub async fn join_requests(conn: &mut Conn, id: ConversationId, rows: usize) -> Result<Vec<JoinRequest>, Fail> {
    let query = join_requests::table
        .filter(join_requests::conversation_id.eq(&id.as_bytes()[..]))
        .order((join_requests::created_at, join_requests::user_id))
        .limit(limit(rows))
        .select((join_requests::user_id, join_requests::created_at));
    let found: Vec<(Vec<u8>, i64)> = query.load(conn).await?;
    found
        .into_iter()
        .map(|(user, at)| Ok(JoinRequest { conversation_id: id, user_id: UserId::from_slice(&user)?, created_at: Timestamp(at) }))
        .collect()
}

pub async fn set_muted(conn: &mut Conn, id: ConversationId, user: UserId, muted: bool) -> Result<Member, Fail> {
    let newest = intervals_of_one(conn, id, user).await?.into_iter().next_back().ok_or(Code::ConversationNotFound)?;
    let mut member = Some(newest).filter(Member::is_current).ok_or(Code::NotAMember)?;
    if member.muted != muted {
        member.muted = muted;
        diesel::update(row_of(&member)).set(members::muted.eq(muted)).execute(conn).await?;
    }
    Ok(member)
}

/// The row of an interval, as the target of an update.
pub fn row_of(member: &Member) -> diesel::dsl::Find<members::table, (Vec<u8>, Vec<u8>, i64)> {
    members::table.find((member.conversation.as_bytes().to_vec(), member.user.as_bytes().to_vec(), member.join_seq.0))
}
