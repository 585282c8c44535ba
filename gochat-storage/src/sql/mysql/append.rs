//! The statements of an append, for the whole batch: as many ways over the network for a thousand drafts as for one.
//!
//! ```text
//! prepare: conversations FOR UPDATE ─► senders' intervals ─► known keys      (one statement each)
//! decide:  queries/append.rs, on what was read
//! finish:  INSERT of all new messages ─► UPDATE of all heads and marks        (one statement each)
//! ```
//!
//! Invariant: whoever changes a log or the right to write to it holds the row of its conversation. So once the conversations are
//! locked, what the next two statements read stays true until COMMIT, without locks of their own. That needs READ COMMITTED: a
//! snapshot from before the lock would miss what was committed while this one waited.

use std::collections::HashMap;

use diesel::{dsl::SqlTypeOf, mysql::Mysql};
use diesel_async::RunQueryDsl;
use gochat_core::{
    error::Error,
    ids::{ClientMsgId, ConversationId, Seq, UserId},
    model::{Conversation, Draft, Member, Message, PayloadHash},
    ports::AppendBatch,
    time::Timestamp,
};

use super::{
    Conn, PACKET_BYTES_MIN,
    queries::append::{Log, message},
    statement::{Statement, padded},
};
use crate::sql::{
    fail::Fail,
    rows::{ConversationRow, ENVELOPE_PLAIN, MemberRow, MessageRow},
};

/// Values in one statement, below the protocol's 65,535.
const VALUES_MAX: usize = 60_000;
const MESSAGE_COLUMNS: usize = 12;
/// Bytes of a message beside its body, generously.
const MESSAGE_BYTES: usize = 256;

/// The types of a row's columns, as `Selectable` has them.
pub type Columns<R> = SqlTypeOf<diesel::dsl::AsSelect<R, Mysql>>;

type Key = (ClientMsgId, ConversationId, UserId);

/// What a batch has read and what it is going to write.
pub struct Batch<'a> {
    conn: &'a mut Conn,
    /// Bytes that one statement may have.
    packet_bytes: usize,
    conversations: HashMap<ConversationId, Conversation>,
    intervals: HashMap<(ConversationId, UserId), Vec<Member>>,
    /// Those that were stored before this batch, then its own.
    messages: Vec<(Message, PayloadHash)>,
    /// How many were stored before.
    stored: usize,
    /// Where in `messages` a key is.
    keys: HashMap<Key, usize>,
    /// Conversations to write: head, dispatched, active at.
    moved: Vec<(ConversationId, Seq, Seq, Timestamp)>,
}

impl<'a> Batch<'a> {
    pub fn new(conn: &'a mut Conn, packet_bytes: usize) -> Self {
        Batch {
            conn,
            packet_bytes,
            conversations: HashMap::new(),
            intervals: HashMap::new(),
            messages: Vec::new(),
            stored: 0,
            keys: HashMap::new(),
            moved: Vec::new(),
        }
    }

