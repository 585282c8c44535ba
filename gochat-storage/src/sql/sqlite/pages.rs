//! The statements of reading pages, prepared once: a page of 50 entries costs the query builder a copy of every column. What is
//! visible to whom is decided in `queries/log.rs`, once.

use std::ops::RangeInclusive;

use bytes::Bytes;
use gochat_core::{
    ids::{ConversationId, Seq, UserId},
    model::{Member, Message},
};

use super::{
    append::{Prepared, member_row},
    queries::log::{Order, Pages},
};
use crate::sql::{fail::Fail, rows::MessageColumns};

const ASCENDING: &str = "SELECT seq, message_id, sender_id, client_msg_id, kind, envelope, body, reply_to, created_at
    FROM messages WHERE conversation_id = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq LIMIT ?4";
const DESCENDING: &str = "SELECT seq, message_id, sender_id, client_msg_id, kind, envelope, body, reply_to, created_at
    FROM messages WHERE conversation_id = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq DESC LIMIT ?4";

impl Pages for Prepared<'_> {
    async fn view(&mut self, id: ConversationId, reader: UserId) -> Result<(Seq, Vec<Member>), Fail> {
        let mut statement = self.0.prepare_cached(
            "SELECT members.join_seq, leave_seq, role, read_seq, delivered_seq, muted, silenced_until, hidden_seq, head_seq
             FROM members JOIN conversations ON conversations.id = members.conversation_id
             WHERE conversation_id = ?1 AND user_id = ?2 ORDER BY join_seq",
        )?;
        let mut rows = statement.query([&id.as_bytes()[..], &reader.as_bytes()[..]])?;
        let (mut head, mut intervals) = (Seq::ZERO, Vec::with_capacity(1));
        while let Some(row) = rows.next()? {
            head = Seq(row.get(8)?);
            intervals.push(member_row(id, reader, row)?.into_member()?);
        }
        Ok((head, intervals))
    }

    async fn page(&mut self, id: ConversationId, seqs: RangeInclusive<i64>, order: Order, rows: usize) -> Result<Vec<Message>, Fail> {
        let mut statement = self.0.prepare_cached(if order == Order::Ascending { ASCENDING } else { DESCENDING })?;
        let limit = i64::try_from(rows).unwrap_or(i64::MAX);
        let mut found = statement.query(rusqlite::params![&id.as_bytes()[..], seqs.start(), seqs.end(), limit])?;
        let mut page = Vec::new();
        while let Some(row) = found.next()? {
            let columns = MessageColumns {
                seq: row.get(0)?,
                message_id: row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?,
                sender_id: row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?,
                client_msg_id: row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?,
                kind: row.get(4)?,
                envelope: row.get(5)?,
                body: Bytes::copy_from_slice(row.get_ref(6)?.as_blob().map_err(rusqlite::Error::from)?),
                reply_to: row.get(7)?,
                created_at: row.get(8)?,
            };
            page.push(columns.into_message(id)?);
        }
        Ok(page)
    }
}
