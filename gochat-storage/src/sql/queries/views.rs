//! Conversations as one user sees them in a list: membership, newest entry, unread, how far the others have got.

use diesel::{
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Integer, Nullable},
};
use diesel_async::RunQueryDsl;
use gochat_core::{
    ids::{ConversationId, Seq, UserId},
    limits::UNREAD_MAX,
    model::{ConversationKind, ConversationView, Listed, Member, MessageKind},
    time::Timestamp,
    unread::unread_range,
};

use super::{Conn, Fail, limit, log};
use crate::sql::{
    rows::{ConversationRow, MemberRow},
    schema::{conversations, members},
};

/// Other members of a group whose marks are looked at. In a larger group the answer is a lower bound: nobody is shown
/// to have read what nobody has, and a list of large groups stays cheap.
const PEERS_MAX: i64 = 200;

pub async fn one(conn: &mut Conn, user: UserId, id: ConversationId) -> Result<Option<ConversationView>, Fail> {
    let query = members::table
        .inner_join(conversations::table.on(conversations::id.eq(members::conversation_id)))
        .filter(members::conversation_id.eq(&id.as_bytes()[..]).and(members::user_id.eq(&user.as_bytes()[..])))
        .order(members::join_seq.desc())
        .select((ConversationRow::as_select(), MemberRow::as_select()));
    match query.first(conn).await.optional()? {
        Some((conversation, member)) => view(conn, conversation, member).await.map(Some),
        None => Ok(None),
    }
}

pub async fn of_user(conn: &mut Conn, user: UserId, before: Option<(Timestamp, ConversationId)>, rows: usize) -> Result<Vec<ConversationView>, Fail> {
    let mut views = Vec::new();
    for (conversation, member) in rows_of_user(conn, user, before, rows).await? {
        views.push(view(conn, conversation, member).await?);
    }
    Ok(views)
}

pub async fn listed(conn: &mut Conn, user: UserId, before: Option<(Timestamp, ConversationId)>, rows: usize) -> Result<Vec<Listed>, Fail> {
    let mut listed = Vec::new();
    for (conversation, member) in rows_of_user(conn, user, before, rows).await? {
        listed.push(row(conn, conversation, member).await?);
    }
    Ok(listed)
}

async fn rows_of_user(
    conn: &mut Conn,
    user: UserId,
    before: Option<(Timestamp, ConversationId)>,
    rows: usize,
) -> Result<Vec<(ConversationRow, MemberRow)>, Fail> {
    let (active_at, id) = before.map_or((i64::MAX, Vec::new()), |(at, id)| (at.0, id.as_bytes().to_vec()));
    let behind = conversations::active_at.lt(active_at).or(conversations::active_at.eq(active_at).and(conversations::id.lt(id)));
    let query = members::table
        .inner_join(conversations::table.on(conversations::id.eq(members::conversation_id)))
        .filter(members::user_id.eq(&user.as_bytes()[..]).and(members::leave_seq.is_null()))
        .filter(members::hidden_seq.lt(conversations::head_seq).and(behind))
        .order((conversations::active_at.desc(), conversations::id.desc()))
        .limit(limit(rows))
        .select((ConversationRow::as_select(), MemberRow::as_select()));
    Ok(query.load(conn).await?)
}

/// All of it as of the head that was read with the membership.
async fn view(conn: &mut Conn, conversation: ConversationRow, member: MemberRow) -> Result<ConversationView, Fail> {
    let listed = row(conn, conversation, member).await?;
    let last_message = log::entry(conn, listed.conversation.id, listed.last_seq()).await?;
    let unread = unread(conn, &listed.member, listed.conversation.head_seq).await?;
    Ok(listed.with(last_message, unread))
}

async fn row(conn: &mut Conn, conversation: ConversationRow, member: MemberRow) -> Result<Listed, Fail> {
    let (conversation, member) = (conversation.into_conversation()?, member.into_member()?);
    let (peer, peer_delivered_seq, peer_read_seq) = match conversation.kind {
        ConversationKind::Single => peer(conn, &member).await?,
        ConversationKind::Group => {
            let (delivered, read) = others(conn, &member).await?;
            (None, delivered, read)
        }
    };
    Ok(Listed { conversation, member, peer, peer_delivered_seq, peer_read_seq })
}

