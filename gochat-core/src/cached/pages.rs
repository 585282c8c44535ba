//! `message:{conversation}`: the newest entries of a conversation, for all its readers.
//!
//! ```text
//! history ─► the page in cache ─► Store::readable: head and intervals of this moment
//!              ├ ends at the head ─► clipped to what the reader sees
//!              ├ ends below it    ─► Store::log brings what is new ─► kept
//!              └ does not reach   ─► Store::history
//! ```
//!
//! The version of a page is the seq of its last entry. Entries never change, so a page is right for ever; whether it is the
//! newest is what the store says in this very call. No write touches it.

use std::time::Duration;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use super::{CachedStore, encode};
use crate::{
    error::{Code, Result},
    ids::{ClientMsgId, ConversationId, MessageId, Seq, UserId},
    model::{Body, Message, MessageKind, Readable},
    ports::CacheKey,
};

/// Entries that a page holds: what clients ask for first (50), the surplus one that tells "more", and a few that arrive meanwhile.
const ENTRIES_MAX: usize = 64;
/// Bytes of bodies that a page holds; the oldest entries give way, the newest one is always there.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Nothing is wrong with an old page; this is how long the page of a silent conversation takes room.
pub(super) const TTL: Duration = Duration::from_secs(300);

/// Entries without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewestPage {
    entries: Vec<Message>,
}

/// An entry as it is kept. The conversation stands in the key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept(i64, MessageId, UserId, ClientMsgId, MessageKind, ByteString, Option<Seq>, crate::time::Timestamp);

impl Kept {
    pub fn of(message: &Message) -> Self {
        let Message { conversation: _, seq, id, sender, client_msg_id, body, reply_to, created_at } = message.clone();
        Kept(seq.0, id, sender, client_msg_id, body.kind, body.content, reply_to, created_at)
    }

    pub fn message(self, conversation: ConversationId) -> Message {
        let Kept(seq, id, sender, client_msg_id, kind, content, reply_to, created_at) = self;
        Message { conversation, seq: Seq(seq), id, sender, client_msg_id, body: Body { kind, content }, reply_to, created_at }
    }
}

impl NewestPage {
    /// `None` where entries are missing.
    fn of(mut entries: Vec<Message>) -> Option<Self> {
        let whole = entries.windows(2).all(|pair| pair[0].seq.next() == pair[1].seq);
        if entries.is_empty() || !whole {
            return None;
        }
        let mut bytes = 0;
        let room = |message: &&Message| {
            bytes += message.body.content.len();
            bytes <= BODY_BYTES_MAX
        };
        let fit = entries.iter().rev().take(ENTRIES_MAX).take_while(room).count().max(1);
        drop(entries.drain(..entries.len() - fit));
        Some(NewestPage { entries })
    }

    fn first(&self) -> Seq {
        self.entries.first().map_or(Seq::ZERO, |entry| entry.seq)
    }

    pub fn last(&self) -> Seq {
        self.entries.last().map_or(Seq::ZERO, |entry| entry.seq)
    }

    /// What the reader is to be answered, if it stands on this page to the end.
    fn answer(&self, readable: &Readable, after: Option<Seq>, before: Option<Seq>, limit: usize) -> Option<Vec<Message>> {
        // Nothing is visible below.
        let begins = readable.intervals.first().map_or(Seq::ZERO, |member| member.join_seq);
        let visible = |entry: &&Message| {
            before.is_none_or(|before| entry.seq < before) && after.is_none_or(|after| entry.seq > after) && readable.sees(entry.seq)
        };
        if let Some(after) = after {
            let reaches = self.first() <= begins.max(Seq(after.0.saturating_add(1)));
            return reaches.then(|| self.entries.iter().filter(visible).take(limit).cloned().collect());
        }
        let mut found: Vec<Message> = self.entries.iter().rev().filter(visible).take(limit).cloned().collect();
        found.reverse();
        (found.len() == limit || self.first() <= begins).then_some(found)
    }

    /// The last entry and the number of others' entries that count from `first_unread` on, if they stand here.
    pub fn of_list(&self, last: Seq, first_unread: Seq, reader: UserId) -> Option<(Message, i64)> {
        let message = self.entries.iter().find(|entry| entry.seq == last)?;
        if first_unread < self.first() {
            return None;
        }
        let unread = self.entries.iter().filter(|entry| entry.seq >= first_unread && entry.seq <= last && entry.sender != reader && entry.counts());
        Some((message.clone(), i64::try_from(unread.count()).ok()?))
    }
}

