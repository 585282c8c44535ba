//! Telling the members: locate, route, publish. The same code for small groups (from the logic role, right
//! behind the commit) and for large ones (from the task role).
//!
//! ```text
//! entries -> FanoutPolicy -> Direct:   members at the seq -> Routes::locate -> route -> one downstream record per gateway
//!                            Deferred: one record on im-task-topic, handled by `fanout` below
//!                            offline members -> im-task-topic
//! ```
//!
//! Invariant: everything here may run twice; receivers know entries by their seq, push jobs by their key.
//!
//! While the routes cannot be read, nobody's presence is known: senders get their acks, members learn by heads and pull, and the
//! entries count as not dispatched, so that the sweeper makes their push jobs once presence is known again (decision 8).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::try_join_all;

use crate::{
    error::{Code, Result},
    fanout::{Fanout, FanoutPolicy},
    ids::{ConversationId, DeviceId, GatewayId, Seq, UserId},
    limits::FANOUT_PAGE,
    model::{Caller, Member, Message},
    ports::{Ack, Bus, Delivery, Downstream, Payload, Receipt, Record, Route, Routes, Signal, Store, Target, Task, Topic},
    route::route,
};

/// Conversations whose heads are remembered to be told again; beyond it they are left to the clients' own syncs.
const CHANGED_MAX: usize = 200_000;
/// Conversations whose heads leave in one round of records.
const HEADS_PAGE: usize = 1000;
/// Users who are located in one call.
const LOCATE_PAGE: usize = 4096;

/// A stored entry whose members are to be told.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The entry.
    pub message: Arc<Message>,
    /// The device that sent it and gets an ack instead.
    pub from: Option<DeviceId>,
    /// Members of the conversation at the entry.
    pub member_count: i32,
    /// Version of the member list at the entry.
    pub members_seq: Seq,
}

/// Tells members, senders and sessions.
#[derive(Debug)]
pub struct Dispatcher {
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    routes: Arc<dyn Routes>,
    policy: Arc<dyn FanoutPolicy>,
    members: MemberLists,
    changed: Mutex<HashMap<ConversationId, (Seq, Seq)>>,
    owes: AtomicBool,
}

impl Dispatcher {
    /// A dispatcher on these ports.
    pub fn new(store: Arc<dyn Store>, bus: Arc<dyn Bus>, routes: Arc<dyn Routes>, policy: Arc<dyn FanoutPolicy>) -> Self {
        Dispatcher { store, bus, routes, policy, members: MemberLists::default(), changed: Mutex::default(), owes: AtomicBool::new(false) }
    }

    /// Answers senders and tells the members of `entries` (in the order of their conversations' logs). Ends when
    /// the bus has every record: whoever consumed the cause may commit it then. The receipt resolves when no crash can
    /// lose what the task role has to do: then the entries count as dispatched. It fails if presence is unknown, or the members
    /// could not be read, and [`owes`](Self::owes) says so: then the senders have their acks and the members are still to be told.
    pub async fn dispatch(&self, acks: Vec<(GatewayId, Ack)>, entries: &[Entry]) -> Result<Receipt> {
        let mut outgoing = Outgoing::default();
        for (gateway, ack) in acks {
            outgoing.to(gateway).acks.push(ack);
        }
        let (direct, deferred): (Vec<Run>, Vec<Run>) =
            runs(entries).into_iter().partition(|run| self.policy.fanout(u32::try_from(run[0].member_count).unwrap_or(0)) == Fanout::Direct);
        for run in deferred {
            let task = Task::Fanout {
                messages: run.iter().map(|entry| entry.message.clone()).collect(),
                members_seq: run[0].members_seq,
                from: run.iter().map(|entry| entry.from).collect(),
            };
            outgoing.tasks.push(Arc::new(task));
        }
        let known = match self.route_direct(&direct, &mut outgoing).await {
            Ok(()) => true,
            Err(error) if error.code == Code::Unavailable => {
                tracing::debug!(?error, "presence or members are unknown: they learn by heads, and are swept");
                false
            }
            Err(error) => return Err(error),
        };
        self.note_heads(entries);
        let receipt = self.publish(outgoing).await?;
        if known {
            return Ok(receipt);
        }
        self.owes.store(true, Ordering::Release);
        Ok(Receipt::refused())
    }

