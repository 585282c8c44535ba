//! `user_conversations:{user}`: what the newest page of a user's list reads from the logs.
//!
//! ```text
//! list ─► what is kept ─► Store::listed: rows, order, heads and marks of this moment
//!           ├ same last entry, same first unread one ─► last message and unread as they are kept
//!           ├ the conversation's newest page has them ─► from there
//!           └ neither ─► Store, for these conversations alone; for many of them for the whole list
//! ```
//!
//! Last message and unread are a function of the log between two seqs, and entries never change: what was computed for the same
//! two seqs and the same user is right whenever it was. Which conversations there are, their order, and up to where the user has
//! read, is never kept. So nobody has to write here when a message is stored; the next reader does.
//!
//! The version counts refreshments: it only decides which of two right ones stays.

use std::collections::HashMap;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::{
    CachedStore, encode,
    pages::{self, Kept},
};
use crate::{
    error::Result,
    ids::{ConversationId, Seq, UserId},
    model::{ConversationView, Listed, Message},
    ports::CacheKey,
    unread::unread_range,
};

/// Conversations that the store is asked for one by one; for more of them the whole list is read.
const ALONE_MAX: usize = 4;
/// Rows that are kept: what clients ask for first, and the surplus one.
const ROWS_MAX: usize = 64;
/// Bytes of a last message that is kept; a longer one is read each time.
const BODY_BYTES_MAX: usize = 2 * 1024;

/// What one row of a list reads from the log.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    id: ConversationId,
    last: Seq,
    first_unread: Seq,
    unread: i64,
    message: Option<Kept>,
}

/// The two seqs that last message and unread depend on.
fn depends_on(listed: &Listed) -> (Seq, Seq) {
    (listed.last_seq(), Seq(*unread_range(&listed.member, listed.conversation.head_seq).start()))
}

/// [`Conversations::conversations_of`](crate::ports::Conversations::conversations_of) from the beginning.
pub(super) async fn newest(cached: &CachedStore, user: UserId, limit: usize) -> Result<Vec<ConversationView>> {
    let key = CacheKey::UserConversations(user);
    let found = cached.updater.cache.get(&[key]).await.pop().flatten();
    let version = found.as_ref().map_or(0, |(version, _)| *version);
    let kept: Option<Vec<Row>> = found.and_then(|(_, bytes)| serde_json::from_slice(&bytes).ok());
    let Some(kept) = kept else { return whole(cached, user, limit, version, HashMap::new()).await };
    let mut kept: HashMap<ConversationId, Row> = kept.into_iter().map(|row| (row.id, row)).collect();
    let listed = cached.store.listed(user, None, limit).await?;
    let mut read: Vec<Option<(Option<Message>, i64)>> = Vec::with_capacity(listed.len());
    for listed in &listed {
        let row = kept.remove(&listed.conversation.id).filter(|row| (row.last, row.first_unread) == depends_on(listed));
        read.push(row.map(|row| (row.message.map(|message| message.message(row.id)), row.unread)));
    }
    let changed = read.iter().any(Option::is_none);
    if !from_pages(cached, user, &listed, &mut read).await || !from_store(cached, user, &listed, &mut read).await? {
        return whole(cached, user, limit, version, kept).await;
    }
    let views: Vec<ConversationView> =
        listed.into_iter().zip(read).filter_map(|(listed, read)| read.map(|(message, unread)| listed.with(message, unread))).collect();
    if changed {
        keep(cached, user, version, &views, kept).await;
    }
    Ok(views)
}

/// The whole list from the store.
async fn whole(
    cached: &CachedStore,
    user: UserId,
    limit: usize,
    version: i64,
    others: HashMap<ConversationId, Row>,
) -> Result<Vec<ConversationView>> {
    let views = cached.store.conversations_of(user, None, limit).await?;
    keep(cached, user, version, &views, others).await;
    Ok(views)
}

/// Fills in what the newest pages of the conversations have. `false`: so much is missing that the whole list costs less.
async fn from_pages(cached: &CachedStore, user: UserId, listed: &[Listed], read: &mut [Option<(Option<Message>, i64)>]) -> bool {
    let missing: Vec<usize> = (0..listed.len()).filter(|&index| read[index].is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    let ids: Vec<ConversationId> = missing.iter().map(|&index| listed[index].conversation.id).collect();
    for (index, page) in missing.into_iter().zip(pages::kept(cached, &ids).await) {
        let (last, first_unread) = depends_on(&listed[index]);
        let found = page.filter(|page| page.last() == listed[index].conversation.head_seq).and_then(|page| page.of_list(last, first_unread, user));
        read[index] = found.map(|(message, unread)| (Some(message), unread));
    }
    read.iter().filter(|read| read.is_none()).count() <= ALONE_MAX
}

/// Fills in the rest. `false`: something has changed meanwhile, and the list has to be read as one.
async fn from_store(cached: &CachedStore, user: UserId, listed: &[Listed], read: &mut [Option<(Option<Message>, i64)>]) -> Result<bool> {
    let missing: Vec<usize> = (0..listed.len()).filter(|&index| read[index].is_none()).collect();
    let views = try_join_all(missing.iter().map(|&index| cached.store.conversation_view(user, listed[index].conversation.id))).await?;
    for (index, view) in missing.into_iter().zip(views) {
        let Some(view) = view else { return Ok(false) };
        let unchanged = unread_range(&view.member, view.conversation.head_seq)
            == unread_range(&listed[index].member, listed[index].conversation.head_seq)
            && view.conversation.head_seq == listed[index].conversation.head_seq;
        if !unchanged {
            return Ok(false);
        }
        read[index] = Some((view.last_message, view.unread));
    }
    Ok(true)
}

/// Keeps what was read for these rows, and of the others what there is room for: the next list may be a longer one.
async fn keep(cached: &CachedStore, user: UserId, version: i64, views: &[ConversationView], mut others: HashMap<ConversationId, Row>) {
    for view in views {
        others.remove(&view.conversation.id);
    }
    let short = |view: &&ConversationView| view.last_message.as_ref().is_none_or(|message| message.body.content.len() <= BODY_BYTES_MAX);
    let row = |view: &ConversationView| {
        let range = unread_range(&view.member, view.conversation.head_seq);
        let last = view.member.leave_seq.unwrap_or(view.conversation.head_seq).min(view.conversation.head_seq);
        Row {
            id: view.conversation.id,
            last,
            first_unread: Seq(*range.start()),
            unread: view.unread,
            message: view.last_message.as_ref().map(Kept::of),
        }
    };
    let rows: Vec<Row> = views.iter().filter(short).map(row).chain(others.into_values()).take(ROWS_MAX).collect();
    if let Some(bytes) = encode(&rows) {
        cached.updater.cache.set(&[(CacheKey::UserConversations(user), version.saturating_add(1), bytes)], pages::TTL).await;
    }
}
