//! How far readers and dispatch have got. Marks only rise (I12).

use std::collections::HashMap;

use gochat_core::{
    error::{Code, Result as Outcome},
    ids::{ConversationId, Seq, UserId},
    model::{Mark, Member},
};

use super::{Conn, Fail, newest_intervals, raise_dispatched, store_marks};

pub async fn mark(conn: &mut Conn, marks: Vec<Mark>) -> Result<Vec<Outcome<(Member, bool)>>, Fail> {
    let mut keys: Vec<(ConversationId, UserId)> = marks.iter().map(|mark| (mark.conversation, mark.user)).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut found: HashMap<(ConversationId, UserId), (Seq, Member, bool)> = HashMap::with_capacity(keys.len());
    for (head, row) in newest_intervals(conn, &keys).await? {
        let member = row.into_member()?;
        found.insert((member.conversation, member.user), (Seq(head), member, false));
    }
    let mut marked = Vec::with_capacity(marks.len());
    for mark in marks {
        let Some((head, member, changed)) = found.get_mut(&(mark.conversation, mark.user)) else {
            marked.push(Err(Code::ConversationNotFound.into()));
            continue;
        };
        let rose = raise(member, &mark, *head);
        *changed |= rose;
        marked.push(Ok((member.clone(), rose)));
    }
    let mut changed: Vec<Member> = found.into_values().filter(|(_, _, changed)| *changed).map(|(_, member, _)| member).collect();
    changed.sort_unstable_by_key(|member| (member.conversation, member.user));
    store_marks(conn, &changed).await?;
    Ok(marked)
}

/// Whether a mark of the member rose.
fn raise(member: &mut Member, mark: &Mark, head: Seq) -> bool {
    let last = member.leave_seq.map_or(head, |leave| leave.min(head));
    let read = member.read_seq.max(mark.read_seq.min(last));
    let delivered = member.delivered_seq.max(mark.delivered_seq.min(last)).max(read);
    let rose = (read, delivered) != (member.read_seq, member.delivered_seq);
    (member.read_seq, member.delivered_seq) = (read, delivered);
    rose
}

pub async fn set_dispatched(conn: &mut Conn, mut marks: Vec<(ConversationId, Seq)>) -> Result<(), Fail> {
    marks.sort_unstable();
    raise_dispatched(conn, &marks).await
}
