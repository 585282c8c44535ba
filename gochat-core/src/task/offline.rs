//! Offline members (flow 4): the message is stored already; what is left is to push, if it is still wanted.
//!
//! ```text
//! Task::Offline -> one job per signed-in device (unique) -> claim by lease -> still unread? still offline?
//!               -> PushProvider -> push log
//! ```
//!
//! Invariant: a job is made once per (user, device, message) however often its task is repeated (I11).

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;

use super::TaskRole;
use crate::{
    error::Result,
    ids::{ConversationId, DeviceId, MessageId, PushJobId, Seq, UserId},
    model::{Member, Message, NewPushJob, Notice, PushJob, PushOutcome},
    ports::Task,
    time::Timestamp,
};

/// Jobs that are worked on at once.
const PUSH_BATCH: usize = 100;
/// How long a claimed job belongs to its claimer.
const PUSH_LEASE: Duration = Duration::from_secs(60);
/// Pause between looks at jobs that became due.
const PUSH_TICK: Duration = Duration::from_secs(1);
/// Tries before a failing push is given up.
const PUSH_TRIES: i32 = 5;
/// Offline users looked up at once.
const OFFLINE_PAGE: usize = 500;
/// Jobs in one write: other writes wait for a few milliseconds at most.
const JOBS_PAGE: usize = 1000;

/// What a push says. The message itself is withheld unless `include_text` says otherwise.
#[derive(Clone, Debug)]
pub struct PushSettings {
    /// Title of every push.
    pub title: String,
    /// Text of every push.
    pub text: String,
    /// Put the sender's name into the title and the text of text messages into the push.
    pub include_text: bool,
}

impl Default for PushSettings {
    fn default() -> Self {
        PushSettings { title: "GoChat".into(), text: "New message".into(), include_text: false }
    }
}

#[derive(Debug)]
pub(super) struct Offline {
    settings: PushSettings,
    new_jobs: Notify,
}

impl Offline {
    pub(super) fn new(settings: PushSettings) -> Self {
        Offline { settings, new_jobs: Notify::new() }
    }
}

/// A message of a conversation and who was not connected when it was told.
#[derive(Debug)]
struct Missed<'a> {
    seq: Seq,
    message: MessageId,
    sender: UserId,
    users: &'a [UserId],
}

impl TaskRole {
    /// Records push jobs for who was not connected and wants to be told. Members and devices are looked up once for all
    /// messages of a conversation, jobs written many at a time.
    pub(super) async fn record_offline(&self, tasks: impl Iterator<Item = &Task>) -> Result<()> {
        let mut conversations: HashMap<ConversationId, Vec<Missed<'_>>> = HashMap::new();
        for task in tasks {
            if let Task::Offline { conversation, seq, message, sender, users } = task {
                conversations.entry(*conversation).or_default().push(Missed { seq: *seq, message: *message, sender: *sender, users });
            }
        }
        for (conversation, missed) in conversations {
            let mut users: Vec<UserId> = missed.iter().flat_map(|missed| missed.users).copied().collect();
            users.sort_unstable();
            users.dedup();
            for page in users.chunks(OFFLINE_PAGE) {
                let jobs = self.jobs_for(conversation, &missed, page).await?;
                for jobs in jobs.chunks(JOBS_PAGE) {
                    if self.ports.store.add_push_jobs(jobs).await? > 0 {
                        self.offline.new_jobs.notify_one();
                    }
                }
            }
        }
        Ok(())
    }

