//! Reading the log: for a reader clipped to what the reader can see, for dispatch as it is.

use std::ops::RangeInclusive;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gochat_core::{
    error::Code,
    ids::{ConversationId, Seq, UserId},
    limits::PAGE_MAX,
    model::{Member, Message},
};

use super::{Conn, Fail, builder::Diesel, limit};
use crate::sql::{
    rows::{MemberRow, MessageRow},
    schema::{conversations, members, messages},
};

/// The statements of reading pages: a database may have faster ones than the query builder's.
pub trait Pages: Send {
    /// The conversation's head and the reader's intervals, oldest first, in one statement: an entry that is stored behind a
    /// removal which this statement has not seen is above the head that it has seen (I4).
    fn view(&mut self, id: ConversationId, reader: UserId) -> impl Future<Output = Result<(Seq, Vec<Member>), Fail>> + Send;
    /// At most `rows` entries with these seqs, the lowest first or the highest first.
    fn page(
        &mut self,
        id: ConversationId,
        seqs: RangeInclusive<i64>,
        order: Order,
        rows: usize,
    ) -> impl Future<Output = Result<Vec<Message>, Fail>> + Send;
}

/// Which end of a range a page begins at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

pub async fn history(
    pages: &mut impl Pages,
    reader: UserId,
    id: ConversationId,
    after: Option<Seq>,
    before: Option<Seq>,
    rows: usize,
) -> Result<Vec<Message>, Fail> {
    let (head, intervals) = pages.view(id, reader).await?;
    if intervals.is_empty() {
        return Err(Code::ConversationNotFound.into());
    }
    let first = after.map_or(0, |after| after.0).saturating_add(1);
    let last = before.map_or(i64::MAX, |before| before.0).saturating_sub(1).min(head.0);
    let visible = |member: &Member| member.join_seq.0.max(first)..=member.leave_seq.map_or(last, |leave| leave.0.min(last));
    let mut ranges: Vec<RangeInclusive<i64>> = intervals.iter().map(visible).filter(|range| !range.is_empty()).collect();
    let order = if after.is_some() { Order::Ascending } else { Order::Descending };
    if order == Order::Descending {
        ranges.reverse();
    }
    let mut entries = Vec::with_capacity(rows.min(PAGE_MAX));
    for range in ranges {
        entries.extend(pages.page(id, range, order, rows - entries.len()).await?);
        if entries.len() >= rows {
            break;
        }
    }
    if order == Order::Descending {
        entries.reverse();
    }
    Ok(entries)
}

pub async fn range(pages: &mut impl Pages, id: ConversationId, after: Seq, through: Seq, rows: usize) -> Result<Vec<Message>, Fail> {
    pages.page(id, after.0.saturating_add(1)..=through.0, Order::Ascending, rows).await
}

/// One entry.
pub async fn entry(conn: &mut Conn, id: ConversationId, seq: Seq) -> Result<Option<Message>, Fail> {
    let row = messages::table.find((&id.as_bytes()[..], seq.0)).select(MessageRow::as_select()).first(conn).await.optional()?;
    row.map(MessageRow::into_message).transpose()
}

impl Pages for Diesel<'_> {
    async fn view(&mut self, id: ConversationId, reader: UserId) -> Result<(Seq, Vec<Member>), Fail> {
        let query = members::table
            .inner_join(conversations::table.on(conversations::id.eq(members::conversation_id)))
            .filter(members::conversation_id.eq(&id.as_bytes()[..]).and(members::user_id.eq(&reader.as_bytes()[..])))
            .order(members::join_seq)
            .select((conversations::head_seq, MemberRow::as_select()));
        let found: Vec<(i64, MemberRow)> = query.load(self.0).await?;
        let head = found.as_slice().first().map_or(Seq::ZERO, |(head, _)| Seq(*head));
        let intervals = found.into_iter().map(|(_, row)| row.into_member()).collect::<Result<_, _>>()?;
        Ok((head, intervals))
    }

    async fn page(&mut self, id: ConversationId, seqs: RangeInclusive<i64>, order: Order, rows: usize) -> Result<Vec<Message>, Fail> {
        let within = messages::conversation_id.eq(&id.as_bytes()[..]).and(messages::seq.between(*seqs.start(), *seqs.end()));
        let query = messages::table.filter(within).limit(limit(rows)).select(MessageRow::as_select());
        let found: Vec<MessageRow> = match order {
            Order::Ascending => query.order(messages::seq).load(self.0).await?,
            Order::Descending => query.order(messages::seq.desc()).load(self.0).await?,
        };
        found.into_iter().map(MessageRow::into_message).collect()
    }
}