    /// Whether there are entries since the last call whose members could not be told. Asking settles it: whoever asks sweeps.
    pub fn owes(&self) -> bool {
        self.owes.swap(false, Ordering::AcqRel)
    }

    /// Tells once more where the logs stand that changed since the last call (decision 7): whoever missed the push of
    /// a last entry learns it within a heartbeat.
    pub async fn tell_heads(&self) -> Result<()> {
        let changed: Vec<_> = std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect();
        for page in changed.chunks(HEADS_PAGE) {
            let mut told = Vec::with_capacity(page.len());
            for (conversation, (version, head)) in page {
                let members = self.members.get(&*self.store, *conversation, *version).await?;
                told.push((members, Payload::Heads(vec![(*conversation, *head)])));
            }
            self.tell(&told).await?;
        }
        Ok(())
    }

    /// Tells the members of large groups: the task role's part of [`dispatch`](Self::dispatch). Answers with what is to be
    /// done for the members who are offline, instead of putting it on the topic that its caller consumes.
    pub async fn fanout(&self, entries: &[Entry]) -> Result<Vec<Arc<Task>>> {
        let mut outgoing = Outgoing::default();
        for run in runs(entries) {
            let members = self.members_of(&run).await?;
            for page in members.chunks(FANOUT_PAGE) {
                let located = self.locate(page.iter().copied()).await?;
                route_run(&run, page, &located, &mut outgoing);
                outgoing.end_record();
            }
        }
        let offline = std::mem::take(&mut outgoing.tasks);
        let _ = self.publish(outgoing).await?;
        Ok(offline)
    }

    /// Tells the members of small conversations that marks rose. In a large group only the member's own devices
    /// are told: a receipt for everybody would cost the square of the group's size.
    pub async fn marks(&self, risen: &[(Member, Seq, i32)]) -> Result<()> {
        let mut told = Vec::with_capacity(risen.len());
        for (member, members_seq, member_count) in risen {
            let recipients = match self.policy.fanout(u32::try_from(*member_count).unwrap_or(0)) {
                Fanout::Direct => self.members.get(&*self.store, member.conversation, members_seq.next()).await?,
                Fanout::Deferred => Arc::from([member.user]),
            };
            let payload = Payload::Marks {
                conversation: member.conversation,
                user: member.user,
                read_seq: member.read_seq,
                delivered_seq: member.delivered_seq,
            };
            told.push((recipients, payload));
        }
        self.tell(&told).await
    }

    /// Tells the gateways where these users are connected that sessions ended.
    pub async fn revoked(&self, current: &[Caller]) -> Result<()> {
        let users: Vec<UserId> = current.iter().map(|caller| caller.user).collect();
        let mut outgoing = Outgoing::default();
        for route in self.routes.locate(&users).await? {
            for caller in current.iter().filter(|caller| (caller.user, caller.device) == (route.user, route.device)) {
                let signal = Signal::Revoked { user: caller.user, device: caller.device, session_epoch: caller.session_epoch };
                outgoing.to(route.gateway.clone()).signals.push(signal);
            }
        }
        let _ = self.publish(outgoing).await?;
        Ok(())
    }

    /// Tells users something, each list its own; hints, whose loss their clients make good.
    async fn tell(&self, told: &[(Arc<[UserId]>, Payload)]) -> Result<()> {
        let located = self.locate(told.iter().flat_map(|(users, _)| users.iter().copied())).await?;
        let mut outgoing = Outgoing::default();
        for (users, payload) in told {
            let routes: Vec<Route> = users.iter().filter_map(|user| located.get(user)).flatten().cloned().collect();
            for (gateway, targets) in route(users, &routes, None).gateways {
                outgoing.to(gateway).deliveries.push(Delivery { targets, payloads: vec![payload.clone()] });
            }
        }
        let _ = self.publish(outgoing).await?;
        Ok(())
    }

