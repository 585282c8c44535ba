//! The append: permission, idempotency, seq, rows and heads of a whole batch in one transaction (I1, I2, I4, I6).
//!
//! ```text
//! prepare ─► sort by conversation ─► head ─► sender's intervals ─► may_send ─► insert unless repeated ─► next ─► head once ─► finish
//! ```
//!
//! What is decided stands in [`append`]; the statements that it needs are a [`Log`], so that a database may have faster ones
//! than the query builder's without a second opinion on who may send. Where a statement is cheap, each step is one; where it
//! is a way over the network, [`Log::prepare`] reads for the whole batch what the steps then look up, and [`Log::finish`]
//! writes for the whole batch what they have noted.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gochat_core::{
    error::{Code, Error, Result as Outcome},
    ids::{ConversationId, Seq, UserId},
    model::{Conversation, Draft, Member, Message, PayloadHash},
    ports::{AppendBatch, Appended},
    rules,
    time::Timestamp,
};

use super::{Fail, builder::Diesel, conversations::row, insert_message, marks, members::intervals_of_one};
use crate::sql::{
    rows::{MessageRow, NewMessageRow},
    schema::{conversations, messages},
};

/// The statements of an append.
pub trait Log: Send {
    /// Called once, before the first decision.
    fn prepare(&mut self, batch: &AppendBatch) -> impl Future<Output = Result<(), Fail>> + Send;
    /// The conversation, locked.
    fn head(&mut self, id: ConversationId) -> impl Future<Output = Result<Option<Conversation>, Fail>> + Send;
    /// The sender's intervals, oldest first.
    fn intervals(&mut self, id: ConversationId, sender: UserId) -> impl Future<Output = Result<Vec<Member>, Fail>> + Send;
    /// Stores the draft unless its key is there; `false`: it is.
    fn insert(&mut self, draft: &Draft, seq: Seq) -> impl Future<Output = Result<bool, Fail>> + Send;
    /// What is stored under the draft's key.
    fn stored(&mut self, draft: &Draft) -> impl Future<Output = Result<Option<(Message, PayloadHash)>, Fail>> + Send;
    /// Moves a head, with what was dispatched.
    fn advance(&mut self, id: ConversationId, head: Seq, dispatched: Seq, active_at: Timestamp) -> impl Future<Output = Result<(), Fail>> + Send;
    /// Raises what was dispatched where no head moves.
    fn dispatched(&mut self, marks: Vec<(ConversationId, Seq)>) -> impl Future<Output = Result<(), Fail>> + Send;
    /// Called once, after the last decision; then everything is written.
    fn finish(&mut self) -> impl Future<Output = Result<(), Fail>> + Send;
}

/// One outcome per draft, in their order; see [`Messages::append`](gochat_core::ports::Messages::append).
pub async fn append(log: &mut impl Log, batch: &AppendBatch) -> Result<Vec<Outcome<Appended>>, Fail> {
    log.prepare(batch).await?;
    let mut dispatched: HashMap<ConversationId, Seq> = HashMap::with_capacity(batch.dispatched.len());
    for &(id, seq) in &batch.dispatched {
        let mark = dispatched.entry(id).or_default();
        *mark = seq.max(*mark);
    }
    // Conversations one after the other, in the order of their ids; within one in the order of the drafts.
    let mut order: Vec<usize> = (0..batch.drafts.len()).collect();
    order.sort_by_key(|&index| batch.drafts[index].conversation);
    let mut outcomes: Vec<Option<Outcome<Appended>>> = Vec::new();
    outcomes.resize_with(batch.drafts.len(), || None);
    for run in order.chunk_by(|&a, &b| batch.drafts[a].conversation == batch.drafts[b].conversation) {
        let id = batch.drafts[run[0]].conversation;
        let Some(conversation) = log.head(id).await? else {
            for &index in run {
                outcomes[index] = Some(Err(Code::ConversationNotFound.into()));
            }
            continue;
        };
        let dispatched = conversation.dispatched_seq.max(dispatched.remove(&id).unwrap_or_default().min(conversation.head_seq));
        let mut run_state = Run { head: conversation.head_seq, active_at: conversation.active_at, dispatched, conversation, senders: Vec::new() };
        for &index in run {
            outcomes[index] = Some(run_state.append(log, &batch.drafts[index]).await?);
        }
        run_state.store(log).await?;
    }
    if !dispatched.is_empty() {
        log.dispatched(dispatched.into_iter().collect()).await?;
    }
    log.finish().await?;
    Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(Error::internal("a draft was not looked at")))).collect())
}

/// The drafts of one conversation.
struct Run {
    conversation: Conversation,
    head: Seq,
    active_at: Timestamp,
    dispatched: Seq,
    /// The intervals of the senders seen so far: few, so that looking through them beats hashing.
    senders: Vec<(UserId, Vec<Member>)>,
}

