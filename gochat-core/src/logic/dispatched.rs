//! How far each log has been dispatched (decision 5): what lies behind this mark, nobody needs to tell again.
//!
//! Invariant: a mark rises only over entries that were all dispatched and whose tasks are safe. Messages and management
//! events are dispatched side by side, so an entry may be done before its predecessor: it waits until the gap is closed, and
//! what a crash interrupts stays behind the mark for the sweeper.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    ids::{ConversationId, Seq},
    ports::Receipt,
};

/// Entries that are done while one before them is not; beyond it they are left to the sweeper.
const AHEAD_MAX: usize = 1000;
/// How long a gap is waited for.
const AHEAD_FOR: Duration = Duration::from_secs(60);

/// One entry that was dispatched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) conversation: ConversationId,
    pub(super) seq: Seq,
    /// The mark as the transaction saw it that stored the entry.
    pub(super) known: Seq,
}

/// Marks on their way to the store.
#[derive(Debug, Default)]
pub(super) struct Dispatched {
    progress: Mutex<HashMap<ConversationId, Progress>>,
}

#[derive(Debug)]
struct Progress {
    /// Everything up to here is done.
    mark: Seq,
    /// The store knows this much.
    written: Seq,
    ahead: Vec<Seq>,
    noted: Instant,
}

impl Dispatched {
    /// Counts entries as dispatched, once the receipt of their tasks resolves.
    pub(super) fn note_when_safe(self: &Arc<Self>, mut receipt: Receipt, done: Vec<Done>) {
        if receipt.is_kept() {
            return self.note(&done);
        }
        let marks = self.clone();
        tokio::spawn(async move {
            // Otherwise the process ends: the sweeper of the next one finds them.
            if receipt.safe().await.is_ok() {
                marks.note(&done);
            }
        });
    }

    fn note(&self, done: &[Done]) {
        let now = Instant::now();
        let mut progress = self.lock();
        for Done { conversation, seq, known } in done {
            let entry = progress.entry(*conversation).or_insert(Progress { mark: *known, written: *known, ahead: Vec::new(), noted: now });
            entry.noted = now;
            entry.rise(*known, *seq);
        }
    }

    /// Marks of these conversations that the store does not know yet.
    pub(super) fn take(&self, conversations: impl Iterator<Item = ConversationId>) -> Vec<(ConversationId, Seq)> {
        let mut progress = self.lock();
        conversations.filter_map(|id| Some((id, progress.get_mut(&id)?.unwritten()?))).collect()
    }

    /// Marks that have waited for `lag` without riding on an append. Forgets what is settled.
    pub(super) fn take_older(&self, lag: Duration) -> Vec<(ConversationId, Seq)> {
        let now = Instant::now();
        let mut marks = Vec::new();
        self.lock().retain(|id, progress| {
            let age = now.duration_since(progress.noted);
            if age >= lag {
                marks.extend(progress.unwritten().map(|mark| (*id, mark)));
            }
            age < lag || (!progress.ahead.is_empty() && age < AHEAD_FOR)
        });
        marks
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConversationId, Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn rise(&mut self, known: Seq, seq: Seq) {
        self.mark = self.mark.max(known);
        if seq <= self.mark.next() {
            self.mark = self.mark.max(seq);
        } else if self.ahead.len() < AHEAD_MAX {
            self.ahead.push(seq);
        }
        if self.ahead.is_empty() {
            return;
        }
        self.ahead.sort_unstable();
        let mark = &mut self.mark;
        self.ahead.retain(|seq| {
            let follows = *seq <= mark.next();
            if follows {
                *mark = (*mark).max(*seq);
            }
            !follows
        });
    }

    fn unwritten(&mut self) -> Option<Seq> {
        (self.mark > self.written).then(|| {
            self.written = self.mark;
            self.mark
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: ConversationId = ConversationId::from_bytes([7; 16]);

    fn done(known: i64, seqs: &[i64]) -> Vec<Done> {
        seqs.iter().map(|seq| Done { conversation: LOG, seq: Seq(*seq), known: Seq(known) }).collect()
    }

    fn taken(marks: &Dispatched) -> Option<i64> {
        marks.take([LOG].into_iter()).pop().map(|(_, seq)| seq.0)
    }

    #[test]
    fn a_mark_rises_over_what_is_done_and_is_written_once() {
        let marks = Dispatched::default();
        marks.note(&done(4, &[5, 6]));
        assert_eq!(taken(&marks), Some(6));
        assert_eq!(taken(&marks), None);
    }

    #[test]
    fn an_entry_waits_for_the_one_before_it() {
        let marks = Dispatched::default();
        marks.note(&done(4, &[7, 6]));
        assert_eq!(taken(&marks), None);
        marks.note(&done(4, &[5]));
        assert_eq!(taken(&marks), Some(7));
    }

    #[test]
    fn what_the_store_knows_closes_a_gap_too() {
        let marks = Dispatched::default();
        marks.note(&done(4, &[8]));
        marks.note(&done(7, &[9]));
        assert_eq!(taken(&marks), Some(9));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_rises_before_the_tasks_are_safe() {
        let marks = Arc::new(Dispatched::default());
        let (pledge, receipt) = Receipt::pledged();
        marks.note_when_safe(receipt, done(0, &[1]));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(taken(&marks), None);
        pledge.fulfil();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(taken(&marks), Some(1));
        let (pledge, receipt) = Receipt::pledged();
        marks.note_when_safe(receipt, done(0, &[2]));
        drop(pledge);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(taken(&marks), None);
    }
}
