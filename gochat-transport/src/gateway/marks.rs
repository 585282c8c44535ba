//! Marks from clients, gathered for a moment: somebody who scrolls raises a mark many times, the store raises it once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use gochat_core::{
    error::{Code, Error, Result},
    ids::{ConversationId, Seq, UserId},
    model::{Caller, Mark},
};

use super::Shared;

/// Users whose marks are raised side by side.
const CALLS_AT_ONCE: usize = 16;

/// The highest marks that were named since the last flush.
#[derive(Default)]
pub(super) struct Marks {
    waiting: Mutex<HashMap<(UserId, ConversationId), (Caller, Seq, Seq)>>,
    max: usize,
}

impl Marks {
    pub(super) fn new(max: usize) -> Self {
        Marks { waiting: Mutex::default(), max }
    }

    /// Notes marks of the caller.
    pub(super) fn add(&self, caller: Caller, conversation: ConversationId, read_seq: Seq, delivered_seq: Seq) -> Result<()> {
        if read_seq.max(delivered_seq) == Seq::ZERO {
            return Err(Error::new(Code::InvalidField, "read_seq or delivered_seq is missing"));
        }
        let mut waiting = self.lock();
        let full = waiting.len() >= self.max;
        match waiting.get_mut(&(caller.user, conversation)) {
            Some((_, read, delivered)) => {
                *read = (*read).max(read_seq);
                *delivered = (*delivered).max(delivered_seq);
            }
            None if full => return Err(Error::from(Code::Overloaded).retry_after(Duration::from_secs(1))),
            None => {
                waiting.insert((caller.user, conversation), (caller, read_seq, delivered_seq));
            }
        }
        Ok(())
    }

    fn take(&self) -> BTreeMap<UserId, (Caller, Vec<Mark>)> {
        let waiting = std::mem::take(&mut *self.lock());
        let mut by_user: BTreeMap<UserId, (Caller, Vec<Mark>)> = BTreeMap::new();
        for ((user, conversation), (caller, read_seq, delivered_seq)) in waiting {
            by_user.entry(user).or_insert_with(|| (caller, Vec::new())).1.push(Mark { conversation, user, read_seq, delivered_seq });
        }
        by_user
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(UserId, ConversationId), (Caller, Seq, Seq)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Raises what has been gathered.
    pub(super) async fn flush_marks(&self) {
        stream::iter(self.marks.take().into_values())
            .for_each_concurrent(CALLS_AT_ONCE, async |(caller, marks)| {
                if let Err(error) = self.ports.api.mark(&caller, &marks).await {
                    tracing::debug!(%error, "marks were not raised; the client's next ones will be");
                }
            })
            .await;
    }

    /// Raises marks every so often.
    pub(super) async fn raise_marks(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.settings.marks_every).await;
            self.flush_marks().await;
        }
    }
}
