//! What is done to a group: load and lock, ask the rules, write what they answer.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gochat_core::{
    error::{Code, Error},
    ids::{ClientMsgId, ConversationId, MessageId, UserId},
    model::{Conversation, GroupAction, Member},
    ports::Changed,
    rules::{self, ConversationChange, GroupState, MemberChange, RequestChange},
    time::Timestamp,
};

use super::{
    Conn, Fail,
    conversations::{event_entry, row, store_event},
    devices, insert_members,
    members::{intervals_of, row_of},
};
use crate::sql::{
    rows::{MemberRow, MessageRow, join_mode_number, role_number},
    schema::{conversations, join_requests, members, messages},
};

pub async fn manage(
    conn: &mut Conn,
    id: ConversationId,
    actor: UserId,
    action: GroupAction,
    event_id: MessageId,
    at: Timestamp,
) -> Result<Changed, Fail> {
    let stored = row(conn, id).await?.ok_or(Code::ConversationNotFound)?;
    let link_hash = stored.link_hash.clone();
    let conversation = stored.into_conversation()?;
    if let Some(event) = told_before(conn, id, actor, event_id).await? {
        return Ok(Changed { conversation, event: Some(event.into_message()?) });
    }
    let users = rules::subjects(&action);
    let mut named: Vec<UserId> = users.iter().copied().chain([actor]).collect();
    named.sort_unstable();
    named.dedup();
    let intervals = intervals_of(conn, id, &named).await?;
    let active = devices::active(conn, users.iter().copied()).await?;
    let current = |user: &UserId| intervals.get(user).and_then(|intervals| intervals.last()).filter(|member| member.is_current());
    let subjects: Vec<(UserId, Option<Member>, bool)> = users.iter().map(|user| (*user, current(user).cloned(), active.contains(user))).collect();
    let request_open = match &action {
        GroupAction::AnswerRequest { user, .. } => request_open(conn, id, *user).await?,
        GroupAction::AskToJoin => request_open(conn, id, actor).await?,
        _ => false,
    };
    let state = GroupState {
        conversation: &conversation,
        actor,
        actor_member: current(&actor),
        actor_was_member: intervals.contains_key(&actor),
        subjects: &subjects,
        link_hash: link_hash.as_deref(),
        request_open,
    };
    let effects = rules::decide(&state, &action)?;

    let mut after = Change { conversation: conversation.clone(), link_hash };
    if effects.event.is_some() {
        after.conversation.head_seq = conversation.head_seq.next();
        after.conversation.active_at = at;
    }
    change_members(conn, &mut after.conversation, &effects.members, &intervals).await?;
    for change in effects.conversation.iter().cloned() {
        after.apply(change);
    }
    if effects.event.is_some() || !effects.conversation.is_empty() {
        after.conversation.version += 1;
        after.store(conn).await?;
    }
    if let Some(change) = effects.request {
        change_request(conn, id, change, at).await?;
    }
    let event = match &effects.event {
        Some(event) => {
            let entry = event_entry(id, after.conversation.head_seq, event_id, actor, event, at)?;
            store_event(conn, &entry).await?;
            Some(entry)
        }
        None => None,
    };
    Ok(Changed { conversation: after.conversation, event })
}

/// The entry of an earlier try of this very call.
async fn told_before(conn: &mut Conn, id: ConversationId, actor: UserId, event_id: MessageId) -> Result<Option<MessageRow>, Fail> {
    let key = ClientMsgId::from_bytes(*event_id.as_bytes());
    let query = messages::table.filter(
        messages::client_msg_id
            .eq(&key.as_bytes()[..])
            .and(messages::conversation_id.eq(&id.as_bytes()[..]))
            .and(messages::sender_id.eq(&actor.as_bytes()[..])),
    );
    let found = query.select(MessageRow::as_select()).first(conn).await.optional()?;
    // The key of an event is made by the server; a client's message with the same id is none.
    Ok(found.filter(|row| row.message_id == event_id.as_bytes()))
}

async fn request_open(conn: &mut Conn, id: ConversationId, user: UserId) -> Result<bool, Fail> {
    let query = join_requests::table.find((&id.as_bytes()[..], &user.as_bytes()[..])).select(join_requests::created_at);
    Ok(query.first::<i64>(conn).await.optional()?.is_some())
}

