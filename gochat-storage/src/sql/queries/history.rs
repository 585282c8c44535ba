//! Reading the log, and how far its readers have got.

use diesel::{BoolExpressionMethods, ExpressionMethods, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;
use gochat_core::{
    error::{Code, Result as Outcome},
    ids::{ConversationId, Seq, UserId},
    model::{Mark, Member, Message},
};

use super::{Conn, conversations};
use crate::sql::{
    fail::Fail,
    rows::MessageRow,
    schema::{members, messages},
};

/// Entries that the reader can see, ascending: the intervals of membership clip the range (I4).
pub async fn page(
    conn: &mut Conn, reader: UserId, id: ConversationId, after: Option<Seq>, before: Option<Seq>, limit: usize,
) -> Result<Vec<Message>, Fail> {
    let intervals = conversations::intervals(conn, id, reader).await?;
    if intervals.is_empty() {
        return Err(Code::ConversationNotFound.into());
    }
    let forward = after.is_some();
    let (low, high) = (after.map_or(1, |seq| seq.0.saturating_add(1)), before.map_or(i64::MAX, |seq| seq.0.saturating_sub(1)));
    let clip = |member: &Member| (member.join_seq.0.max(low), member.leave_seq.map_or(i64::MAX, |seq| seq.0).min(high));
    let mut found = Vec::new();
    let clipped: Vec<(i64, i64)> = if forward { intervals.iter().map(clip).collect() } else { intervals.iter().rev().map(clip).collect() };
    for (from, to) in clipped.into_iter().filter(|(from, to)| from <= to) {
        let left = limit - found.len();
        if left == 0 {
            break;
        }
        found.extend(range(conn, id, from, to, left, forward).await?);
    }
    if !forward {
        found.reverse();
    }
    Ok(found)
}

pub async fn log(conn: &mut Conn, id: ConversationId, after: Seq, through: Seq, limit: usize) -> Result<Vec<Message>, Fail> {
    range(conn, id, after.0 + 1, through.0, limit, true).await
}

/// Entries with `from` <= seq <= `to`, from the lower end ascending or from the upper end descending.
async fn range(conn: &mut Conn, id: ConversationId, from: i64, to: i64, limit: usize, ascending: bool) -> Result<Vec<Message>, Fail> {
    let query = messages::table
        .filter(messages::conversation_id.eq(id.as_bytes().to_vec()).and(messages::seq.ge(from)).and(messages::seq.le(to)))
        .limit(limit as i64)
        .select(MessageRow::as_select());
    let rows: Vec<MessageRow> =
        if ascending { query.order(messages::seq.asc()).load(conn).await? } else { query.order(messages::seq.desc()).load(conn).await? };
    rows.into_iter().map(MessageRow::into_message).collect()
}

pub async fn mark(conn: &mut Conn, marks: Vec<Mark>) -> Result<Vec<Outcome<(Member, bool)>>, Fail> {
    let mut outcomes = Vec::with_capacity(marks.len());
    for mark in marks {
        outcomes.push(match mark_one(conn, mark).await {
            Ok(marked) => Ok(marked),
            Err(Fail::Refused(error)) => Err(error),
            Err(fail) => return Err(fail),
        });
    }
    Ok(outcomes)
}

async fn mark_one(conn: &mut Conn, mark: Mark) -> Result<(Member, bool), Fail> {
    let Some(mut member) = conversations::intervals(conn, mark.conversation, mark.user).await?.into_iter().next_back() else {
        return Err(Code::ConversationNotFound.into());
    };
    let head = conversations::by_id(conn, mark.conversation).await?.ok_or(Code::ConversationNotFound)?.head_seq;
    let last = member.leave_seq.unwrap_or(head).min(head);
    let read_seq = member.read_seq.max(mark.read_seq.min(last));
    let delivered_seq = member.delivered_seq.max(mark.delivered_seq.min(last)).max(read_seq);
    let risen = (read_seq, delivered_seq) != (member.read_seq, member.delivered_seq);
    if risen {
        (member.read_seq, member.delivered_seq) = (read_seq, delivered_seq);
        let key = (mark.conversation.as_bytes().to_vec(), mark.user.as_bytes().to_vec(), member.join_seq.0);
        diesel::update(members::table.find(key))
            .set((members::read_seq.eq(read_seq.0), members::delivered_seq.eq(delivered_seq.0)))
            .execute(conn)
            .await?;
    }
    Ok((member, risen))
}