impl Run {
    async fn append(&mut self, log: &mut impl Log, draft: &Draft) -> Result<Outcome<Appended>, Fail> {
        let known = match self.senders.iter().position(|(user, _)| *user == draft.sender) {
            Some(known) => known,
            None => {
                self.senders.push((draft.sender, log.intervals(draft.conversation, draft.sender).await?));
                self.senders.len() - 1
            }
        };
        if let Err(refusal) = self.admit(draft, &self.senders[known].1) {
            // What was stored while the sender was allowed to stays answered, whatever has happened since (I6).
            return match log.stored(draft).await? {
                Some(stored) => Ok(self.repeated(draft, stored)),
                None => Ok(Err(refusal)),
            };
        }
        let seq = self.head.next();
        if log.insert(draft, seq).await? {
            self.head = seq;
            self.active_at = draft.created_at;
            return Ok(Ok(self.appended(message(draft, seq), false)));
        }
        match log.stored(draft).await? {
            Some(stored) => Ok(self.repeated(draft, stored)),
            None => Err(Error::internal("a key is in use and not there").into()),
        }
    }

    fn admit(&self, draft: &Draft, intervals: &[Member]) -> Outcome<()> {
        let current = intervals.last().filter(|member| member.is_current());
        rules::may_send(&self.conversation, current, !intervals.is_empty(), draft.created_at)?;
        match draft.reply_to {
            // The log has no holes: what is between 1 and the head is there.
            Some(seq) if seq < Seq(1) || seq > self.head || !intervals.iter().any(|member| member.sees(seq)) => Err(Code::MessageNotFound.into()),
            _ => Ok(()),
        }
    }

    fn repeated(&self, draft: &Draft, (stored, hash): (Message, PayloadHash)) -> Outcome<Appended> {
        // Hashes under different keys cannot be compared; the payloads can.
        let same = match hash.key_id == draft.payload_hash.key_id {
            true => hash.hash == draft.payload_hash.hash,
            false => stored.body == draft.body && stored.reply_to == draft.reply_to,
        };
        if same { Ok(self.appended(stored, true)) } else { Err(Code::IdempotencyConflict.into()) }
    }

    fn appended(&self, message: Message, repeated: bool) -> Appended {
        let Conversation { member_count, members_seq, .. } = self.conversation;
        Appended { message, repeated, member_count, members_seq, dispatched_seq: self.dispatched }
    }

    async fn store(self, log: &mut impl Log) -> Result<(), Fail> {
        let Conversation { id, head_seq, dispatched_seq, .. } = self.conversation;
        if (self.head, self.dispatched) == (head_seq, dispatched_seq) {
            return Ok(());
        }
        log.advance(id, self.head, self.dispatched, self.active_at).await
    }
}

/// The entry that a draft becomes.
pub fn message(draft: &Draft, seq: Seq) -> Message {
    Message {
        conversation: draft.conversation,
        seq,
        id: draft.id,
        sender: draft.sender,
        client_msg_id: draft.client_msg_id,
        body: draft.body.clone(),
        reply_to: draft.reply_to,
        created_at: draft.created_at,
    }
}

impl Log for Diesel<'_> {
    async fn prepare(&mut self, _: &AppendBatch) -> Result<(), Fail> {
        Ok(())
    }

    async fn head(&mut self, id: ConversationId) -> Result<Option<Conversation>, Fail> {
        row(self.0, id).await?.map(|row| row.into_conversation()).transpose()
    }

    async fn intervals(&mut self, id: ConversationId, sender: UserId) -> Result<Vec<Member>, Fail> {
        intervals_of_one(self.0, id, sender).await
    }

    async fn insert(&mut self, draft: &Draft, seq: Seq) -> Result<bool, Fail> {
        insert_message(self.0, &NewMessageRow::from_draft(draft, seq)).await
    }

    async fn stored(&mut self, draft: &Draft) -> Result<Option<(Message, PayloadHash)>, Fail> {
        let query = messages::table
            .filter(messages::client_msg_id.eq(&draft.client_msg_id.as_bytes()[..]))
            .filter(messages::conversation_id.eq(&draft.conversation.as_bytes()[..]).and(messages::sender_id.eq(&draft.sender.as_bytes()[..])))
            .select((MessageRow::as_select(), messages::payload_key_id, messages::payload_hash));
        let found: Option<(MessageRow, i32, Vec<u8>)> = query.first(self.0).await.optional()?;
        let Some((row, key_id, hash)) = found else { return Ok(None) };
        let hash = hash.try_into().map_err(|_| Error::internal("a payload hash is not 32 bytes"))?;
        Ok(Some((row.into_message()?, PayloadHash { key_id, hash })))
    }

    async fn advance(&mut self, id: ConversationId, head: Seq, dispatched: Seq, active_at: Timestamp) -> Result<(), Fail> {
        let values = (conversations::head_seq.eq(head.0), conversations::dispatched_seq.eq(dispatched.0), conversations::active_at.eq(active_at.0));
        diesel::update(conversations::table.find(&id.as_bytes()[..])).set(values).execute(self.0).await?;
        Ok(())
    }

    async fn dispatched(&mut self, marks: Vec<(ConversationId, Seq)>) -> Result<(), Fail> {
        marks::set_dispatched(self.0, marks).await
    }

    async fn finish(&mut self) -> Result<(), Fail> {
        Ok(())
    }
}