async fn change_members(
    conn: &mut Conn,
    conversation: &mut Conversation,
    changes: &[MemberChange],
    intervals: &HashMap<UserId, Vec<Member>>,
) -> Result<(), Fail> {
    let seq = conversation.head_seq;
    let mut added = Vec::new();
    for change in changes {
        match change {
            MemberChange::Add(user) => {
                added.push(MemberRow::resume(conversation.id, *user, seq, intervals.get(user).and_then(|intervals| intervals.last())));
                conversation.member_count += 1;
                conversation.members_seq = seq;
            }
            MemberChange::End(user) => {
                diesel::update(row_of(member(intervals, user)?)).set(members::leave_seq.eq(Some(seq.0))).execute(conn).await?;
                conversation.member_count -= 1;
                conversation.members_seq = seq;
            }
            MemberChange::Role(user, role) => {
                diesel::update(row_of(member(intervals, user)?)).set(members::role.eq(role_number(*role))).execute(conn).await?;
            }
            MemberChange::Silence(user, until) => {
                let until = until.map(|until| until.0);
                diesel::update(row_of(member(intervals, user)?)).set(members::silenced_until.eq(until)).execute(conn).await?;
            }
            MemberChange::Hide(user, seq) => {
                diesel::update(row_of(member(intervals, user)?)).set(members::hidden_seq.eq(seq.0)).execute(conn).await?;
            }
        }
    }
    added.sort_unstable_by(|a, b| a.user_id.cmp(&b.user_id));
    insert_members(conn, &added).await
}

/// The interval that a change is about: the rules have seen it.
fn member<'a>(intervals: &'a HashMap<UserId, Vec<Member>>, user: &UserId) -> Result<&'a Member, Fail> {
    let last = intervals.get(user).and_then(|intervals| intervals.last());
    last.ok_or_else(|| Error::internal(format!("a change of user {user}, who has no row")).into())
}

async fn change_request(conn: &mut Conn, id: ConversationId, change: RequestChange, at: Timestamp) -> Result<(), Fail> {
    match change {
        RequestChange::Open(user) => {
            let values = (
                join_requests::conversation_id.eq(&id.as_bytes()[..]),
                join_requests::user_id.eq(&user.as_bytes()[..]),
                join_requests::created_at.eq(at.0),
            );
            diesel::insert_into(join_requests::table).values(values).execute(conn).await?;
        }
        RequestChange::Close(user) => {
            diesel::delete(join_requests::table.find((&id.as_bytes()[..], &user.as_bytes()[..]))).execute(conn).await?;
        }
    }
    Ok(())
}

/// A conversation as it will be.
struct Change {
    conversation: Conversation,
    link_hash: Option<Vec<u8>>,
}

impl Change {
    fn apply(&mut self, change: ConversationChange) {
        let conversation = &mut self.conversation;
        match change {
            ConversationChange::Name(name) => conversation.name = name,
            ConversationChange::Description(description) => conversation.description = description,
            ConversationChange::Avatar(url) => conversation.avatar_url = url,
            ConversationChange::MaxMembers(max) => conversation.max_members = max,
            ConversationChange::JoinMode(mode) => conversation.join_mode = mode,
            ConversationChange::Owner(user) => conversation.owner = Some(user),
            ConversationChange::Link(hash) => self.link_hash = hash,
            ConversationChange::Dissolve => conversation.dissolved = true,
        }
    }

    async fn store(&self, conn: &mut Conn) -> Result<(), Fail> {
        let conversation = &self.conversation;
        let values = (
            conversations::name.eq(&conversation.name),
            conversations::description.eq(&conversation.description),
            conversations::avatar_url.eq(&conversation.avatar_url),
            conversations::owner_id.eq(conversation.owner.map(|user| user.as_bytes().to_vec())),
            conversations::join_mode.eq(join_mode_number(conversation.join_mode)),
            conversations::link_hash.eq(&self.link_hash),
            conversations::max_members.eq(conversation.max_members),
            conversations::member_count.eq(conversation.member_count),
            conversations::head_seq.eq(conversation.head_seq.0),
            conversations::members_seq.eq(conversation.members_seq.0),
            conversations::dissolved.eq(conversation.dissolved),
            conversations::version.eq(conversation.version),
            conversations::active_at.eq(conversation.active_at.0),
        );
        diesel::update(conversations::table.find(&conversation.id.as_bytes()[..])).set(values).execute(conn).await?;
        Ok(())
    }
}
