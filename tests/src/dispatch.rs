//! Dispatch with two gateways, looked at where its records come out: one record per gateway, whoever is told, and by whom.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use gochat_core::{
    dispatch::{Dispatcher, Entry},
    error::{Code, Result},
    fanout::BySize,
    ids::{ClientMsgId, ConversationId, DeviceId, GatewayId, MessageId, Seq, UserId},
    model::{Body, ConversationKind, Draft, GroupAction, JoinMode, MessageKind, NewConversation, NewUser, PayloadHash},
    ports::{
        Ack, AppendBatch, Bus, Conversations, Delivery, Downstream, Messages, Payload, Record, Route, Routes, Stored, Subscription, Task, Topic,
        Users,
    },
    time::Timestamp,
};
use gochat_storage::{
    local::LocalRoutes,
    sqlite::{self, Database, SqliteSettings},
};
use gochat_transport::bus::{LocalBus, LocalBusSettings};
use tempfile::TempDir;
use tokio::time::timeout;
use uuid::Uuid;

struct World {
    store: Arc<Database>,
    bus: Arc<LocalBus>,
    routes: Arc<MayBeAway>,
    dispatcher: Dispatcher,
    /// The topics of two gateways.
    gateways: [Arc<dyn Subscription>; 2],
    tasks: Arc<dyn Subscription>,
    _folder: TempDir,
}

/// Routes that a test can take away.
#[derive(Debug, Default)]
struct MayBeAway {
    routes: LocalRoutes,
    away: AtomicBool,
}

impl MayBeAway {
    fn there(&self) -> Result<&LocalRoutes> {
        if self.away.load(Ordering::Relaxed) { Err(Code::Unavailable.into()) } else { Ok(&self.routes) }
    }
}

#[async_trait]
impl Routes for MayBeAway {
    async fn attach(&self, routes: &[Route], lease: Duration) -> Result<Vec<bool>> {
        self.there()?.attach(routes, lease).await
    }
    async fn detach(&self, routes: &[Route]) -> Result<Vec<bool>> {
        self.there()?.detach(routes).await
    }
    async fn locate(&self, users: &[UserId]) -> Result<Vec<Route>> {
        self.there()?.locate(users).await
    }
}

const AT: Timestamp = Timestamp(1_700_000_000_000);

fn gateway(index: usize) -> GatewayId {
    ["gate-a", "gate-b"][index].parse().unwrap()
}

async fn world(threshold: u32) -> World {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(sqlite::open(&folder.path().join("gochat.db"), &SqliteSettings::default()).unwrap());
    let (bus, routes) = (Arc::new(LocalBus::new(LocalBusSettings::default())), Arc::new(MayBeAway::default()));
    let dispatcher = Dispatcher::new(store.clone(), bus.clone(), routes.clone(), Arc::new(BySize { threshold }));
    let topic = async |index: usize| bus.subscribe(&Topic::Downstream(gateway(index)), "gateway").await.unwrap();
    let gateways = [topic(0).await, topic(1).await];
    let tasks = bus.subscribe(&Topic::Task, "im-task").await.unwrap();
    World { store, bus, routes, dispatcher, gateways, tasks, _folder: folder }
}

impl World {
    async fn users<const N: usize>(&self) -> [UserId; N] {
        let mut users = Vec::new();
        for _ in 0..N {
            let id = UserId::from(Uuid::now_v7());
            let new = NewUser {
                id,
                username: format!("u{}", id.to_string().replace('-', "").split_off(4)),
                display_name: "Somebody".into(),
                password_phc: None,
                external_id: None,
                created_at: AT,
            };
            users.push(self.store.create_user(&new).await.unwrap().id);
        }
        users.try_into().unwrap()
    }

    async fn group(&self, owner: UserId, members: &[UserId]) -> ConversationId {
        let new = NewConversation {
            id: ConversationId::from(Uuid::now_v7()),
            kind: ConversationKind::Group,
            creator: owner,
            members: members.to_vec(),
            name: "Group".into(),
            description: String::new(),
            avatar_url: None,
            join_mode: JoinMode::Invite,
            max_members: 500,
            event_id: MessageId::from(Uuid::now_v7()),
            idempotency: None,
            at: AT,
        };
        self.store.create_conversation(&new).await.unwrap().conversation.id
    }

    /// Connects a device of a user to a gateway; answers with the device.
    async fn connect(&self, user: UserId, at: usize, connection: u64) -> DeviceId {
        let device = DeviceId::from(Uuid::now_v7());
        let route = Route { user, device, gateway: gateway(at), connection, epoch: 1 };
        assert_eq!(self.routes.attach(&[route], Duration::from_secs(60)).await.unwrap(), [true]);
        device
    }

