//! Reading: history, sync and marks. Pulling by seq is the truth; pushes are hints (decision 7).

use async_trait::async_trait;
use futures_util::future::join_all;

use super::Logic;
use crate::{
    error::{Code, Error, Result},
    ids::{ConversationId, Seq},
    limits::{PAGE_MAX, SYNC_CONVERSATIONS_MAX},
    model::{Caller, Mark, Member, Message, PushLogEntry, Readable},
    ports::{HistoryPage, HistoryQuery, MessagesApi, SyncAnswer, SyncRequest, SyncedConversation},
};

/// Bytes of bodies in one sync answer; conversations behind it come without entries and with `more`.
const SYNC_BYTES_MAX: usize = 512 * 1024;
/// Conversations of one sync that are read at the same time.
const SYNC_AT_ONCE: usize = 8;

#[async_trait]
impl MessagesApi for Logic {
    async fn history(&self, caller: &Caller, query: &HistoryQuery) -> Result<HistoryPage> {
        if query.after.is_some() && query.before.is_some() {
            return Err(Error::new(Code::InvalidField, "either after or before"));
        }
        let limit = query.limit.clamp(1, PAGE_MAX);
        let mut messages = self.ports.store.history(caller.user, query.conversation, query.after, query.before, limit + 1).await?;
        let more = messages.len() > limit;
        if more {
            // The surplus entry is the one farthest from where the page begins.
            if query.after.is_some() { messages.truncate(limit) } else { drop(messages.remove(0)) }
        }
        Ok(HistoryPage { messages, more })
    }

    async fn sync(&self, caller: &Caller, request: &SyncRequest) -> Result<SyncAnswer> {
        if request.have.len() > SYNC_CONVERSATIONS_MAX {
            return Err(Error::new(Code::InvalidField, format!("at most {SYNC_CONVERSATIONS_MAX} conversations in one sync")));
        }
        let limit = request.limit.clamp(1, PAGE_MAX);
        let mut conversations = Vec::with_capacity(request.have.len());
        let mut bytes = 0;
        let ids: Vec<ConversationId> = request.have.iter().map(|(id, _)| *id).collect();
        let readable = if ids.is_empty() { Vec::new() } else { self.ports.store.readable(caller.user, &ids).await? };
        let asked: Vec<_> = request.have.iter().zip(readable).collect();
        for part in asked.chunks(SYNC_AT_ONCE) {
            for synced in join_all(part.iter().map(|((id, have), readable)| self.lacked(caller, *id, *have, readable.as_ref(), limit))).await {
                let mut synced = synced?;
                let size: usize = synced.messages.iter().map(|message| message.body.content.len() + 200).sum();
                if bytes > 0 && bytes + size > SYNC_BYTES_MAX {
                    synced.more |= !synced.messages.is_empty();
                    synced.messages.clear();
                } else {
                    bytes += size;
                }
                conversations.push(synced);
            }
        }
        Ok(SyncAnswer { conversations })
    }

    async fn mark(&self, caller: &Caller, marks: &[Mark]) -> Result<Vec<Result<Member>>> {
        if marks.iter().any(|mark| mark.user != caller.user) {
            return Err(Error::new(Code::Denied, "only the own marks can be set"));
        }
        self.mark_members(marks).await
    }

    async fn push_log(&self, caller: &Caller, limit: usize) -> Result<Vec<PushLogEntry>> {
        self.ports.store.push_log(caller.user, limit.clamp(1, PAGE_MAX)).await
    }
}

impl Logic {
    async fn lacked(&self, caller: &Caller, id: ConversationId, have: Seq, readable: Option<&Readable>, limit: usize) -> Result<SyncedConversation> {
        let nothing = SyncedConversation { id, head_seq: Seq::ZERO, read_seq: Seq::ZERO, messages: Vec::new(), more: false };
        let Some((readable, member)) = readable.and_then(|readable| Some((readable, readable.intervals.last()?))) else { return Ok(nothing) };
        let head_seq = member.leave_seq.unwrap_or(readable.head_seq);
        let read_seq = member.read_seq;
        if have >= head_seq {
            return Ok(SyncedConversation { head_seq, read_seq, ..nothing });
        }
        let mut messages: Vec<Message> = self.ports.store.history(caller.user, id, Some(have.max(Seq::ZERO)), None, limit + 1).await?;
        let more = messages.len() > limit;
        messages.truncate(limit);
        // A message may have been stored since the head was read.
        let head_seq = messages.last().map_or(head_seq, |last| last.seq.max(head_seq));
        Ok(SyncedConversation { id, head_seq, read_seq, messages, more })
    }

    async fn mark_members(&self, marks: &[Mark]) -> Result<Vec<Result<Member>>> {
        let outcomes = self.ports.store.mark(marks).await?;
        let risen: Vec<Member> =
            outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).filter(|(_, risen)| *risen).map(|(member, _)| member.clone()).collect();
        if !risen.is_empty() {
            let ids: Vec<ConversationId> = risen.iter().map(|member| member.conversation).collect();
            let conversations = self.ports.store.conversations(&ids).await?;
            let told: Vec<(Member, Seq, i32)> = risen
                .into_iter()
                .zip(conversations)
                .filter_map(|(member, conversation)| conversation.map(|conversation| (member, conversation.members_seq, conversation.member_count)))
                .collect();
            if let Err(error) = self.dispatcher.marks(&told).await {
                tracing::warn!(?error, "marks were stored and not told; the next ones tell them");
            }
        }
        Ok(outcomes.into_iter().map(|outcome| outcome.map(|(member, _)| member)).collect())
    }
}
