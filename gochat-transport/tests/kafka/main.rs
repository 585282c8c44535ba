//! The bus against real brokers: `GOCHAT_TEST_KAFKA` (default `127.0.0.1:19092`). Every test has a prefix, and so topics, of its own.

mod conformance;
mod dead_letters;
mod groups;
mod outage;
mod producing;
mod topics;

use std::{future::Future, sync::Arc, time::Duration};

use gochat_core::{
    ids::{ClientMsgId, ConversationId, DeviceId, MessageId, Seq, UserId},
    model::{Body, Draft, MessageKind, PayloadHash},
    ports::{Batch, Origin, Record, Subscription, Task, Upstream},
    time::Timestamp,
};
use gochat_transport::bus::{KafkaBus, KafkaSettings};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use tokio::time::timeout;
use uuid::Uuid;

/// Longer than anything takes that comes at all.
const SOON: Duration = Duration::from_secs(15);
/// Long enough to see that nothing comes.
const WHILE: Duration = Duration::from_millis(700);

fn brokers() -> String {
    std::env::var("GOCHAT_TEST_KAFKA").unwrap_or_else(|_| "127.0.0.1:19092".into())
}

/// Settings with a prefix of their own.
fn settings() -> KafkaSettings {
    let prefix = format!("t{}.", Uuid::new_v4().simple());
    KafkaSettings { brokers: brokers(), prefix, partitions: 6, ..KafkaSettings::default() }
}

/// Runs a test on a bus with these settings, and removes its topics and its groups afterwards, however it ended.
async fn with<F: Future<Output = ()> + Send + 'static>(settings: KafkaSettings, test: impl FnOnce(KafkaBus) -> F) {
    let bus = KafkaBus::connect(settings.clone()).unwrap();
    if let Err(error) = bus.ping().await {
        panic!("no Kafka at {} ({error:?}): start one with ./deploy/local.sh up --servers-only, or set GOCHAT_TEST_KAFKA", settings.brokers);
    }
    let outcome = tokio::spawn(test(bus.clone())).await;
    let closed = bus.close().await;
    clean(&settings).await;
    if let Err(error) = outcome {
        std::panic::resume_unwind(error.into_panic());
    }
    closed.unwrap();
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).set("reconnect.backoff.max.ms", "200").create().unwrap()
}

async fn clean(settings: &KafkaSettings) {
    let admin = admin(&settings.brokers);
    let metadata = admin.inner().fetch_metadata(None, SOON).unwrap();
    let own: Vec<&str> = metadata.topics().iter().map(|topic| topic.name()).filter(|name| name.starts_with(&settings.prefix)).collect();
    if !own.is_empty() {
        admin.delete_topics(&own, &AdminOptions::new()).await.unwrap();
    }
    let groups = admin.inner().fetch_group_list(None, SOON).unwrap();
    let own: Vec<&str> = groups.groups().iter().map(|group| group.name()).filter(|name| name.starts_with(&settings.prefix)).collect();
    if !own.is_empty() {
        admin.delete_groups(&own, &AdminOptions::new()).await.unwrap();
    }
}

fn key() -> ConversationId {
    ConversationId::from(Uuid::now_v7())
}

/// The `n`th record of a key for the upstream topic, with this much content.
fn upstream_of(key: ConversationId, n: i64, bytes: usize) -> Record {
    let draft = Draft {
        conversation: key,
        id: MessageId::from(Uuid::now_v7()),
        sender: UserId::from(Uuid::now_v7()),
        client_msg_id: ClientMsgId::from(Uuid::now_v7()),
        body: Body { kind: MessageKind::Text, content: "x".repeat(bytes).into() },
        payload_hash: PayloadHash { key_id: 0, hash: [0; 32] },
        reply_to: None,
        created_at: Timestamp(n),
    };
    let origin = Origin { gateway: "gateway-1".parse().unwrap(), connection: 1, request: 1, device: DeviceId::from(Uuid::now_v7()) };
    Record::Upstream(Arc::new(Upstream { draft, origin }))
}

fn upstream(key: ConversationId, n: i64) -> Record {
    upstream_of(key, n, 200)
}

fn task(key: ConversationId, n: i64) -> Record {
    let (message, sender) = (MessageId::from_bytes([1; 16]), UserId::from_bytes([2; 16]));
    Record::Task(Arc::new(Task::Offline { conversation: key, seq: Seq(n), message, sender, users: vec![sender] }))
}

/// The number that a record was made with.
fn number(record: &Record) -> i64 {
    match record {
        Record::Upstream(upstream) => upstream.draft.created_at.0,
        Record::Downstream(downstream) => downstream.acks[0].request.cast_signed(),
        Record::Task(task) => match &**task {
            Task::Offline { seq, .. } => seq.0,
            Task::Fanout { members_seq, .. } => members_seq.0,
        },
    }
}

fn numbers(batch: &Batch) -> Vec<i64> {
    batch.records.iter().map(number).collect()
}

async fn next(subscription: &dyn Subscription, max: usize) -> Batch {
    timeout(SOON, subscription.next(max)).await.expect("a batch soon").unwrap()
}

/// Commits what comes until `count` records came; their numbers.
async fn take(subscription: &dyn Subscription, count: usize) -> Vec<i64> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let batch = next(subscription, 500).await;
        seen.extend(numbers(&batch));
        subscription.commit(batch.position).await.unwrap();
    }
    seen
}

async fn nothing_comes(subscription: &dyn Subscription) {
    if let Ok(batch) = timeout(WHILE, subscription.next(10)).await {
        panic!("{:?} came", numbers(&batch.unwrap()));
    }
}
