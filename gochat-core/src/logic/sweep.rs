//! The sweeper: the conversation log is the outbox. What a crash left between commit and dispatch is dispatched
//! again (decision 5), so neither notice nor push job is lost (I9).

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Logic, dispatched::Done};
use crate::{
    dispatch::Entry,
    error::{Code, Error, Result},
    ids::Seq,
    limits::PAGE_MAX,
    model::Conversation,
};

/// Rows looked at in one step: a step takes a few milliseconds and no lock.
const SCAN_ROWS: usize = 2000;
/// The second sweep follows the first one so soon: what was too young at the start is an earlier run's leftover then.
const SECOND_SWEEP: Duration = Duration::from_secs(7);
/// How often it is asked whether members are still to be told because presence was unknown.
const OWED_EVERY: Duration = Duration::from_secs(5);
/// Entries younger than this are still on their ordinary way.
const SWEEP_AGE: Duration = Duration::from_secs(5);

impl Logic {
    pub(super) async fn sweep(self: Arc<Self>) {
        let mut pause = SECOND_SWEEP;
        loop {
            match self.sweep_once(SWEEP_AGE).await {
                Ok(0) => {}
                Ok(entries) => tracing::info!(entries, "dispatched entries that had been left"),
                Err(error) => tracing::warn!(?error, "sweep broke off; the next one starts again"),
            }
            let until = Instant::now() + pause;
            while Instant::now() < until {
                sleep(OWED_EVERY.min(until.saturating_duration_since(Instant::now()))).await;
                if self.dispatcher.owes() {
                    break;
                }
            }
            pause = self.sweep_every;
        }
    }

    /// Dispatches every entry that is at least `age` old and behind its conversation's head; answers with their number.
    pub async fn sweep_once(&self, age: Duration) -> Result<usize> {
        let now = self.ports.clock.now();
        let mut after = None;
        let mut entries = 0;
        loop {
            let (found, next) = self.ports.store.undispatched(after, SCAN_ROWS).await?;
            for conversation in found.into_iter().filter(|conversation| conversation.active_at.plus(age) <= now) {
                entries += self.sweep_conversation(&conversation).await?;
            }
            match next {
                Some(id) => after = Some(id),
                None => return Ok(entries),
            }
        }
    }

    async fn sweep_conversation(&self, conversation: &Conversation) -> Result<usize> {
        let mut told = conversation.dispatched_seq;
        let mut count = 0;
        while told < conversation.head_seq {
            let log = self.ports.store.log(conversation.id, told, conversation.head_seq, PAGE_MAX).await?;
            let Some(last) = log.last().map(|message| message.seq) else { break };
            let entries: Vec<Entry> = log.into_iter().map(|message| entry(conversation, message)).collect();
            let mut receipt = self.dispatcher.dispatch(Vec::new(), &entries).await?;
            if receipt.is_refused() {
                return Err(Error::new(Code::Unavailable, "presence is unknown"));
            }
            let known = conversation.dispatched_seq;
            let done = entries.iter().map(|entry| Done { conversation: conversation.id, seq: entry.message.seq, known }).collect();
            self.sender.dispatched.note_when_safe(receipt, done);
            count += entries.len();
            told = last;
        }
        Ok(count)
    }
}

/// Members are read at the entry itself, which is right whatever has happened since.
fn entry(conversation: &Conversation, message: crate::model::Message) -> Entry {
    let members_seq: Seq = message.seq;
    Entry { message: Arc::new(message), from: None, member_count: conversation.member_count, members_seq }
}
