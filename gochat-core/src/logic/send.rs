//! Sending: turns what clients sent into stored messages, acks and deliveries.
//!
//! ```text
//! im-upstream-topic -> hooks -> Store::append -> acks, dispatch -> commit
//!                                     groups of 100 and more -> im-task-topic
//! ```
//!
//! Owns the order of these steps and what happens when one fails. Does not own sequence numbers (`ports::store`) or
//! receivers (`dispatch`). Invariant: the batch is committed last, so every step before it may run twice.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, sleep},
};

use super::{
    Logic,
    dispatched::{Dispatched, Done},
};
use crate::{
    auth::PayloadKey,
    dispatch::Entry,
    error::{Code, Error, Result},
    ids::{GatewayId, Seq},
    limits::APPEND_DRAFTS_MAX,
    model::{Draft, Message},
    ports::{Ack, AppendBatch, Appended, Batch, Decision, Origin, Record, Refusal, Stored, Subscription, Topic},
    rules,
};

/// Tries of a store that does not say whether it stored; then senders are told to ask again.
const APPEND_TRIES: u32 = 5;
/// How often heads of changed conversations are told again (decision 31).
const HEADS_EVERY: Duration = Duration::from_secs(15);
/// How long a dispatched mark waits to ride on the conversation's next append.
const DISPATCHED_LAG: Duration = Duration::from_secs(1);

/// What sending keeps between batches.
#[derive(Debug)]
pub(crate) struct Sender {
    key: PayloadKey,
    pub(super) dispatched: Arc<Dispatched>,
}

impl Sender {
    pub(crate) fn new(key: PayloadKey) -> Self {
        Sender { key, dispatched: Arc::default() }
    }
}

impl Logic {
    /// Consumes the upstream topic until the bus is closed. Batches of different partitions are worked on side by
    /// side; one partition's batches follow each other, so the order of a conversation is the order of its topic.
    pub async fn run(self: Arc<Self>) -> Result<()> {
        let upstream = self.ports.bus.subscribe(&Topic::Upstream, "im-logic").await?;
        let (mut upkeep, mut batches) = (JoinSet::new(), JoinSet::new());
        upkeep.spawn(self.clone().upkeep());
        upkeep.spawn(self.clone().sweep());
        while let Ok(batch) = upstream.next(APPEND_DRAFTS_MAX).await {
            batches.spawn(self.clone().process(upstream.clone(), batch));
            while batches.try_join_next().is_some() {}
        }
        batches.join_all().await;
        upkeep.shutdown().await;
        self.flush_dispatched(Duration::ZERO).await
    }

    async fn process(self: Arc<Self>, upstream: Arc<dyn Subscription>, batch: Batch) {
        let position = batch.position;
        match self.send(batch.records).await {
            Ok(stored) => {
                if let Err(error) = upstream.commit(position).await {
                    tracing::debug!(%error, "commit refused: the partition has moved, its new owner repeats the batch");
                }
                for hook in &self.ports.hooks {
                    hook.after_store(&stored).await;
                }
            }
            Err(error) => {
                tracing::warn!(?error, "a batch was stored and could not be dispatched; it is repeated");
                sleep(Duration::from_millis(200)).await;
                let _ = upstream.release(position).await;
            }
        }
    }

    /// Stores what can be stored, answers every sender, tells the members. An error means that the batch must be
    /// repeated: somebody was not told.
    async fn send(&self, records: Vec<Record>) -> Result<Vec<Arc<Message>>> {
        let mut acks: Vec<(GatewayId, Ack)> = Vec::with_capacity(records.len());
        let mut drafts: Vec<Draft> = Vec::with_capacity(records.len());
        let mut origins: Vec<Origin> = Vec::with_capacity(records.len());
        for record in records {
            let Record::Upstream(upstream) = record else { continue };
            let upstream = Arc::unwrap_or_clone(upstream);
            match self.admit(upstream.draft).await {
                Ok(draft) => {
                    drafts.push(draft);
                    origins.push(upstream.origin);
                }
                Err(error) => acks.push(answer(upstream.origin, Err(&error))),
            }
        }
        let mut entries = Vec::with_capacity(drafts.len());
        let mut messages = Vec::with_capacity(drafts.len());
        let mut done = Vec::with_capacity(drafts.len());
        let outcomes = self.append(drafts).await;
        for (origin, outcome) in origins.into_iter().zip(outcomes) {
            match outcome {
                Ok(appended) => {
                    let message = Arc::new(appended.message);
                    let device = origin.device;
                    acks.push(answer(origin, Ok(&message)));
                    messages.push(message.clone());
                    done.push(Done { conversation: message.conversation, seq: message.seq, known: appended.dispatched_seq });
                    entries.push(Entry {
                        message,
                        from: Some(device),
                        member_count: appended.member_count,
                        members_seq: listed(&appended.repeated, appended.members_seq, messages.last()),
                    });
                }
                Err(error) => {
                    if error.code == Code::Internal {
                        tracing::error!(?error, "a message could not be stored");
                    }
                    acks.push(answer(origin, Err(&error)));
                }
            }
        }
        let receipt = self.dispatcher.dispatch(acks, &entries).await?;
        self.sender.dispatched.note_when_safe(receipt, done);
        Ok(messages)
    }