async fn unread(conn: &mut Conn, member: &Member, head: Seq) -> Result<i64, Fail> {
    let range = unread_range(member, head);
    if range.is_empty() {
        return Ok(0);
    }
    let count = CountUnread {
        conversation: member.conversation.as_bytes().to_vec(),
        first: *range.start(),
        last: *range.end(),
        reader: member.user.as_bytes().to_vec(),
    };
    Ok(count.get_result(conn).await?)
}

async fn peer(conn: &mut Conn, member: &Member) -> Result<(Option<UserId>, Seq, Seq), Fail> {
    let query = members::table
        .filter(members::conversation_id.eq(&member.conversation.as_bytes()[..]).and(members::user_id.ne(&member.user.as_bytes()[..])))
        .select((members::user_id, members::delivered_seq, members::read_seq));
    match query.first::<(Vec<u8>, i64, i64)>(conn).await.optional()? {
        Some((user, delivered, read)) => Ok((Some(UserId::from_slice(&user)?), Seq(delivered), Seq(read))),
        None => Ok((None, Seq::ZERO, Seq::ZERO)),
    }
}

async fn others(conn: &mut Conn, member: &Member) -> Result<(Seq, Seq), Fail> {
    let marks = HighestMarks { conversation: member.conversation.as_bytes().to_vec(), reader: member.user.as_bytes().to_vec() };
    let (delivered, read): (Option<i64>, Option<i64>) = marks.get_result(conn).await?;
    Ok((Seq(delivered.unwrap_or(0)), Seq(read.unwrap_or(0))))
}

/// Entries by others that count, up to the limit. The query builder has no aggregate over a limited subquery; as a type of
/// its own the text is still prepared once.
#[derive(Debug, QueryId)]
struct CountUnread {
    conversation: Vec<u8>,
    first: i64,
    last: i64,
    reader: Vec<u8>,
}

impl Query for CountUnread {
    type SqlType = BigInt;
}

impl<DB: diesel::backend::Backend> QueryFragment<DB> for CountUnread
where
    Vec<u8>: diesel::serialize::ToSql<Binary, DB>,
    i64: diesel::serialize::ToSql<BigInt, DB>,
    i32: diesel::serialize::ToSql<Integer, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT COUNT(*) FROM (SELECT seq FROM messages WHERE conversation_id = ");
        out.push_bind_param::<Binary, _>(&self.conversation)?;
        out.push_sql(" AND seq BETWEEN ");
        out.push_bind_param::<BigInt, _>(&self.first)?;
        out.push_sql(" AND ");
        out.push_bind_param::<BigInt, _>(&self.last)?;
        out.push_sql(" AND sender_id <> ");
        out.push_bind_param::<Binary, _>(&self.reader)?;
        out.push_sql(" AND kind <> ");
        out.push_bind_param::<Integer, _>(&(MessageKind::Event as i32))?;
        out.push_sql(" LIMIT ");
        out.push_bind_param::<BigInt, _>(&UNREAD_MAX)?;
        out.push_sql(") AS counted");
        Ok(())
    }
}

/// The highest marks among other members, of at most [`PEERS_MAX`] of them.
#[derive(Debug, QueryId)]
struct HighestMarks {
    conversation: Vec<u8>,
    reader: Vec<u8>,
}

impl Query for HighestMarks {
    type SqlType = (Nullable<BigInt>, Nullable<BigInt>);
}

impl<DB: diesel::backend::Backend> QueryFragment<DB> for HighestMarks
where
    Vec<u8>: diesel::serialize::ToSql<Binary, DB>,
    i64: diesel::serialize::ToSql<BigInt, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT MAX(delivered_seq), MAX(read_seq) FROM (SELECT delivered_seq, read_seq FROM members WHERE conversation_id = ");
        out.push_bind_param::<Binary, _>(&self.conversation)?;
        out.push_sql(" AND user_id <> ");
        out.push_bind_param::<Binary, _>(&self.reader)?;
        out.push_sql(" AND leave_seq IS NULL LIMIT ");
        out.push_bind_param::<BigInt, _>(&PEERS_MAX)?;
        out.push_sql(") AS others");
        Ok(())
    }
}