    /// Where these users are connected: one call for a page of users, whatever they are told.
    async fn locate(&self, users: impl Iterator<Item = UserId>) -> Result<HashMap<UserId, Vec<Route>>> {
        let mut users: Vec<UserId> = users.collect();
        users.sort_unstable();
        users.dedup();
        let mut located: HashMap<UserId, Vec<Route>> = HashMap::with_capacity(users.len());
        for page in users.chunks(LOCATE_PAGE) {
            for route in self.routes.locate(page).await? {
                located.entry(route.user).or_default().push(route);
            }
        }
        Ok(located)
    }

    fn note_heads(&self, entries: &[Entry]) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            if changed.len() >= CHANGED_MAX && !changed.contains_key(&entry.message.conversation) {
                continue;
            }
            let head = changed.entry(entry.message.conversation).or_default();
            *head = (head.0.max(listed_at(entry)), head.1.max(entry.message.seq));
        }
    }

    async fn route_direct(&self, direct: &[Run<'_>], outgoing: &mut Outgoing) -> Result<()> {
        let mut members = Vec::with_capacity(direct.len());
        for run in direct {
            members.push(self.members_of(run).await?);
        }
        let located = self.locate(members.iter().flat_map(|members| members.iter().copied())).await?;
        for (run, members) in direct.iter().zip(&members) {
            route_run(run, members, &located, outgoing);
        }
        Ok(())
    }

    async fn members_of(&self, run: &Run<'_>) -> Result<Arc<[UserId]>> {
        let last = run[run.len() - 1];
        self.members.get(&*self.store, last.message.conversation, listed_at(last)).await
    }

    /// Hands everything to the bus at once. What gateways lose, their clients pull (decision 7): only the receipt of the
    /// tasks matters.
    async fn publish(&self, outgoing: Outgoing) -> Result<Receipt> {
        let tasks = async {
            match outgoing.tasks.is_empty() {
                true => Ok(Receipt::kept()),
                false => self.bus.publish(&Topic::Task, outgoing.tasks.into_iter().map(Record::Task).collect()).await,
            }
        };
        let gateways = outgoing.gateways.into_iter().map(|(gateway, records)| async move {
            let filled = records.into_iter().filter(|record| *record != Downstream::default());
            let records = filled.map(|record| Record::Downstream(Arc::new(record))).collect();
            self.bus.publish(&Topic::Downstream(gateway), records).await
        });
        let (receipt, _) = futures_util::future::try_join(tasks, try_join_all(gateways)).await?;
        Ok(receipt)
    }
}

/// Adds the deliveries of one run to some of its members. One delivery per gateway; entries that a device
/// sent itself are taken out of that device's delivery.
fn route_run(run: &Run<'_>, members: &[UserId], located: &HashMap<UserId, Vec<Route>>, outgoing: &mut Outgoing) {
    let routes = members.iter().filter_map(|user| located.get(user)).flatten().cloned();
    let senders: HashSet<(UserId, DeviceId)> = run.iter().filter_map(|entry| Some((entry.message.sender, entry.from?))).collect();
    let (own, others): (Vec<_>, Vec<_>) = routes.partition(|route| senders.contains(&(route.user, route.device)));
    let payload = |entry: &&Entry| Payload::Message(entry.message.clone());
    for own in &own {
        let payloads: Vec<Payload> =
            run.iter().filter(|entry| (entry.message.sender, entry.from) != (own.user, Some(own.device))).map(payload).collect();
        if !payloads.is_empty() {
            let targets = vec![Target { connection: own.connection, epoch: own.epoch }];
            outgoing.to(own.gateway.clone()).deliveries.push(Delivery { targets, payloads });
        }
    }
    let connected: HashSet<UserId> = own.iter().map(|route| route.user).collect();
    let routed = route(members, &others, None);
    for (gateway, targets) in routed.gateways {
        let payloads = run.iter().map(payload).collect();
        outgoing.to(gateway).deliveries.push(Delivery { targets, payloads });
    }
    let offline: Vec<UserId> = routed.offline.into_iter().filter(|user| !connected.contains(user)).collect();
    for entry in run.iter().filter(|entry| entry.message.counts()) {
        let users: Vec<UserId> = offline.iter().copied().filter(|user| *user != entry.message.sender).collect();
        if !users.is_empty() {
            let message = &entry.message;
            outgoing.tasks.push(Arc::new(Task::Offline {
                conversation: message.conversation,
                seq: message.seq,
                message: message.id,
                sender: message.sender,
                users,
            }));
        }
    }
}

