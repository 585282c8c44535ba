//! The statements of an append, prepared once and run on the connection's own handle: half the writer's time of the
//! query builder's. What is decided with them stands in `queries/append.rs`, once.

use gochat_core::{
    error::Error,
    ids::{ConversationId, Seq, UserId},
    model::{Conversation, Draft, Member, Message, PayloadHash},
    ports::AppendBatch,
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, ffi, params};

use super::queries::append::Log;
use crate::sql::{
    fail::Fail,
    rows::{ConversationRow, ENVELOPE_PLAIN, MemberRow, MessageRow},
};

/// Prepared statements of one connection, inside its transaction.
pub struct Prepared<'a>(pub &'a mut Connection);

impl Log for Prepared<'_> {
    async fn prepare(&mut self, _: &AppendBatch) -> Result<(), Fail> {
        Ok(())
    }

    async fn head(&mut self, id: ConversationId) -> Result<Option<Conversation>, Fail> {
        let mut statement = self.0.prepare_cached(
            "SELECT kind, name, description, avatar_url, owner_id, join_mode, max_members, member_count, head_seq, dispatched_seq, members_seq,
                    dissolved, version, created_at, active_at
             FROM conversations WHERE id = ?1",
        )?;
        let row = statement.query_row([&id.as_bytes()[..]], |row| conversation_row(id, row)).optional()?;
        row.map(ConversationRow::into_conversation).transpose()
    }

    async fn intervals(&mut self, id: ConversationId, sender: UserId) -> Result<Vec<Member>, Fail> {
        let mut statement = self.0.prepare_cached(
            "SELECT join_seq, leave_seq, role, read_seq, delivered_seq, muted, silenced_until, hidden_seq
             FROM members WHERE conversation_id = ?1 AND user_id = ?2 ORDER BY join_seq",
        )?;
        let mut rows = statement.query([&id.as_bytes()[..], &sender.as_bytes()[..]])?;
        let mut intervals = Vec::with_capacity(1);
        while let Some(row) = rows.next()? {
            intervals.push(member_row(id, sender, row)?.into_member()?);
        }
        Ok(intervals)
    }

    async fn insert(&mut self, draft: &Draft, seq: Seq) -> Result<bool, Fail> {
        // The key is named: a seq that is taken stays an error.
        let mut statement = self.0.prepare_cached(
            "INSERT INTO messages (conversation_id, seq, message_id, sender_id, client_msg_id, payload_key_id, payload_hash, kind, envelope, body,
                                   reply_to, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (client_msg_id, conversation_id, sender_id) DO NOTHING",
        )?;
        let stored = statement.execute(params![
            &draft.conversation.as_bytes()[..],
            seq.0,
            &draft.id.as_bytes()[..],
            &draft.sender.as_bytes()[..],
            &draft.client_msg_id.as_bytes()[..],
            draft.payload_hash.key_id,
            &draft.payload_hash.hash[..],
            draft.body.kind as i32,
            ENVELOPE_PLAIN,
            draft.body.content.as_bytes().as_ref(),
            draft.reply_to.map(|seq| seq.0),
            draft.created_at.0,
        ])?;
        Ok(stored == 1)
    }

    async fn stored(&mut self, draft: &Draft) -> Result<Option<(Message, PayloadHash)>, Fail> {
        let mut statement = self.0.prepare_cached(
            "SELECT seq, message_id, kind, envelope, body, reply_to, created_at, payload_key_id, payload_hash
             FROM messages WHERE client_msg_id = ?1 AND conversation_id = ?2 AND sender_id = ?3",
        )?;
        let key = [&draft.client_msg_id.as_bytes()[..], &draft.conversation.as_bytes()[..], &draft.sender.as_bytes()[..]];
        let found = statement.query_row(key, |row| Ok((message_row(draft, row)?, row.get(7)?, row.get::<_, Vec<u8>>(8)?))).optional()?;
        let Some((row, key_id, hash)) = found else { return Ok(None) };
        let hash = hash.try_into().map_err(|_| Error::internal("a payload hash is not 32 bytes"))?;
        Ok(Some((row.into_message()?, PayloadHash { key_id, hash })))
    }

    async fn advance(&mut self, id: ConversationId, head: Seq, dispatched: Seq, active_at: Timestamp) -> Result<(), Fail> {
        let mut statement = self.0.prepare_cached("UPDATE conversations SET head_seq = ?2, dispatched_seq = ?3, active_at = ?4 WHERE id = ?1")?;
        statement.execute(params![&id.as_bytes()[..], head.0, dispatched.0, active_at.0])?;
        Ok(())
    }

    async fn dispatched(&mut self, mut marks: Vec<(ConversationId, Seq)>) -> Result<(), Fail> {
        marks.sort_unstable();
        let mut statement =
            self.0.prepare_cached("UPDATE conversations SET dispatched_seq = ?2 WHERE id = ?1 AND dispatched_seq < ?2 AND head_seq >= ?2")?;
        for (id, seq) in marks {
            statement.execute(params![&id.as_bytes()[..], seq.0])?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Fail> {
        Ok(())
    }
}

fn conversation_row(id: ConversationId, row: &Row<'_>) -> rusqlite::Result<ConversationRow> {
    Ok(ConversationRow {
        id: id.as_bytes().to_vec(),
        kind: row.get(0)?,
        // Nothing that an append decides or answers depends on these two.
        pair_key: None,
        link_hash: None,
        name: row.get(1)?,
        description: row.get(2)?,
        avatar_url: row.get(3)?,
        owner_id: row.get(4)?,
        join_mode: row.get(5)?,
        max_members: row.get(6)?,
        member_count: row.get(7)?,
        head_seq: row.get(8)?,
        dispatched_seq: row.get(9)?,
        members_seq: row.get(10)?,
        dissolved: row.get(11)?,
        version: row.get(12)?,
        created_at: row.get(13)?,
        active_at: row.get(14)?,
    })
}

pub fn member_row(id: ConversationId, user: UserId, row: &Row<'_>) -> rusqlite::Result<MemberRow> {
    Ok(MemberRow {
        conversation_id: id.as_bytes().to_vec(),
        user_id: user.as_bytes().to_vec(),
        join_seq: row.get(0)?,
        leave_seq: row.get(1)?,
        role: row.get(2)?,
        read_seq: row.get(3)?,
        delivered_seq: row.get(4)?,
        muted: row.get(5)?,
        silenced_until: row.get(6)?,
        hidden_seq: row.get(7)?,
    })
}

fn message_row(draft: &Draft, row: &Row<'_>) -> rusqlite::Result<MessageRow> {
    Ok(MessageRow {
        conversation_id: draft.conversation.as_bytes().to_vec(),
        seq: row.get(0)?,
        message_id: row.get(1)?,
        sender_id: draft.sender.as_bytes().to_vec(),
        client_msg_id: draft.client_msg_id.as_bytes().to_vec(),
        kind: row.get(2)?,
        envelope: row.get(3)?,
        body: row.get(4)?,
        reply_to: row.get(5)?,
        created_at: row.get(6)?,
    })
}

/// The same error as the query builder would have given: one place decides what it means.
impl From<rusqlite::Error> for Fail {
    fn from(error: rusqlite::Error) -> Self {
        use diesel::result::{DatabaseErrorKind, Error as Diesel};
        let kind = match error.sqlite_error().map(|error| error.extended_code) {
            Some(ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => DatabaseErrorKind::UniqueViolation,
            Some(ffi::SQLITE_CONSTRAINT_NOTNULL) => DatabaseErrorKind::NotNullViolation,
            Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => DatabaseErrorKind::ForeignKeyViolation,
            Some(ffi::SQLITE_CONSTRAINT_CHECK) => DatabaseErrorKind::CheckViolation,
            _ => DatabaseErrorKind::Unknown,
        };
        Fail::Database(Diesel::DatabaseError(kind, Box::new(error.to_string())))
    }
}