    /// Locks the conversations that have drafts or marks, in the order of their ids: two batches never wait for each other in a
    /// circle.
    async fn lock(&mut self, batch: &AppendBatch) -> Result<(), Fail> {
        let drafted = batch.drafts.iter().map(|draft| draft.conversation);
        let mut ids: Vec<ConversationId> = drafted.chain(batch.dispatched.iter().map(|(id, _)| *id)).collect();
        ids.sort_unstable();
        ids.dedup();
        for ids in ids.chunks(VALUES_MAX) {
            let (rows, keep) = padded(ids);
            let mut statement = Statement::<Columns<ConversationRow>>::new(
                "SELECT id, kind, pair_key, name, description, avatar_url, owner_id, join_mode, link_hash, max_members, member_count, head_seq,
                        dispatched_seq, members_seq, dissolved, version, created_at, active_at
                 FROM conversations FORCE INDEX (PRIMARY) WHERE id IN (",
                keep,
            );
            statement
                .rows(rows, ",", |statement, id| {
                    statement.bytes(id.as_bytes());
                })
                .text(") ORDER BY id FOR UPDATE");
            for row in RunQueryDsl::load::<ConversationRow>(statement, self.conn).await? {
                let conversation = row.into_conversation()?;
                self.conversations.insert(conversation.id, conversation);
            }
        }
        Ok(())
    }

    async fn load_intervals(&mut self, batch: &AppendBatch) -> Result<(), Fail> {
        let mut pairs: Vec<(ConversationId, UserId)> = Vec::with_capacity(batch.drafts.len());
        pairs.extend(batch.drafts.iter().map(|draft| (draft.conversation, draft.sender)).filter(|(id, _)| self.conversations.contains_key(id)));
        pairs.sort_unstable();
        pairs.dedup();
        for row in intervals(self.conn, &pairs, "").await? {
            let member = row.into_member()?;
            self.intervals.entry((member.conversation, member.user)).or_default().push(member);
        }
        Ok(())
    }

    async fn load_known(&mut self, batch: &AppendBatch) -> Result<(), Fail> {
        let mut keys: Vec<Key> = batch.drafts.iter().filter(|draft| self.conversations.contains_key(&draft.conversation)).map(key).collect();
        keys.sort_unstable();
        keys.dedup();
        for keys in keys.chunks(VALUES_MAX / 3) {
            let (rows, keep) = padded(keys);
            let mut statement = Statement::<(Columns<MessageRow>, diesel::sql_types::Integer, diesel::sql_types::Binary)>::new(
                "SELECT conversation_id, seq, message_id, sender_id, client_msg_id, kind, envelope, body, reply_to, created_at, payload_key_id,
                        payload_hash
                 FROM messages FORCE INDEX (messages_once) WHERE (client_msg_id, conversation_id, sender_id) IN (",
                keep,
            );
            statement
                .rows(rows, ",", |statement, (client_msg_id, conversation, sender)| {
                    statement.text("(").bytes(client_msg_id.as_bytes()).text(",").bytes(conversation.as_bytes()).text(",");
                    statement.bytes(sender.as_bytes()).text(")");
                })
                .text(")");
            for (row, key_id, hash) in RunQueryDsl::load::<(MessageRow, i32, Vec<u8>)>(statement, self.conn).await? {
                let hash = hash.try_into().map_err(|_| Error::internal("a payload hash is not 32 bytes"))?;
                self.note(row.into_message()?, PayloadHash { key_id, hash });
            }
        }
        self.stored = self.messages.len();
        Ok(())
    }

    fn note(&mut self, message: Message, hash: PayloadHash) {
        self.keys.insert((message.client_msg_id, message.conversation, message.sender), self.messages.len());
        self.messages.push((message, hash));
    }

    async fn store_messages(&mut self) -> Result<(), Fail> {
        let mut rest = &self.messages[self.stored..];
        while !rest.is_empty() {
            let rows = fitting(rest, self.packet_bytes);
            let mut statement = Statement::<()>::new(
                "INSERT INTO messages (conversation_id, seq, message_id, sender_id, client_msg_id, payload_key_id, payload_hash, kind, envelope,
                                       body, reply_to, created_at) VALUES ",
                // One row is common where there is little to do; any other number is nearly never the same again.
                rows == 1,
            );
            statement.rows(&rest[..rows], ",", |statement, (message, hash)| {
                statement.text("(").bytes(message.conversation.as_bytes()).text(",").big(message.seq.0).text(",");
                statement.bytes(message.id.as_bytes()).text(",").bytes(message.sender.as_bytes()).text(",");
                statement.bytes(message.client_msg_id.as_bytes()).text(",").int(hash.key_id).text(",").bytes(&hash.hash).text(",");
                statement.int(message.body.kind as i32).text(",").int(ENVELOPE_PLAIN).text(",").bytes(message.body.content.as_bytes()).text(",");
                statement.big(message.reply_to.map(|seq| seq.0)).text(",").big(message.created_at.0).text(")");
            });
            RunQueryDsl::execute(statement, self.conn).await?;
            rest = &rest[rows..];
        }
        Ok(())
    }

    async fn store_conversations(&mut self) -> Result<(), Fail> {
        for moved in self.moved.chunks(VALUES_MAX / 4) {
            let (rows, keep) = padded(moved);
            let mut statement = Statement::<()>::new("UPDATE (", keep);
            statement
                .rows(rows, " UNION ALL ", |statement, (id, head, dispatched, active_at)| {
                    statement.text("SELECT CAST(").bytes(id.as_bytes()).text(" AS BINARY(16)) AS id, CAST(").big(head.0);
                    statement.text(" AS SIGNED) AS head, CAST(").big(dispatched.0).text(" AS SIGNED) AS dispatched, CAST(");
                    statement.big(active_at.0).text(" AS SIGNED) AS active_at");
                })
                .text(
                    ") AS moved STRAIGHT_JOIN conversations ON conversations.id = moved.id
                     SET conversations.head_seq = moved.head, conversations.dispatched_seq = moved.dispatched,
                         conversations.active_at = moved.active_at",
                );
            RunQueryDsl::execute(statement, self.conn).await?;
        }
        Ok(())
    }
}

impl Log for Batch<'_> {
    async fn prepare(&mut self, batch: &AppendBatch) -> Result<(), Fail> {
        self.lock(batch).await?;
        if !self.conversations.is_empty() {
            self.load_intervals(batch).await?;
            self.load_known(batch).await?;
        }
        Ok(())
    }