    async fn jobs_for(&self, conversation: ConversationId, missed: &[Missed<'_>], page: &[UserId]) -> Result<Vec<NewPushJob>> {
        let at = self.ports.clock.now();
        let (intervals, devices) = tokio::try_join!(self.ports.store.memberships(conversation, page), self.ports.store.devices_of(page))?;
        let members: HashMap<UserId, (Vec<Member>, Vec<DeviceId>)> = page
            .iter()
            .zip(intervals.into_iter().zip(devices))
            .map(|(user, (intervals, devices))| {
                let signed_in = devices.into_iter().filter(|device| device.signed_in).map(|device| device.id).collect();
                (*user, (intervals, signed_in))
            })
            .collect();
        let mut jobs = Vec::new();
        for Missed { seq, message, sender, users } in missed {
            for user in *users {
                let Some((intervals, devices)) = members.get(user) else { continue };
                if unwanted(intervals, *seq).is_some() {
                    continue;
                }
                jobs.extend(devices.iter().map(|device| NewPushJob {
                    id: PushJobId::from(self.ports.ids.uuid()),
                    user: *user,
                    device: *device,
                    conversation,
                    seq: *seq,
                    message: *message,
                    sender: *sender,
                    at,
                }));
            }
        }
        Ok(jobs)
    }

    pub(super) async fn push_loop(self: Arc<Self>) {
        loop {
            match self.push_once().await {
                Ok(PUSH_BATCH) => continue,
                Ok(_) => {}
                Err(error) => tracing::warn!(?error, "push jobs could not be worked on; they stay"),
            }
            let _ = tokio::time::timeout(PUSH_TICK, self.offline.new_jobs.notified()).await;
        }
    }

    /// Works on the jobs that are due, up to a batch; answers with their number.
    pub async fn push_once(&self) -> Result<usize> {
        let now = self.ports.clock.now();
        let jobs = self.ports.store.claim_push_jobs(now, PUSH_LEASE, PUSH_BATCH).await?;
        if jobs.is_empty() {
            return Ok(0);
        }
        let checked = self.check(&jobs).await?;
        let mut results: Vec<(PushJobId, PushOutcome, Option<Timestamp>)> = Vec::with_capacity(jobs.len());
        let mut wanted = Vec::new();
        for (job, verdict) in jobs.iter().zip(checked) {
            match verdict {
                Some(outcome) => results.push((job.job.id, outcome, None)),
                None => wanted.push(job),
            }
        }
        let notices = self.notices(&wanted).await?;
        let outcomes = if notices.is_empty() { Ok(Vec::new()) } else { self.ports.push.push(&notices).await };
        let outcomes = outcomes.unwrap_or_else(|error| {
            tracing::warn!(?error, notices = notices.len(), "the push provider failed");
            Vec::new()
        });
        for (index, job) in wanted.iter().enumerate() {
            let outcome = outcomes.get(index).copied().unwrap_or(PushOutcome::Failed);
            let again = (outcome == PushOutcome::Failed && job.attempts < PUSH_TRIES).then(|| now.plus(backoff(job.attempts)));
            results.push((job.job.id, outcome, again));
        }
        self.ports.store.finish_push_jobs(&results, self.ports.clock.now()).await?;
        Ok(jobs.len())
    }

    /// Why each job is not to be sent any more, if so: read, connected again, muted, left, signed out.
    async fn check(&self, jobs: &[PushJob]) -> Result<Vec<Option<PushOutcome>>> {
        let keys: Vec<(UserId, DeviceId)> = jobs.iter().map(|job| (job.job.user, job.job.device)).collect();
        let devices = self.ports.store.devices(&keys).await?;
        let mut by_conversation: HashMap<ConversationId, Vec<UserId>> = HashMap::new();
        for job in jobs {
            by_conversation.entry(job.job.conversation).or_default().push(job.job.user);
        }
        let mut intervals: HashMap<(ConversationId, UserId), Vec<Member>> = HashMap::new();
        for (conversation, users) in by_conversation {
            let found = self.ports.store.memberships(conversation, &users).await?;
            intervals.extend(users.into_iter().map(|user| (conversation, user)).zip(found));
        }
        let users: Vec<UserId> = keys.iter().map(|(user, _)| *user).collect();
        // Presence that is unknown is not presence: the push is sent rather than lost.
        let routes = self.ports.routes.locate(&users).await.unwrap_or_default();
        Ok(jobs
            .iter()
            .zip(devices)
            .map(|(PushJob { job, .. }, device)| {
                if !device.is_some_and(|device| device.signed_in) {
                    return Some(PushOutcome::Unwanted);
                }
                if routes.iter().any(|route| (route.user, route.device) == (job.user, job.device)) {
                    return Some(PushOutcome::Online);
                }
                unwanted(intervals.get(&(job.conversation, job.user)).map_or(&[], Vec::as_slice), job.seq)
            })
            .collect())
    }

    /// One lookup of all senders and one of each message, however many devices are to be told of it.
    async fn notices(&self, jobs: &[&PushJob]) -> Result<Vec<Notice>> {
        let settings = &self.offline.settings;
        let (mut titles, mut texts) = (HashMap::new(), HashMap::new());
        if settings.include_text {
            let mut senders: Vec<UserId> = jobs.iter().map(|job| job.job.sender).collect();
            senders.sort_unstable();
            senders.dedup();
            titles.extend(self.ports.store.users(&senders).await?.into_iter().flatten().map(|sender| (sender.id, sender.display_name)));
            for PushJob { job, .. } in jobs {
                if let Entry::Vacant(text) = texts.entry((job.conversation, job.seq)) {
                    let entry = self.ports.store.log(job.conversation, Seq(job.seq.0 - 1), job.seq, 1).await?.pop();
                    text.insert(entry.as_ref().and_then(preview));
                }
            }
        }
        let notices = jobs.iter().map(|PushJob { job, .. }| Notice {
            id: job.id,
            user_id: job.user,
            device_id: job.device,
            conversation_id: job.conversation,
            seq: job.seq,
            title: titles.get(&job.sender).unwrap_or(&settings.title).clone(),
            text: texts.get(&(job.conversation, job.seq)).and_then(Option::as_ref).unwrap_or(&settings.text).clone(),
        });
        Ok(notices.collect())
    }
}

/// Why a member does not want to be told of an entry, judged by the current interval.
fn unwanted(intervals: &[Member], seq: Seq) -> Option<PushOutcome> {
    match intervals.iter().find(|interval| interval.is_current() && interval.sees(seq)) {
        None => Some(PushOutcome::Unwanted),
        Some(member) if member.read_seq >= seq => Some(PushOutcome::Read),
        Some(member) if member.muted => Some(PushOutcome::Unwanted),
        Some(_) => None,
    }
}

/// The first 100 characters of a text message.
fn preview(message: &Message) -> Option<String> {
    (message.body.kind == crate::model::MessageKind::Text).then(|| message.body.content.chars().take(100).collect())
}

/// 2, 8, 32, 128 s.
fn backoff(attempts: i32) -> Duration {
    Duration::from_secs(2 << (2 * (attempts - 1).clamp(0, 6)))
}