    async fn say(&self, conversation: ConversationId, sender: UserId, from: Option<DeviceId>, text: &str) -> Entry {
        let draft = Draft {
            conversation,
            id: MessageId::from(Uuid::now_v7()),
            sender,
            client_msg_id: ClientMsgId::from(Uuid::now_v7()),
            body: Body { kind: MessageKind::Text, content: text.into() },
            payload_hash: PayloadHash { key_id: 1, hash: [0; 32] },
            reply_to: None,
            created_at: AT,
        };
        let batch = AppendBatch { drafts: vec![draft], dispatched: Vec::new() };
        let appended = self.store.append(&batch).await.unwrap().remove(0).unwrap();
        Entry { message: appended.message.into(), from, member_count: appended.member_count, members_seq: appended.members_seq }
    }

    async fn act(&self, id: ConversationId, actor: UserId, action: GroupAction) -> Entry {
        let changed = self.store.manage(id, actor, &action, MessageId::from(Uuid::now_v7()), AT).await.unwrap();
        let (count, seq) = (changed.conversation.member_count, changed.conversation.members_seq);
        Entry { message: changed.event.expect("an event").into(), from: None, member_count: count, members_seq: seq }
    }

    /// What each gateway was told: its records, each with its deliveries.
    async fn told(&self, index: usize) -> Vec<Arc<Downstream>> {
        records(&self.gateways[index])
            .await
            .into_iter()
            .map(|record| if let Record::Downstream(down) = record { down } else { panic!("{record:?}") })
            .collect()
    }

    async fn tasks(&self) -> Vec<Arc<Task>> {
        records(&self.tasks).await.into_iter().map(|record| if let Record::Task(task) = record { task } else { panic!("{record:?}") }).collect()
    }
}

/// What lies in a topic now.
async fn records(topic: &Arc<dyn Subscription>) -> Vec<Record> {
    let mut records = Vec::new();
    while let Ok(batch) = timeout(Duration::from_millis(100), topic.next(100)).await {
        let batch = batch.unwrap();
        topic.commit(batch.position).await.unwrap();
        records.extend(batch.records);
    }
    records
}