    /// Asks the hooks, checks what they changed, and keys the payload.
    async fn admit(&self, mut draft: Draft) -> Result<Draft> {
        for hook in &self.ports.hooks {
            match hook.before_send(&draft).await {
                Decision::Pass => {}
                Decision::Rewrite(body) => {
                    rules::check_body(&body)?;
                    draft.body = body;
                }
                Decision::Refuse(reason) => return Err(Error::new(Code::RefusedByHook, reason)),
            }
        }
        draft.payload_hash = self.sender.key.hash(&draft.body, draft.reply_to);
        Ok(draft)
    }

    /// One outcome per draft, whatever happens: the whole batch is tried again while the outcome is unknown, and cut
    /// in half when something in it breaks the store, so that one bad draft delays the others but refuses only itself (I19).
    fn append(&self, drafts: Vec<Draft>) -> BoxFuture<'_, Vec<Result<Appended>>> {
        async move {
            if drafts.is_empty() {
                return Vec::new();
            }
            let mut batch = AppendBatch { dispatched: self.sender.dispatched.take(drafts.iter().map(|draft| draft.conversation)), drafts };
            let mut tries = 0;
            let error = loop {
                tries += 1;
                match self.ports.store.append(&batch).await {
                    Ok(outcomes) if outcomes.len() == batch.drafts.len() => return outcomes,
                    Ok(outcomes) => break Error::internal(format!("the store answered {} of {} drafts", outcomes.len(), batch.drafts.len())),
                    Err(error) if matches!(error.code, Code::Unavailable | Code::Overloaded) && tries < APPEND_TRIES => {
                        sleep(Duration::from_millis(20 << tries)).await;
                    }
                    Err(error) if error.code == Code::Unavailable => break Error::from(Code::TimeoutUnknown).with_source(error),
                    Err(error) => break error,
                }
            };
            if error.code == Code::Internal && batch.drafts.len() > 1 {
                let second = batch.drafts.split_off(batch.drafts.len() / 2);
                let mut outcomes = self.append(batch.drafts).await;
                outcomes.extend(self.append(second).await);
                return outcomes;
            }
            batch.drafts.iter().map(|_| Err(error.same())).collect()
        }
        .boxed()
    }

    async fn flush_dispatched(&self, lag: Duration) -> Result<()> {
        let marks = self.sender.dispatched.take_older(lag);
        if marks.is_empty() {
            return Ok(());
        }
        self.ports.store.set_dispatched(&marks).await
    }

    /// What happens beside the messages: dispatched marks are written, heads told again.
    async fn upkeep(self: Arc<Self>) {
        let mut second = tokio::time::interval(DISPATCHED_LAG);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heads_told = Instant::now();
        loop {
            second.tick().await;
            if let Err(error) = self.flush_dispatched(DISPATCHED_LAG).await {
                tracing::warn!(?error, "dispatched marks were not written; the sweeper will dispatch those entries again");
            }
            if heads_told.elapsed() >= HEADS_EVERY {
                heads_told = Instant::now();
                if let Err(error) = self.dispatcher.tell_heads().await {
                    tracing::warn!(?error, "heads were not told");
                }
            }
        }
    }
}

/// The version of the member list to use. What a repeat is told of its conversation is of now, not of then: reading the list
/// at the entry itself is always right.
fn listed(repeated: &bool, members_seq: Seq, message: Option<&Arc<Message>>) -> Seq {
    match message {
        Some(message) if *repeated => message.seq,
        _ => members_seq,
    }
}

fn answer(origin: Origin, outcome: std::result::Result<&Arc<Message>, &Error>) -> (GatewayId, Ack) {
    let outcome = match outcome {
        Ok(message) => Ok(Stored { conversation: message.conversation, seq: message.seq, message: message.id, created_at: message.created_at }),
        Err(error) => Err(Refusal::from(error)),
    };
    (origin.gateway, Ack { connection: origin.connection, request: origin.request, outcome })
}