    async fn head(&mut self, id: ConversationId) -> Result<Option<Conversation>, Fail> {
        Ok(self.conversations.get(&id).cloned())
    }

    async fn intervals(&mut self, id: ConversationId, sender: UserId) -> Result<Vec<Member>, Fail> {
        Ok(self.intervals.remove(&(id, sender)).unwrap_or_default())
    }

    async fn insert(&mut self, draft: &Draft, seq: Seq) -> Result<bool, Fail> {
        if self.keys.contains_key(&key(draft)) {
            return Ok(false);
        }
        self.note(message(draft, seq), draft.payload_hash);
        Ok(true)
    }

    async fn stored(&mut self, draft: &Draft) -> Result<Option<(Message, PayloadHash)>, Fail> {
        Ok(self.keys.get(&key(draft)).map(|&index| self.messages[index].clone()))
    }

    async fn advance(&mut self, id: ConversationId, head: Seq, dispatched: Seq, active_at: Timestamp) -> Result<(), Fail> {
        self.moved.push((id, head, dispatched, active_at));
        Ok(())
    }

    async fn dispatched(&mut self, marks: Vec<(ConversationId, Seq)>) -> Result<(), Fail> {
        for (id, seq) in marks {
            let behind = self.conversations.get(&id).filter(|conversation| conversation.dispatched_seq < seq && conversation.head_seq >= seq);
            self.moved.extend(behind.map(|conversation| (id, conversation.head_seq, seq, conversation.active_at)));
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Fail> {
        self.store_messages().await?;
        self.store_conversations().await
    }
}

fn key(draft: &Draft) -> Key {
    (draft.client_msg_id, draft.conversation, draft.sender)
}

/// How many of these messages fit into one statement; at least one.
fn fitting(messages: &[(Message, PayloadHash)], packet_bytes: usize) -> usize {
    let mut room = packet_bytes.max(PACKET_BYTES_MIN) / 2;
    let fits = messages.iter().take(VALUES_MAX / MESSAGE_COLUMNS).take_while(|(message, _)| {
        let bytes = MESSAGE_BYTES + message.body.content.len();
        let fits = bytes <= room;
        room = room.saturating_sub(bytes);
        fits
    });
    fits.count().max(1)
}

/// The intervals of these members, sorted by conversation, user and beginning. Each pair is a range of the primary key: as one
/// list of conversations and one of users they would be read as all their combinations, or the table as a whole.
pub async fn intervals(conn: &mut Conn, pairs: &[(ConversationId, UserId)], lock: &'static str) -> Result<Vec<MemberRow>, Fail> {
    let mut found = Vec::with_capacity(pairs.len());
    for pairs in pairs.chunks(VALUES_MAX / 2) {
        let (rows, keep) = padded(pairs);
        let mut statement = Statement::<Columns<MemberRow>>::new(
            "SELECT conversation_id, user_id, join_seq, leave_seq, role, read_seq, delivered_seq, muted, silenced_until, hidden_seq
             FROM members FORCE INDEX (PRIMARY) WHERE (conversation_id, user_id) IN (",
            keep,
        );
        statement
            .rows(rows, ",", |statement, (id, user)| {
                statement.text("(").bytes(id.as_bytes()).text(",").bytes(user.as_bytes()).text(")");
            })
            .text(") ORDER BY conversation_id, user_id, join_seq")
            .text(lock);
        found.extend(RunQueryDsl::load::<MemberRow>(statement, conn).await?);
    }
    Ok(found)
}