/// [`Messages::history`](crate::ports::Messages::history), from the newest page where it reaches.
pub(super) async fn history(
    cached: &CachedStore,
    reader: UserId,
    id: ConversationId,
    after: Option<Seq>,
    before: Option<Seq>,
    limit: usize,
) -> Result<Vec<Message>> {
    let page = if after.is_some() || limit <= ENTRIES_MAX { kept(cached, &[id]).await.pop().flatten() } else { None };
    let newest = after.is_none() && before.is_none() && limit <= ENTRIES_MAX;
    // A page only moves up: what is not on the last one that is known is not on the newest.
    let reaches = page.as_ref().is_some_and(|page| match (after, before) {
        (Some(after), _) => after.0.saturating_add(1) >= page.first().0,
        (None, Some(before)) => before > page.first(),
        (None, None) => true,
    });
    if newest || reaches {
        let readable = cached.store.readable(reader, &[id]).await?.pop().flatten().ok_or(Code::ConversationNotFound)?;
        if let Some(page) = current(cached, id, page, readable.head_seq).await?
            && let Some(found) = page.answer(&readable, after, before, limit)
        {
            return Ok(found);
        }
    }
    cached.store.history(reader, id, after, before, limit).await
}

/// The pages that are kept, whether they are still the newest or not.
pub(super) async fn kept(cached: &CachedStore, ids: &[ConversationId]) -> Vec<Option<NewestPage>> {
    let keys: Vec<CacheKey> = ids.iter().map(|id| CacheKey::Message(*id)).collect();
    let found: Vec<Option<Vec<Kept>>> = cached.updater.get(&keys).await;
    let pages = found.into_iter().zip(ids).map(|(entries, id)| NewestPage::of(entries?.into_iter().map(|entry| entry.message(*id)).collect()));
    pages.collect()
}

