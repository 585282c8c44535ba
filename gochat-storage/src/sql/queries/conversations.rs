//! Conversations: making them (I13), finding them, and the sweep for what was not dispatched.

use std::collections::{HashMap, HashSet};

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gochat_core::{
    error::{Code, Error},
    ids::{ClientMsgId, ConversationId, MessageId, Seq, UserId},
    model::{Body, Conversation, ConversationKind, Event, Message, MessageKind, NewConversation, Role},
    ports::Created,
    time::Timestamp,
};

use super::{Conn, Fail, IN_MAX, devices, insert_members, insert_message, limit, locked, log};
use crate::sql::{
    rows::{ConversationRow, MemberRow, NewMessageRow, join_mode_number, kind_number},
    schema::{conversations, create_keys, members as member_rows},
};

pub async fn create(conn: &mut Conn, new: NewConversation) -> Result<Created, Fail> {
    if let Some(key) = &new.idempotency {
        let stored = create_keys::table
            .find((&new.creator.as_bytes()[..], &key.key))
            .select((create_keys::request_hash, create_keys::conversation_id))
            .first::<(Vec<u8>, Vec<u8>)>(conn)
            .await
            .optional()?;
        if let Some((hash, id)) = stored {
            if hash != key.request_hash {
                return Err(Code::IdempotencyConflict.into());
            }
            return existing(conn, &id, new.creator).await;
        }
    }
    let pair_key = match (new.kind, new.members.as_slice()) {
        (ConversationKind::Group, _) => None,
        (ConversationKind::Single, [peer]) if *peer != new.creator => Some(pair_key(new.creator, *peer)),
        (ConversationKind::Single, _) => return Err(Error::new(Code::InvalidField, "a 1:1 has exactly one other member").into()),
    };
    if let Some(created) = stored_before(conn, &new, pair_key.as_deref()).await? {
        return Ok(created);
    }
    // Where several writers race for a key, the unit of work that comes second fails here, is run again and then finds it above.
    make(conn, &new, pair_key).await
}

/// The pair's 1:1, or what an earlier try of this very call has made.
async fn stored_before(conn: &mut Conn, new: &NewConversation, pair_key: Option<&[u8]>) -> Result<Option<Created>, Fail> {
    if let Some(pair_key) = pair_key {
        let found =
            conversations::table.filter(conversations::pair_key.eq(pair_key)).select(conversations::id).first::<Vec<u8>>(conn).await.optional()?;
        if let Some(id) = found {
            remember_key(conn, new, &id).await?;
            return existing(conn, &id, new.creator).await.map(Some);
        }
    }
    if row(conn, new.id).await?.is_none() {
        return Ok(None);
    }
    match log::entry(conn, new.id, Seq(1)).await? {
        Some(first) if first.id == new.event_id && first.sender == new.creator => existing(conn, new.id.as_bytes(), new.creator).await.map(Some),
        _ => Err(Code::IdempotencyConflict.into()),
    }
}

async fn make(conn: &mut Conn, new: &NewConversation, pair_key: Option<Vec<u8>>) -> Result<Created, Fail> {
    let mut named: HashSet<UserId> = HashSet::from([new.creator]);
    let others: Vec<UserId> = new.members.iter().copied().filter(|user| named.insert(*user)).collect();
    let active = devices::active(conn, named.iter().copied()).await?;
    if let Some(missing) = std::iter::once(&new.creator).chain(&others).find(|user| !active.contains(user)) {
        return Err(Error::new(Code::UserNotFound, format!("there is no active user {missing}")).into());
    }
    let member_count = i32::try_from(named.len()).unwrap_or(i32::MAX);
    if member_count > new.max_members {
        return Err(Error::new(Code::GroupFull, format!("{member_count} members are more than max_members allows: {}", new.max_members)).into());
    }
    let group = new.kind == ConversationKind::Group;
    let first = Seq(1);
    let row = ConversationRow {
        id: new.id.as_bytes().to_vec(),
        kind: kind_number(new.kind),
        pair_key,
        name: new.name.clone(),
        description: new.description.clone(),
        avatar_url: new.avatar_url.clone(),
        owner_id: group.then(|| new.creator.as_bytes().to_vec()),
        join_mode: join_mode_number(new.join_mode),
        link_hash: None,
        max_members: new.max_members,
        member_count,
        head_seq: first.0,
        dispatched_seq: 0,
        members_seq: first.0,
        dissolved: false,
        version: 1,
        created_at: new.at.0,
        active_at: new.at.0,
    };
    diesel::insert_into(conversations::table).values(&row).execute(conn).await?;
    let creator = MemberRow::begin(new.id, new.creator, if group { Role::Owner } else { Role::Member }, first);
    let mut rows: Vec<MemberRow> =
        std::iter::once(creator).chain(others.iter().map(|user| MemberRow::begin(new.id, *user, Role::Member, first))).collect();
    // In the order of the table's key: each page is written once.
    rows.sort_unstable_by(|a, b| a.user_id.cmp(&b.user_id));
    insert_members(conn, &rows).await?;
    let event = event_entry(new.id, first, new.event_id, new.creator, &Event::Created { users: others }, new.at)?;
    store_event(conn, &event).await?;
    remember_key(conn, new, &row.id).await?;
    Ok(Created { conversation: row.into_conversation()?, event: Some(event), existed: false })
}