/// (connection, texts) of deliveries, in order.
fn lines(deliveries: &[Delivery]) -> Vec<(u64, Vec<String>)> {
    let text = |payload: &Payload| match payload {
        Payload::Message(message) => message.body.content.to_string(),
        other => panic!("{other:?}"),
    };
    let mut lines: Vec<_> = deliveries
        .iter()
        .flat_map(|delivery| delivery.targets.iter().map(|target| (target.connection, delivery.payloads.iter().map(text).collect())))
        .collect();
    lines.sort();
    lines
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_gateway_gets_one_record_whatever_the_number_of_members() {
    let world = world(100).await;
    let [ana, bo, cy, away] = world.users().await;
    let group = world.group(ana, &[bo, cy, away]).await;
    let phone = world.connect(ana, 0, 1).await;
    world.connect(ana, 1, 2).await;
    world.connect(bo, 0, 3).await;
    world.connect(bo, 1, 4).await;
    world.connect(cy, 1, 5).await;
    let entries = [world.say(group, ana, Some(phone), "one").await, world.say(group, bo, None, "two").await];
    let _ = world.dispatcher.dispatch(Vec::new(), &entries).await.unwrap();
    let (a, b) = (world.told(0).await, world.told(1).await);
    assert_eq!((a.len(), b.len()), (1, 1), "one record per gateway");
    // The phone sent the first one: it gets its ack instead. Everything of a conversation that goes to a connection goes together.
    assert_eq!(lines(&a[0].deliveries), [(1, texts(&["two"])), (3, texts(&["one", "two"]))]);
    assert_eq!(lines(&b[0].deliveries), [2, 4, 5].map(|connection| (connection, texts(&["one", "two"]))));
    let tasks = world.tasks().await;
    let offline: Vec<(Seq, &[UserId])> =
        tasks.iter().map(|task| if let Task::Offline { seq, users, .. } = &**task { (*seq, &users[..]) } else { panic!("{task:?}") }).collect();
    assert_eq!(offline, [(Seq(2), &[away][..]), (Seq(3), &[away])], "one task for each message that somebody is to be told of elsewhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_removed_is_told_of_it_and_of_nothing_later() {
    let world = world(100).await;
    let [ana, bo] = world.users().await;
    let group = world.group(ana, &[bo]).await;
    world.connect(bo, 0, 7).await;
    let removed = world.act(group, ana, GroupAction::Remove { user: bo }).await;
    let later = world.say(group, ana, None, "later").await;
    // In one batch, as after a crash, and the other way round: the member list is that of each entry.
    let _ = world.dispatcher.dispatch(Vec::new(), &[removed.clone(), later.clone()]).await.unwrap();
    let seen = |told: &[Arc<Downstream>]| -> Vec<Seq> {
        told.iter()
            .flat_map(|record| &record.deliveries)
            .flat_map(|delivery| &delivery.payloads)
            .map(|payload| if let Payload::Message(message) = payload { message.seq } else { Seq(-1) })
            .collect()
    };
    assert_eq!(seen(&world.told(0).await), [removed.message.seq]);
    let _ = world.dispatcher.dispatch(Vec::new(), &[later]).await.unwrap();
    assert_eq!(seen(&world.told(0).await), []);
    let _ = world.dispatcher.dispatch(Vec::new(), std::slice::from_ref(&removed)).await.unwrap();
    assert_eq!(seen(&world.told(0).await), [removed.message.seq]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_told_once_more_to_whoever_may_have_missed_the_push() {
    let world = world(100).await;
    let [ana, bo] = world.users().await;
    let group = world.group(ana, &[bo]).await;
    let entries = [world.say(group, ana, None, "one").await, world.say(group, ana, None, "two").await];
    let _ = world.dispatcher.dispatch(Vec::new(), &entries).await.unwrap();
    // Connected only now: the push is over.
    world.connect(bo, 1, 4).await;
    world.dispatcher.tell_heads().await.unwrap();
    let told = world.told(1).await;
    let payloads: Vec<&Payload> = told.iter().flat_map(|record| &record.deliveries).flat_map(|delivery| &delivery.payloads).collect();
    assert_eq!(payloads, [&Payload::Heads(vec![(group, Seq(3))])]);
    world.dispatcher.tell_heads().await.unwrap();
    assert!(world.told(1).await.is_empty(), "nothing is told when nothing has changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_group_is_one_task_and_safe_when_that_is_done() {
    let world = world(3).await;
    let [ana, bo, cy] = world.users().await;
    let group = world.group(ana, &[bo, cy]).await;
    world.connect(bo, 0, 1).await;
    let entries = [world.say(group, ana, None, "one").await, world.say(group, ana, None, "two").await];
    let mut receipt = world.dispatcher.dispatch(Vec::new(), &entries).await.unwrap();
    assert!(!receipt.is_kept() && timeout(Duration::from_millis(50), receipt.safe()).await.is_err(), "a task in memory is not safe");
    assert!(world.told(0).await.is_empty(), "logic tells nobody of a large group");
    let tasks = world.tasks().await;
    assert!(matches!(&tasks[..], [task] if matches!(&**task, Task::Fanout { messages, .. } if messages.len() == 2)), "{tasks:?}");
    timeout(Duration::from_secs(5), receipt.safe()).await.expect("committed is safe").unwrap();

    let offline = world.dispatcher.fanout(&entries).await.unwrap();
    assert_eq!(lines(&world.told(0).await[0].deliveries), [(1, texts(&["one", "two"]))], "the same code tells them");
    assert_eq!(offline.len(), 2, "the sender is not told of what it sent itself: {offline:?}");
    assert!(offline.iter().all(|task| matches!(&**task, Task::Offline { users, .. } if users == &[cy])), "{offline:?}");
    world.bus.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_presence_is_unknown_senders_are_answered_and_the_entries_stay_owed() {
    let world = world(100).await;
    let [ana, bo, away] = world.users().await;
    let group = world.group(ana, &[bo, away]).await;
    world.connect(bo, 1, 4).await;
    let entry = world.say(group, ana, None, "into the dark").await;
    let stored = Stored { conversation: group, seq: entry.message.seq, message: entry.message.id, created_at: AT };
    let ack = Ack { connection: 1, request: 2, outcome: Ok(stored) };
    world.routes.away.store(true, Ordering::Relaxed);
    let mut receipt = world.dispatcher.dispatch(vec![(gateway(0), ack.clone())], std::slice::from_ref(&entry)).await.unwrap();
    assert_eq!(world.told(0).await[0].acks, [ack], "the sender has its ack");
    assert!(receipt.is_refused(), "the entry does not count as dispatched");
    assert!(world.tasks().await.is_empty(), "nobody is taken for offline");
    assert!(world.dispatcher.owes() && !world.dispatcher.owes(), "it is said once that there is something to make good");

    world.routes.away.store(false, Ordering::Relaxed);
    let mut receipt = world.dispatcher.dispatch(Vec::new(), &[entry]).await.unwrap();
    assert_eq!(lines(&world.told(1).await[0].deliveries), [(4, texts(&["into the dark"]))]);
    assert_eq!(world.tasks().await.len(), 1, "who is away gets a push after all");
    timeout(Duration::from_secs(5), receipt.safe()).await.expect("committed is safe").unwrap();
    assert!(!world.dispatcher.owes());
}