/// The page that ends at this head, which the store has just told: the one that is kept, or one that is read now and kept.
async fn current(cached: &CachedStore, id: ConversationId, page: Option<NewestPage>, head: Seq) -> Result<Option<NewestPage>> {
    let begins = Seq((head.0 - ENTRIES_MAX as i64).max(0));
    let entries = match page {
        Some(page) if page.last() == head => return Ok(Some(page)),
        // Somebody else has seen a newer head: what this call answers is older than the page.
        Some(page) if page.last() > head => return Ok(None),
        Some(page) if page.last() > begins => {
            let mut entries = page.entries;
            entries.extend(cached.store.log(id, entries.last().map_or(begins, |last| last.seq), head, ENTRIES_MAX).await?);
            entries
        }
        _ => cached.store.log(id, begins, head, ENTRIES_MAX).await?,
    };
    let Some(page) = NewestPage::of(entries).filter(|page| page.last() == head) else { return Ok(None) };
    let entries: Vec<Kept> = page.entries.iter().map(Kept::of).collect();
    if let Some(bytes) = encode(&entries) {
        cached.updater.cache.set(&[(CacheKey::Message(id), head.0, bytes)], TTL).await;
    }
    Ok(Some(page))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Member, Role},
        time::Timestamp,
    };

    fn id() -> ConversationId {
        ConversationId::from_bytes([1; 16])
    }

    fn user(n: u8) -> UserId {
        UserId::from_bytes([n; 16])
    }

    fn entry(seq: i64, bytes: usize) -> Message {
        Message {
            conversation: id(),
            seq: Seq(seq),
            id: MessageId::from_bytes([9; 16]),
            sender: user((seq % 2) as u8),
            client_msg_id: ClientMsgId::from_bytes([8; 16]),
            body: Body { kind: if seq == 1 { MessageKind::Event } else { MessageKind::Text }, content: "x".repeat(bytes).into() },
            reply_to: (seq > 5).then_some(Seq(seq - 1)),
            created_at: Timestamp(seq),
        }
    }

    fn readable(head: i64, intervals: &[(i64, Option<i64>)]) -> Readable {
        let member = |(join, leave): &(i64, Option<i64>)| Member {
            conversation: id(),
            user: user(0),
            role: Role::Member,
            join_seq: Seq(*join),
            leave_seq: leave.map(Seq),
            read_seq: Seq::ZERO,
            delivered_seq: Seq::ZERO,
            muted: false,
            silenced_until: None,
            hidden_seq: Seq::ZERO,
        };
        Readable { head_seq: Seq(head), intervals: intervals.iter().map(member).collect() }
    }

    fn seqs(found: Option<Vec<Message>>) -> Option<Vec<i64>> {
        found.map(|found| found.iter().map(|message| message.seq.0).collect())
    }

    #[test]
    fn a_page_keeps_the_newest_that_fit_and_nothing_with_a_hole() {
        let page = NewestPage::of((1..=100).map(|seq| entry(seq, 1)).collect()).unwrap();
        assert_eq!((page.first(), page.last()), (Seq(37), Seq(100)));
        let page = NewestPage::of((1..=100).map(|seq| entry(seq, 16 * 1024)).collect()).unwrap();
        assert_eq!((page.first(), page.last()), (Seq(97), Seq(100)));
        let page = NewestPage::of(vec![entry(1, 1), entry(2, BODY_BYTES_MAX + 1)]).unwrap();
        assert_eq!((page.first(), page.last()), (Seq(2), Seq(2)));
        assert_eq!(NewestPage::of(vec![]), None);
        assert_eq!(NewestPage::of(vec![entry(1, 1), entry(3, 1)]), None);
    }

    #[test]
    fn a_page_answers_only_what_it_reaches() {
        let page = NewestPage { entries: (11..=20).map(|seq| entry(seq, 1)).collect() };
        let all = readable(20, &[(1, None)]);
        let answer =
            |readable: &Readable, after: Option<i64>, before: Option<i64>, limit| seqs(page.answer(readable, after.map(Seq), before.map(Seq), limit));
        assert_eq!(answer(&all, None, None, 3), Some(vec![18, 19, 20]));
        assert_eq!(answer(&all, None, None, 11), None, "there may be more below");
        assert_eq!(answer(&all, None, Some(14), 3), Some(vec![11, 12, 13]));
        assert_eq!(answer(&all, None, Some(13), 3), None);
        assert_eq!(answer(&all, Some(10), None, 2), Some(vec![11, 12]));
        assert_eq!(answer(&all, Some(9), None, 2), None);
        assert_eq!(answer(&all, Some(20), None, 2), Some(vec![]));
        assert_eq!(answer(&all, Some(i64::MAX), None, 2), Some(vec![]));
        let late = readable(20, &[(12, Some(14)), (17, None)]);
        assert_eq!(answer(&late, None, None, 50), Some(vec![12, 13, 14, 17, 18, 19, 20]), "it began here");
        assert_eq!(answer(&late, Some(0), None, 4), Some(vec![12, 13, 14, 17]));
        let gone = readable(20, &[(2, Some(12))]);
        assert_eq!(answer(&gone, None, None, 2), Some(vec![11, 12]));
        assert_eq!(answer(&gone, None, None, 3), None);
        assert_eq!(answer(&readable(18, &[(1, None)]), None, None, 2), Some(vec![17, 18]), "nothing above the head that was read");
    }

    #[test]
    fn unread_is_counted_where_it_reaches() {
        let page = NewestPage { entries: (1..=10).map(|seq| entry(seq, 1)).collect() };
        let counted = |last, first, reader| page.of_list(Seq(last), Seq(first), user(reader)).map(|(message, unread)| (message.seq.0, unread));
        assert_eq!(counted(10, 1, 1), Some((10, 5)));
        assert_eq!(counted(10, 1, 0), Some((10, 4)), "the first one is an event");
        assert_eq!(counted(10, 11, 0), Some((10, 0)));
        assert_eq!(counted(11, 5, 0), None);
        assert_eq!(NewestPage { entries: vec![entry(5, 1)] }.of_list(Seq(5), Seq(4), user(0)), None);
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        for seq in [1, 2, 7] {
            let bytes = encode(&vec![Kept::of(&entry(seq, 3))]).unwrap();
            let back: Vec<Kept> = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(back.into_iter().map(|kept| kept.message(id())).collect::<Vec<_>>(), [entry(seq, 3)]);
        }
    }
}
