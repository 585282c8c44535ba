//! Reading the log: for a reader clipped to what the reader can see, for dispatch as it is.

use std::ops::RangeInclusive;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gochat_core::{
    error::Code,
    ids::{ConversationId, Seq, UserId},
    model::{Member, Message},
};

use super::{Conn, Fail, limit};
use crate::sql::{
    rows::{MemberRow, MessageRow},
    schema::{conversations, members, messages},
};

pub async fn history(
    conn: &mut Conn,
    reader: UserId,
    id: ConversationId,
    after: Option<Seq>,
    before: Option<Seq>,
    rows: usize,
) -> Result<Vec<Message>, Fail> {
    // Head and intervals in one statement: an entry that is stored behind a removal which this statement has not seen
    // is above the head that it has seen (I4).
    let query = members::table
        .inner_join(conversations::table.on(conversations::id.eq(members::conversation_id)))
        .filter(members::conversation_id.eq(&id.as_bytes()[..]).and(members::user_id.eq(&reader.as_bytes()[..])))
        .order(members::join_seq)
        .select((conversations::head_seq, MemberRow::as_select()));
    let found: Vec<(i64, MemberRow)> = query.load(conn).await?;
    let Some(head) = found.as_slice().first().map(|(head, _)| *head) else { return Err(Code::ConversationNotFound.into()) };
    let first = after.map_or(0, |after| after.0).saturating_add(1);
    let last = before.map_or(i64::MAX, |before| before.0).saturating_sub(1).min(head);
    let visible = |member: &Member| member.join_seq.0.max(first)..=member.leave_seq.map_or(last, |leave| leave.0.min(last));
    let mut ranges = Vec::with_capacity(found.len());
    for (_, row) in found {
        ranges.push(visible(&row.into_member()?));
    }
    ranges.retain(|range| !range.is_empty());
    let mut entries = Vec::new();
    if after.is_some() {
        for range in ranges {
            entries.extend(ascending(conn, id, range, rows - entries.len()).await?);
            if entries.len() >= rows {
                break;
            }
        }
    } else {
        for range in ranges.into_iter().rev() {
            entries.extend(descending(conn, id, range, rows - entries.len()).await?);
            if entries.len() >= rows {
                break;
            }
        }
        entries.reverse();
    }
    entries.into_iter().map(MessageRow::into_message).collect()
}

pub async fn range(conn: &mut Conn, id: ConversationId, after: Seq, through: Seq, rows: usize) -> Result<Vec<Message>, Fail> {
    let entries = ascending(conn, id, after.0.saturating_add(1)..=through.0, rows).await?;
    entries.into_iter().map(MessageRow::into_message).collect()
}

/// One entry.
pub async fn entry(conn: &mut Conn, id: ConversationId, seq: Seq) -> Result<Option<Message>, Fail> {
    let row = messages::table.find((&id.as_bytes()[..], seq.0)).select(MessageRow::as_select()).first(conn).await.optional()?;
    row.map(MessageRow::into_message).transpose()
}

async fn ascending(conn: &mut Conn, id: ConversationId, seqs: RangeInclusive<i64>, rows: usize) -> Result<Vec<MessageRow>, Fail> {
    let query = messages::table.filter(messages::conversation_id.eq(&id.as_bytes()[..]).and(messages::seq.between(*seqs.start(), *seqs.end())));
    Ok(query.order(messages::seq).limit(limit(rows)).select(MessageRow::as_select()).load(conn).await?)
}

async fn descending(conn: &mut Conn, id: ConversationId, seqs: RangeInclusive<i64>, rows: usize) -> Result<Vec<MessageRow>, Fail> {
    let query = messages::table.filter(messages::conversation_id.eq(&id.as_bytes()[..]).and(messages::seq.between(*seqs.start(), *seqs.end())));
    Ok(query.order(messages::seq.desc()).limit(limit(rows)).select(MessageRow::as_select()).load(conn).await?)
}