/// Entries of one conversation that share a member list, in order.
type Run<'a> = Vec<&'a Entry>;

/// The seq at which the member list of an entry is read. The entry that changes the members is still seen by whoever
/// it removes; all entries from the next one to the next change share one list.
fn listed_at(entry: &Entry) -> Seq {
    if entry.message.seq == entry.members_seq { entry.members_seq } else { entry.members_seq.next() }
}

/// Groups entries into runs, keeping the order within each conversation.
fn runs(entries: &[Entry]) -> Vec<Run<'_>> {
    let mut open: HashMap<(ConversationId, Seq), usize> = HashMap::with_capacity(entries.len());
    let mut runs: Vec<Run<'_>> = Vec::with_capacity(entries.len());
    for entry in entries {
        let index = *open.entry((entry.message.conversation, listed_at(entry))).or_insert_with(|| {
            runs.push(Vec::new());
            runs.len() - 1
        });
        runs[index].push(entry);
    }
    runs
}

#[derive(Default)]
struct Outgoing {
    /// The last record of each gateway is still being filled, unless it was ended.
    gateways: BTreeMap<GatewayId, Vec<Downstream>>,
    tasks: Vec<Arc<Task>>,
}

impl Outgoing {
    /// The record that is being filled for a gateway.
    fn to(&mut self, gateway: GatewayId) -> &mut Downstream {
        let records = self.gateways.entry(gateway).or_default();
        if records.is_empty() {
            records.push(Downstream::default());
        }
        let last = records.len() - 1;
        &mut records[last]
    }

    /// What comes next for any gateway goes into a record of its own: a page of members is one record.
    fn end_record(&mut self) {
        for records in self.gateways.values_mut().filter(|records| records.last() != Some(&Downstream::default())) {
            records.push(Downstream::default());
        }
    }
}

/// Member lists by conversation and version, bounded by the number of members that they hold together.
///
/// A list is immutable for its version, so a copy can never be stale: the version that an entry carries was read
/// in the transaction that stored it.
#[derive(Debug, Default)]
struct MemberLists {
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    by_conversation: HashMap<ConversationId, (Seq, Arc<[UserId]>)>,
    held: usize,
}

/// Members in all lists together: 16 bytes each.
const LISTED_MEMBERS_MAX: usize = 2_000_000;

impl MemberLists {
    async fn get(&self, store: &dyn Store, conversation: ConversationId, version: Seq) -> Result<Arc<[UserId]>> {
        if let Some((_, list)) = self.lock().by_conversation.get(&conversation).filter(|(at, _)| *at == version) {
            return Ok(list.clone());
        }
        let mut members = Vec::new();
        loop {
            let page = store.members_at(conversation, version, members.last().copied(), FANOUT_PAGE).await?;
            let full = page.len() == FANOUT_PAGE;
            members.extend(page);
            if !full {
                break;
            }
        }
        let list: Arc<[UserId]> = members.into();
        let mut lists = self.lock();
        // An entry of an older version may be dispatched after one of a newer version: the newer list stays.
        if lists.by_conversation.get(&conversation).is_none_or(|(at, _)| *at < version) {
            if lists.held + list.len() > LISTED_MEMBERS_MAX {
                lists.by_conversation.clear();
                lists.held = 0;
            }
            lists.held += list.len();
            if let Some((_, old)) = lists.by_conversation.insert(conversation, (version, list.clone())) {
                lists.held -= old.len();
            }
        }
        Ok(list)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