async fn remember_key(conn: &mut Conn, new: &NewConversation, id: &[u8]) -> Result<(), Fail> {
    let Some(key) = &new.idempotency else { return Ok(()) };
    let values = (
        create_keys::creator_id.eq(&new.creator.as_bytes()[..]),
        create_keys::create_key.eq(&key.key),
        create_keys::request_hash.eq(&key.request_hash[..]),
        create_keys::conversation_id.eq(id),
    );
    diesel::insert_into(create_keys::table).values(values).execute(conn).await?;
    Ok(())
}

/// What is there, unhidden for who asked to make it.
async fn existing(conn: &mut Conn, id: &[u8], creator: UserId) -> Result<Created, Fail> {
    let id = ConversationId::from_slice(id)?;
    let row = row(conn, id).await?.ok_or_else(|| Error::internal(format!("conversation {id} is named by a key and not there")))?;
    let hidden = member_rows::table.filter(
        member_rows::conversation_id
            .eq(&id.as_bytes()[..])
            .and(member_rows::user_id.eq(&creator.as_bytes()[..]))
            .and(member_rows::leave_seq.is_null())
            .and(member_rows::hidden_seq.gt(0)),
    );
    diesel::update(hidden).set(member_rows::hidden_seq.eq(0)).execute(conn).await?;
    Ok(Created { conversation: row.into_conversation()?, event: None, existed: true })
}

/// One key for both directions.
fn pair_key(a: UserId, b: UserId) -> Vec<u8> {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    [*low.as_bytes(), *high.as_bytes()].concat()
}

/// The row of a conversation that this transaction is going to change.
pub async fn row(conn: &mut Conn, id: ConversationId) -> Result<Option<ConversationRow>, Fail> {
    let query = conversations::table.find(&id.as_bytes()[..]).select(ConversationRow::as_select());
    Ok(locked!(query).first(conn).await.optional()?)
}

/// A log entry of kind event. Its own id is its idempotency key.
pub fn event_entry(id: ConversationId, seq: Seq, event_id: MessageId, actor: UserId, event: &Event, at: Timestamp) -> Result<Message, Fail> {
    let content = serde_json::to_string(event).map_err(Error::internal)?;
    Ok(Message {
        conversation: id,
        seq,
        id: event_id,
        sender: actor,
        client_msg_id: ClientMsgId::from_bytes(*event_id.as_bytes()),
        body: Body { kind: MessageKind::Event, content: content.into() },
        reply_to: None,
        created_at: at,
    })
}

pub async fn store_event(conn: &mut Conn, event: &Message) -> Result<(), Fail> {
    match insert_message(conn, &NewMessageRow::from_event(event)).await? {
        true => Ok(()),
        false => Err(Code::IdempotencyConflict.into()),
    }
}

pub async fn by_ids(conn: &mut Conn, ids: Vec<ConversationId>) -> Result<Vec<Option<Conversation>>, Fail> {
    let mut found: HashMap<ConversationId, Conversation> = HashMap::with_capacity(ids.len());
    for page in ids.chunks(IN_MAX) {
        let query = conversations::table.filter(conversations::id.eq_any(page.iter().map(|id| &id.as_bytes()[..])));
        for row in query.select(ConversationRow::as_select()).load(conn).await? {
            let conversation = row.into_conversation()?;
            found.insert(conversation.id, conversation);
        }
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

pub async fn by_link(conn: &mut Conn, link_hash: Vec<u8>) -> Result<Option<Conversation>, Fail> {
    let query = conversations::table.filter(conversations::link_hash.eq(link_hash)).select(ConversationRow::as_select());
    query.first(conn).await.optional()?.map(ConversationRow::into_conversation).transpose()
}

pub async fn undispatched(conn: &mut Conn, after: Option<ConversationId>, scan: usize) -> Result<(Vec<Conversation>, Option<ConversationId>), Fail> {
    let after = after.map_or(Vec::new(), |id| id.as_bytes().to_vec());
    let query = conversations::table.filter(conversations::id.gt(after)).order(conversations::id).limit(limit(scan));
    let looked_at = query.select((conversations::id, conversations::head_seq, conversations::dispatched_seq));
    let looked_at: Vec<(Vec<u8>, i64, i64)> = looked_at.load(conn).await?;
    let next = looked_at.last().filter(|_| looked_at.len() >= scan).map(|(id, ..)| ConversationId::from_slice(id)).transpose()?;
    let behind = looked_at.iter().filter(|(_, head, dispatched)| dispatched < head).map(|(id, ..)| ConversationId::from_slice(id));
    let behind = behind.collect::<Result<Vec<_>, _>>()?;
    let found = by_ids(conn, behind).await?;
    Ok((found.into_iter().flatten().collect(), next))
}
