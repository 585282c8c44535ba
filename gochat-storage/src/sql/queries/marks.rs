//! How far readers and dispatch have got. Marks only rise (I12).

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gochat_core::{
    error::{Code, Result as Outcome},
    ids::{ConversationId, Seq},
    model::{Mark, Member},
};

use super::{Conn, Fail, locked, members::row_of};
use crate::sql::{
    rows::MemberRow,
    schema::{conversations, members},
};

pub async fn mark(conn: &mut Conn, marks: Vec<Mark>) -> Result<Vec<Outcome<(Member, bool)>>, Fail> {
    let mut marked = Vec::with_capacity(marks.len());
    for mark in marks {
        marked.push(mark_one(conn, mark).await?);
    }
    Ok(marked)
}

async fn mark_one(conn: &mut Conn, mark: Mark) -> Result<Outcome<(Member, bool)>, Fail> {
    let query = members::table
        .inner_join(conversations::table.on(conversations::id.eq(members::conversation_id)))
        .filter(members::conversation_id.eq(&mark.conversation.as_bytes()[..]).and(members::user_id.eq(&mark.user.as_bytes()[..])))
        .order(members::join_seq.desc())
        .select((conversations::head_seq, MemberRow::as_select()));
    let found: Option<(i64, MemberRow)> = locked!(query).first(conn).await.optional()?;
    let Some((head, row)) = found else { return Ok(Err(Code::ConversationNotFound.into())) };
    let mut member = row.into_member()?;
    let last = member.leave_seq.map_or(head, |leave| leave.0.min(head));
    let read = member.read_seq.max(Seq(mark.read_seq.0.min(last)));
    let delivered = member.delivered_seq.max(Seq(mark.delivered_seq.0.min(last))).max(read);
    let rose = (read, delivered) != (member.read_seq, member.delivered_seq);
    if rose {
        let values = (members::read_seq.eq(read.0), members::delivered_seq.eq(delivered.0));
        diesel::update(row_of(&member)).set(values).execute(conn).await?;
        (member.read_seq, member.delivered_seq) = (read, delivered);
    }
    Ok(Ok((member, rose)))
}

pub async fn set_dispatched(conn: &mut Conn, mut marks: Vec<(ConversationId, Seq)>) -> Result<(), Fail> {
    marks.sort_unstable();
    for (id, seq) in marks {
        let behind = conversations::dispatched_seq.lt(seq.0).and(conversations::head_seq.ge(seq.0));
        let rows = conversations::table.filter(conversations::id.eq(&id.as_bytes()[..]).and(behind));
        diesel::update(rows).set(conversations::dispatched_seq.eq(seq.0)).execute(conn).await?;
    }
    Ok(())
}
