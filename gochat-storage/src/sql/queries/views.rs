//! Conversations as one user sees them in a list: membership, newest entry, unread, how far the others have got.

use std::collections::HashMap;

use diesel::{
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Integer, Nullable},
};
use diesel_async::RunQueryDsl;
use gochat_core::{
    ids::{ConversationId, Seq, UserId},
    limits::UNREAD_MAX,
    model::{Conversation, ConversationKind, ConversationView, Listed, Member, Message, MessageKind},
    time::Timestamp,
    unread::unread_range,
};

use super::{Conn, Fail, limit, load_each};
use crate::sql::{
    rows::{ConversationRow, MemberRow, MessageRow},
    schema::{conversations, members, messages},
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
    let newest = query.first(conn).await.optional()?;
    Ok(views(conn, newest.into_iter().collect()).await?.pop())
}

pub async fn of_user(conn: &mut Conn, user: UserId, before: Option<(Timestamp, ConversationId)>, rows: usize) -> Result<Vec<ConversationView>, Fail> {
    let found = rows_of_user(conn, user, before, rows).await?;
    views(conn, found).await
}

pub async fn listed(conn: &mut Conn, user: UserId, before: Option<(Timestamp, ConversationId)>, rows: usize) -> Result<Vec<Listed>, Fail> {
    let found = rows_of_user(conn, user, before, rows).await?;
    with_others(conn, found).await
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

/// What belongs to each membership, asked for all of them together and as of the head that was read with it.
async fn views(conn: &mut Conn, found: Vec<(ConversationRow, MemberRow)>) -> Result<Vec<ConversationView>, Fail> {
    let listed = with_others(conn, found).await?;
    let mut last_messages = last_messages(conn, &listed).await?;
    let unread = unread(conn, &listed).await?;
    let view = |row: Listed| {
        let id = row.conversation.id;
        row.with(last_messages.remove(&id), unread.get(&id).copied().unwrap_or(0))
    };
    Ok(listed.into_iter().map(view).collect())
}

/// Rows of the list, with how far the others have got.
async fn with_others(conn: &mut Conn, found: Vec<(ConversationRow, MemberRow)>) -> Result<Vec<Listed>, Fail> {
    let mut seen: Vec<(Conversation, Member)> = Vec::with_capacity(found.len());
    for (conversation, member) in found {
        seen.push((conversation.into_conversation()?, member.into_member()?));
    }
    let (singles, groups): (Vec<_>, Vec<_>) = seen.iter().partition(|(conversation, _)| conversation.kind == ConversationKind::Single);
    let peers = peers(conn, &singles).await?;
    let others = others(conn, &groups).await?;
    let row = |(conversation, member): (Conversation, Member)| {
        let (peer, peer_delivered_seq, peer_read_seq) = match conversation.kind {
            ConversationKind::Single => peers.get(&conversation.id).copied().unwrap_or_default(),
            ConversationKind::Group => {
                others.get(&conversation.id).map_or((None, Seq::ZERO, Seq::ZERO), |&(delivered, read)| (None, delivered, read))
            }
        };
        Listed { conversation, member, peer, peer_delivered_seq, peer_read_seq }
    };
    Ok(seen.into_iter().map(row).collect())
}

async fn last_messages(conn: &mut Conn, listed: &[Listed]) -> Result<HashMap<ConversationId, Message>, Fail> {
    let last = |row: &Listed| messages::table.find((row.conversation.id.as_bytes().to_vec(), row.last_seq().0)).select(MessageRow::as_select());
    let rows: Vec<MessageRow> = load_each(conn, listed.iter().map(last).collect()).await?;
    rows.into_iter().map(|row| row.into_message().map(|message| (message.conversation, message))).collect()
}

async fn unread(conn: &mut Conn, listed: &[Listed]) -> Result<HashMap<ConversationId, i64>, Fail> {
    let mut counts = Vec::with_capacity(listed.len());
    for Listed { conversation, member, .. } in listed {
        let range = unread_range(member, conversation.head_seq);
        if !range.is_empty() {
            counts.push(CountUnread {
                conversation: conversation.id.as_bytes().to_vec(),
                first: *range.start(),
                last: *range.end(),
                reader: member.user.as_bytes().to_vec(),
            });
        }
    }
    let counted: Vec<(Option<Vec<u8>>, i64)> = load_each(conn, counts).await?;
    let named = counted.into_iter().filter_map(|(id, count)| id.map(|id| (id, count)));
    named.map(|(id, count)| Ok((ConversationId::from_slice(&id)?, count))).collect()
}

async fn peers(conn: &mut Conn, singles: &[&(Conversation, Member)]) -> Result<HashMap<ConversationId, (Option<UserId>, Seq, Seq)>, Fail> {
    let peer = |(conversation, member): &&(Conversation, Member)| {
        let other = members::user_id.ne(member.user.as_bytes().to_vec());
        members::table.filter(members::conversation_id.eq(conversation.id.as_bytes().to_vec()).and(other)).select((
            members::conversation_id,
            members::user_id,
            members::delivered_seq,
            members::read_seq,
        ))
    };
    let rows: Vec<(Vec<u8>, Vec<u8>, i64, i64)> = load_each(conn, singles.iter().map(peer).collect()).await?;
    let named = rows
        .into_iter()
        .map(|(id, user, delivered, read)| Ok((ConversationId::from_slice(&id)?, (Some(UserId::from_slice(&user)?), Seq(delivered), Seq(read)))));
    named.collect()
}

async fn others(conn: &mut Conn, groups: &[&(Conversation, Member)]) -> Result<HashMap<ConversationId, (Seq, Seq)>, Fail> {
    let marks = |(conversation, member): &&(Conversation, Member)| HighestMarks {
        conversation: conversation.id.as_bytes().to_vec(),
        reader: member.user.as_bytes().to_vec(),
    };
    let rows: Vec<(Option<Vec<u8>>, Option<i64>, Option<i64>)> = load_each(conn, groups.iter().map(marks).collect()).await?;
    let named = rows.into_iter().filter_map(|(id, delivered, read)| Some((id?, Seq(delivered.unwrap_or(0)), Seq(read.unwrap_or(0)))));
    named.map(|(id, delivered, read)| Ok((ConversationId::from_slice(&id)?, (delivered, read)))).collect()
}

/// Entries by others that count, up to the limit, with the conversation (none, where none counts). The query builder has no
/// aggregate over a limited subquery; as a type of its own the text is still prepared once.
#[derive(Debug, QueryId)]
struct CountUnread {
    conversation: Vec<u8>,
    first: i64,
    last: i64,
    reader: Vec<u8>,
}

impl Query for CountUnread {
    type SqlType = (Nullable<Binary>, BigInt);
}

impl<DB: diesel::backend::Backend> QueryFragment<DB> for CountUnread
where
    Vec<u8>: diesel::serialize::ToSql<Binary, DB>,
    i64: diesel::serialize::ToSql<BigInt, DB>,
    i32: diesel::serialize::ToSql<Integer, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT MIN(conversation_id), COUNT(*) FROM (SELECT conversation_id FROM messages WHERE conversation_id = ");
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

/// The highest marks among other members, of at most [`PEERS_MAX`] of them, with the conversation (none, where there are none).
#[derive(Debug, QueryId)]
struct HighestMarks {
    conversation: Vec<u8>,
    reader: Vec<u8>,
}

impl Query for HighestMarks {
    type SqlType = (Nullable<Binary>, Nullable<BigInt>, Nullable<BigInt>);
}

impl<DB: diesel::backend::Backend> QueryFragment<DB> for HighestMarks
where
    Vec<u8>: diesel::serialize::ToSql<Binary, DB>,
    i64: diesel::serialize::ToSql<BigInt, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT MIN(conversation_id), MAX(delivered_seq), MAX(read_seq) FROM (");
        out.push_sql("SELECT conversation_id, delivered_seq, read_seq FROM members WHERE conversation_id = ");
        out.push_bind_param::<Binary, _>(&self.conversation)?;
        out.push_sql(" AND user_id <> ");
        out.push_bind_param::<Binary, _>(&self.reader)?;
        out.push_sql(" AND leave_seq IS NULL LIMIT ");
        out.push_bind_param::<BigInt, _>(&PEERS_MAX)?;
        out.push_sql(") AS others");
        Ok(())
    }
}
