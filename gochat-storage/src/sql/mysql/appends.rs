//! Batches that wait are stored together: a transaction costs its seven statements and its flush to disk whatever it holds, and
//! each partition of the bus brings a batch of its own.
//!
//! ```text
//! append(batch) ─► waiting ─► one of a few runs: what waits now, up to a limit ─► one transaction ─► each batch its outcomes
//! ```
//!
//! Nothing waits for a timer: a group is what came while the last ones were stored. A group that fails is stored batch by batch,
//! so that one batch's fault is its own.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gochat_core::{
    error::{Code, Error, Result},
    limits::APPEND_DRAFTS_MAX,
    ports::{AppendBatch, Appended},
};
use tokio::sync::oneshot;

use super::Database;

/// Transactions at a time: while one waits for the disk the other one works.
const RUNS_MAX: usize = 2;
/// Drafts that are worth a second transaction; fewer wait for the first one to end, and share the next.
const SECOND_RUN_DRAFTS: usize = 200;
/// Batches that may wait; more are refused with `OVERLOADED`.
const WAITING_MAX: usize = 4096;

/// Appends that wait.
#[derive(Default)]
pub struct Appends(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    drafts: usize,
    runs: usize,
}

struct Waiting {
    batch: AppendBatch,
    answer: oneshot::Sender<Result<Vec<Result<Appended>>>>,
}

impl Appends {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a batch wait; `true` if somebody has to begin a run.
    fn push(&self, waiting: Waiting) -> Result<bool> {
        let mut state = self.lock();
        if state.waiting.len() >= WAITING_MAX {
            return Err(Error::new(Code::Overloaded, "too many batches wait for the database").retry_after(Duration::from_millis(200)));
        }
        state.drafts += waiting.batch.drafts.len();
        state.waiting.push_back(waiting);
        let begin = state.runs == 0 || (state.runs < RUNS_MAX && state.drafts >= SECOND_RUN_DRAFTS);
        state.runs += usize::from(begin);
        Ok(begin)
    }

    /// What is stored next; with nothing left the run is over.
    fn next_group(&self) -> Vec<Waiting> {
        let mut state = self.lock();
        let (mut group, mut drafts) = (Vec::new(), 0);
        while let Some(next) = state.waiting.front() {
            drafts += next.batch.drafts.len();
            if !group.is_empty() && drafts > APPEND_DRAFTS_MAX {
                break;
            }
            group.extend(state.waiting.pop_front());
        }
        state.drafts -= group.iter().map(|waiting| waiting.batch.drafts.len()).sum::<usize>();
        state.runs -= usize::from(group.is_empty());
        group
    }
}

impl Database {
    pub(super) async fn append_with_others(&self, batch: AppendBatch) -> Result<Vec<Result<Appended>>> {
        let (answer, answered) = oneshot::channel();
        if self.shared.appends.push(Waiting { batch, answer })? {
            let database = self.clone();
            self.shared.runtime.spawn(async move {
                loop {
                    let group = database.shared.appends.next_group();
                    if group.is_empty() {
                        return;
                    }
                    database.store_group(group).await;
                }
            });
        }
        answered.await.unwrap_or_else(|_| Err(Error::new(Code::Unavailable, "the store is closed")))
    }

    async fn store_group(&self, group: Vec<Waiting>) {
        if group.len() > 1 {
            let mut together = AppendBatch::default();
            for Waiting { batch, .. } in &group {
                together.drafts.extend(batch.drafts.iter().cloned());
                together.dispatched.extend(batch.dispatched.iter().copied());
            }
            if let Ok(outcomes) = self.append_alone(together).await {
                let mut outcomes = outcomes.into_iter();
                for Waiting { batch, answer } in group {
                    // Whoever went away does not need to know.
                    let _ = answer.send(Ok(outcomes.by_ref().take(batch.drafts.len()).collect()));
                }
                return;
            }
        }
        for Waiting { batch, answer } in group {
            let outcome = self.append_alone(batch).await;
            let _ = answer.send(outcome);
        }
    }
}
