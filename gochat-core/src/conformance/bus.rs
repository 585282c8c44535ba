//! The suite of [`Bus`].
//!
//! A case finds its own records by their conversation and commits whatever else it meets, so that what a failed case left
//! behind troubles no other one. Topics have one consumer group, so the cases run one after the other.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::timeout};
use uuid::Uuid;

use super::{Case, cases};
use crate::{
    error::Code,
    ids::{ClientMsgId, ConversationId, DeviceId, GatewayId, MessageId, Seq, UserId},
    model::{Body, Draft, MessageKind, PayloadHash},
    ports::{Ack, Batch, Bus, Downstream, Origin, Record, Refusal, Subscription, Task, Topic, Upstream},
    time::Timestamp,
};

/// Every case.
pub const CASES: &[Case<dyn Bus>] = cases![dyn Bus:
    records_arrive_as_they_were_given,
    a_key_keeps_its_order_however_many_consume,
    what_is_not_committed_comes_again_after_its_release,
    what_a_dropped_subscriber_held_goes_to_the_next,
    a_partition_has_one_batch_out_at_a_time,
    a_wait_that_is_given_up_loses_nothing,
    a_full_bus_refuses_a_whole_offer_and_takes_it_later,
    a_publisher_waits_for_room_and_is_never_refused,
    a_receipt_is_good_when_no_crash_can_lose_the_records,
    the_topics_of_gateways_are_kept_apart,
];

const GROUP: &str = "conformance";
/// Longer than any bus takes to hand over what is there.
const SOON: Duration = Duration::from_secs(5);
/// Long enough to see that something does not happen.
const WHILE: Duration = Duration::from_millis(100);
/// More records of one key than any bus may hold before it refuses.
const UNBOUNDED: i64 = 1_000_000;

fn key() -> ConversationId {
    ConversationId::from(Uuid::now_v7())
}

fn gateway() -> GatewayId {
    format!("g-{}", Uuid::now_v7()).parse().unwrap()
}

/// The `n`th record of a key for the upstream topic.
fn upstream(key: ConversationId, n: i64) -> Record {
    let draft = Draft {
        conversation: key,
        id: MessageId::from(Uuid::now_v7()),
        sender: UserId::from(Uuid::now_v7()),
        client_msg_id: ClientMsgId::from(Uuid::now_v7()),
        body: Body { kind: MessageKind::Text, content: format!("number {n}").into() },
        payload_hash: PayloadHash { key_id: 0, hash: [0; 32] },
        reply_to: None,
        created_at: Timestamp(n),
    };
    let origin = Origin { gateway: gateway(), connection: 1, request: n.unsigned_abs(), device: DeviceId::from(Uuid::now_v7()) };
    Record::Upstream(Arc::new(Upstream { draft, origin }))
}

/// The `n`th record of a key for the task topic.
fn task(key: ConversationId, n: i64) -> Record {
    let (message, sender) = (MessageId::from(Uuid::now_v7()), UserId::from(Uuid::now_v7()));
    Record::Task(Arc::new(Task::Offline { conversation: key, seq: Seq(n), message, sender, users: vec![sender] }))
}

/// A record for a gateway's topic.
fn downstream(n: u64) -> Record {
    let refusal = Refusal { code: Code::Overloaded, message: "full".into(), retry_after_ms: Some(n) };
    Record::Downstream(Arc::new(Downstream { acks: vec![Ack { connection: 1, request: n, outcome: Err(refusal) }], ..Downstream::default() }))
}

/// The number that a record was made with.
fn number(record: &Record) -> i64 {
    match record {
        Record::Upstream(upstream) => upstream.draft.created_at.0,
        Record::Downstream(downstream) => downstream.acks[0].request.cast_signed(),
        Record::Task(task) => match &**task {
            Task::Offline { seq, .. } => seq.0,
            Task::Fanout { .. } => panic!("not a record of this suite"),
        },
    }
}

fn numbers(batch: &Batch, key: ConversationId) -> Vec<i64> {
    batch.records.iter().filter(|record| record.key() == Some(key)).map(number).collect()
}

async fn subscribe(bus: &dyn Bus, topic: &Topic) -> Arc<dyn Subscription> {
    bus.subscribe(topic, GROUP).await.unwrap()
}

/// The next batch that holds records of this key; others are committed.
async fn next_of(subscription: &dyn Subscription, key: ConversationId, max: usize) -> Batch {
    loop {
        let batch = timeout(SOON, subscription.next(max)).await.expect("a batch soon").unwrap();
        assert!(!batch.records.is_empty() && batch.records.len() <= max, "{} records of at most {max}", batch.records.len());
        if !numbers(&batch, key).is_empty() {
            return batch;
        }
        subscription.commit(batch.position).await.unwrap();
    }
}

/// Everything that is there, committed; ends when nothing came for a while.
async fn drain(subscription: &dyn Subscription) -> Vec<Record> {
    let mut records = Vec::new();
    while let Ok(batch) = timeout(WHILE, subscription.next(1000)).await {
        let batch = batch.unwrap();
        records.extend(batch.records);
        subscription.commit(batch.position).await.unwrap();
    }
    records
}

/// As many records as are to come, committed, and whatever comes beside them; ends when nothing more came for a while.
async fn drain_all(subscription: &dyn Subscription, count: usize) -> Vec<Record> {
    let mut records = Vec::new();
    while records.len() < count {
        let batch = timeout(SOON, subscription.next(1000)).await.unwrap_or_else(|_| panic!("{} of {count} records came", records.len())).unwrap();
        records.extend(batch.records);
        subscription.commit(batch.position).await.unwrap();
    }
    records.extend(drain(subscription).await);
    records
}

/// Every kind of record, from both ways in; nothing of none is nothing.
pub async fn records_arrive_as_they_were_given(bus: Arc<dyn Bus>) {
    let (key, gateway) = (key(), Topic::Downstream(gateway()));
    for (topic, record) in [(Topic::Upstream, upstream(key, 1)), (Topic::Task, task(key, 1)), (gateway, downstream(1))] {
        let subscription = subscribe(&*bus, &topic).await;
        drain(&*subscription).await;
        bus.offer(&topic, vec![]).unwrap();
        bus.publish(&topic, vec![]).await.unwrap().safe().await.unwrap();
        assert!(timeout(WHILE, subscription.next(10)).await.is_err(), "a batch of nothing");
        bus.offer(&topic, vec![record.clone()]).unwrap();
        let _ = bus.publish(&topic, vec![record.clone()]).await.unwrap();
        assert_eq!(drain_all(&*subscription, 2).await, [record.clone(), record], "on {}", topic.name());
    }
}

/// Several producers, several subscribers, some batches given back: per key every record is committed once, in order.
pub async fn a_key_keeps_its_order_however_many_consume(bus: Arc<dyn Bus>) {
    const KEYS: usize = 12;
    const EACH: i64 = 300;
    let keys: Vec<ConversationId> = (0..KEYS).map(|_| key()).collect();
    let done: Arc<Mutex<HashMap<ConversationId, Vec<i64>>>> = Arc::default();
    let left = Arc::new(AtomicUsize::new(KEYS * EACH as usize));
    let mut consumers = JoinSet::new();
    for which in 0..3 {
        let (subscription, done, left) = (subscribe(&*bus, &Topic::Upstream).await, done.clone(), left.clone());
        let keys = keys.clone();
        consumers.spawn(async move {
            let mut turn = which;
            while left.load(Ordering::SeqCst) > 0 {
                let Ok(batch) = timeout(WHILE, subscription.next(1 + turn % 17)).await else { continue };
                let batch = batch.unwrap();
                tokio::task::yield_now().await;
                turn += 1;
                if turn % 5 == 0 {
                    subscription.release(batch.position).await.unwrap();
                    continue;
                }
                let mut own = 0;
                for record in &batch.records {
                    let key = record.key().unwrap();
                    if keys.contains(&key) {
                        done.lock().unwrap().entry(key).or_default().push(number(record));
                        own += 1;
                    }
                }
                subscription.commit(batch.position).await.unwrap();
                left.fetch_sub(own, Ordering::SeqCst);
            }
        });
    }
    let mut producers = JoinSet::new();
    for (at, key) in keys.iter().copied().enumerate() {
        let bus = bus.clone();
        producers.spawn(async move {
            for n in (1..=EACH).step_by(3) {
                let records = (n..n + 3).map(|n| upstream(key, n)).collect();
                match at % 2 {
                    0 => drop(bus.publish(&Topic::Upstream, records).await.unwrap()),
                    _ => bus.offer(&Topic::Upstream, records).unwrap(),
                }
                tokio::task::yield_now().await;
            }
        });
    }
    producers.join_all().await;
    timeout(4 * SOON, consumers.join_all()).await.expect("every record is consumed");
    let done = done.lock().unwrap();
    for key in &keys {
        assert_eq!(done[key], (1..=EACH).collect::<Vec<_>>());
    }
}

/// What was given back comes first, whole and in order, and nothing behind it overtakes.
pub async fn what_is_not_committed_comes_again_after_its_release(bus: Arc<dyn Bus>) {
    let key = key();
    let subscription = subscribe(&*bus, &Topic::Task).await;
    drain(&*subscription).await;
    bus.offer(&Topic::Task, (1..=6).map(|n| task(key, n)).collect()).unwrap();
    let batch = next_of(&*subscription, key, 2).await;
    assert_eq!(numbers(&batch, key), [1, 2]);
    subscription.commit(batch.position).await.unwrap();
    let batch = next_of(&*subscription, key, 3).await;
    assert_eq!(numbers(&batch, key), [3, 4, 5]);
    subscription.release(batch.position).await.unwrap();
    let again = next_of(&*subscription, key, 10).await;
    assert_eq!(numbers(&again, key), [3, 4, 5, 6]);
    subscription.release(again.position).await.unwrap();
    let again = next_of(&*subscription, key, 1).await;
    assert_eq!(numbers(&again, key), [3], "a smaller batch is allowed at any time");
    subscription.commit(again.position).await.unwrap();
    assert_eq!(drain_all(&*subscription, 3).await.iter().map(number).collect::<Vec<_>>(), [4, 5, 6], "what was committed is gone");
}

/// A consumer that died held a batch: the next subscriber gets it, also one that waits already.
pub async fn what_a_dropped_subscriber_held_goes_to_the_next(bus: Arc<dyn Bus>) {
    let key = key();
    let first = subscribe(&*bus, &Topic::Task).await;
    drain(&*first).await;
    bus.offer(&Topic::Task, (1..=4).map(|n| task(key, n)).collect()).unwrap();
    let batch = next_of(&*first, key, 2).await;
    first.commit(batch.position).await.unwrap();
    let held = next_of(&*first, key, 10).await;
    assert_eq!(numbers(&held, key), [3, 4]);
    let second = subscribe(&*bus, &Topic::Task).await;
    let waiting = tokio::spawn(async move {
        let batch = next_of(&*second, key, 10).await;
        (numbers(&batch, key), second, batch.position)
    });
    tokio::time::sleep(WHILE).await;
    assert!(!waiting.is_finished(), "the batch is in the first one's hands");
    drop(first);
    let (found, second, position) = timeout(SOON, waiting).await.expect("the batch is handed on").unwrap();
    assert_eq!(found, [3, 4]);
    second.commit(position).await.unwrap();
    assert!(drain(&*second).await.is_empty());
}

/// Partitions are worked on side by side; within one, the next batch follows the commit.
pub async fn a_partition_has_one_batch_out_at_a_time(bus: Arc<dyn Bus>) {
    let subscribers = [subscribe(&*bus, &Topic::Upstream).await, subscribe(&*bus, &Topic::Upstream).await];
    drain(&*subscribers[0]).await;
    let mut missing = HashSet::new();
    for n in 1..=200 {
        bus.offer(&Topic::Upstream, vec![upstream(key(), n)]).unwrap();
        missing.insert(n);
    }
    let mut rounds = 0;
    while !missing.is_empty() {
        rounds += 1;
        assert!(rounds < 1000, "{} records do not come", missing.len());
        let mut out = Vec::new();
        let mut partitions = HashSet::new();
        // In turn, until neither has anything.
        let (mut turn, mut silent) = (rounds, 0);
        while silent < 2 {
            turn += 1;
            let Ok(batch) = timeout(WHILE, subscribers[turn % 2].next(40)).await else {
                silent += 1;
                continue;
            };
            let batch = batch.unwrap();
            assert!(partitions.insert(batch.position.partition), "two batches of partition {} are out", batch.position.partition);
            out.push((turn % 2, batch));
            silent = 0;
        }
        for (at, batch) in out {
            for record in &batch.records {
                assert!(missing.remove(&number(record)), "{} came twice", number(record));
            }
            subscribers[at].commit(batch.position).await.unwrap();
        }
    }
}

/// A `next` that is dropped while it waits, or just as records come, has taken nothing.
pub async fn a_wait_that_is_given_up_loses_nothing(bus: Arc<dyn Bus>) {
    const RECORDS: i64 = 400;
    let key = key();
    let subscription = subscribe(&*bus, &Topic::Task).await;
    drain(&*subscription).await;
    let producer = tokio::spawn({
        let bus = bus.clone();
        async move {
            for n in 1..=RECORDS {
                drop(bus.publish(&Topic::Task, vec![task(key, n)]).await.unwrap());
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        }
    });
    let mut seen = Vec::new();
    timeout(4 * SOON, async {
        while seen.len() < RECORDS as usize {
            if let Ok(batch) = timeout(Duration::from_micros(200), subscription.next(3)).await {
                let batch = batch.unwrap();
                seen.extend(numbers(&batch, key));
                subscription.commit(batch.position).await.unwrap();
            }
        }
    })
    .await
    .expect("every record comes");
    producer.await.unwrap();
    assert_eq!(seen, (1..=RECORDS).collect::<Vec<_>>());
}

/// All or nothing, at once, with a hint how long to wait; what was accepted before stays, and room comes back with commits.
pub async fn a_full_bus_refuses_a_whole_offer_and_takes_it_later(bus: Arc<dyn Bus>) {
    let (full, others): (_, Vec<ConversationId>) = (key(), (0..32).map(|_| key()).collect());
    let subscription = subscribe(&*bus, &Topic::Upstream).await;
    // A bus that keeps records elsewhere makes room by bringing them there, not only by commits.
    let elsewhere = bus.publish(&Topic::Upstream, vec![upstream(key(), 0)]).await.unwrap().is_kept();
    drain(&*subscription).await;
    let mut accepted = 0;
    let refusal = loop {
        match bus.offer(&Topic::Upstream, vec![upstream(full, accepted + 1)]) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < UNBOUNDED, "{accepted} records are accepted and nobody consumes: the bus is not bounded");
    };
    assert_eq!(refusal.code, Code::Overloaded);
    assert!(refusal.retry_after.is_some(), "an overload says how long to wait");
    let mixed = || others.iter().chain([&full]).map(|key| upstream(*key, -1)).collect::<Vec<_>>();
    let taken = match bus.offer(&Topic::Upstream, mixed()) {
        Err(refusal) => {
            assert_eq!(refusal.code, Code::Overloaded);
            0
        }
        Ok(()) => {
            assert!(elsewhere, "accepted although there is no room");
            others.len() + 1
        }
    };
    let arrived = drain_all(&*subscription, taken + accepted as usize).await;
    let (mixed_in, alone): (Vec<i64>, Vec<i64>) = arrived.iter().map(number).partition(|number| *number < 0);
    // Too many to be shown.
    assert!(alone.iter().copied().eq(1..=accepted), "{} of {accepted} came, or in another order", alone.len());
    assert_eq!(mixed_in.len(), taken, "all of a batch or none of it");
    bus.offer(&Topic::Upstream, mixed()).unwrap();
    assert_eq!(drain_all(&*subscription, others.len() + 1).await.len(), others.len() + 1);
}

/// What must not be refused any more: publications larger than any queue get through once somebody consumes.
pub async fn a_publisher_waits_for_room_and_is_never_refused(bus: Arc<dyn Bus>) {
    const RECORDS: i64 = 10_000;
    let key = key();
    let subscription = subscribe(&*bus, &Topic::Task).await;
    drain(&*subscription).await;
    let publisher = tokio::spawn({
        let bus = bus.clone();
        async move {
            // One that no queue holds as a whole, then many small ones.
            drop(bus.publish(&Topic::Task, (1..=RECORDS / 2).map(|n| task(key, n)).collect()).await.unwrap());
            for n in RECORDS / 2 + 1..=RECORDS {
                drop(bus.publish(&Topic::Task, vec![task(key, n)]).await.unwrap());
            }
        }
    });
    tokio::time::sleep(WHILE).await;
    let mut seen = Vec::new();
    while seen.len() < RECORDS as usize {
        let batch = next_of(&*subscription, key, 256).await;
        seen.extend(numbers(&batch, key));
        subscription.commit(batch.position).await.unwrap();
    }
    publisher.await.unwrap();
    assert_eq!(seen, (1..=RECORDS).collect::<Vec<_>>());
}

/// A bus that keeps records in memory vouches for them when the last of them is committed, and not for a batch that is
/// merely handed out or given back. One that keeps them on disk may vouch at once.
pub async fn a_receipt_is_good_when_no_crash_can_lose_the_records(bus: Arc<dyn Bus>) {
    let keys: Vec<ConversationId> = (0..16).map(|_| key()).collect();
    let subscription = subscribe(&*bus, &Topic::Task).await;
    drain(&*subscription).await;
    let mut receipt = bus.publish(&Topic::Task, keys.iter().map(|key| task(*key, 1)).collect()).await.unwrap();
    if receipt.is_kept() {
        receipt.safe().await.unwrap();
        assert_eq!(drain_all(&*subscription, keys.len()).await.len(), keys.len());
        return;
    }
    let not_yet = "the records are not committed yet";
    assert!(timeout(WHILE, receipt.safe()).await.is_err(), "{not_yet}");
    let batch = timeout(SOON, subscription.next(2)).await.expect("a batch soon").unwrap();
    assert!(timeout(WHILE, receipt.safe()).await.is_err(), "{not_yet}");
    subscription.release(batch.position).await.unwrap();
    let mut left = keys.len();
    while left > 0 {
        assert!(timeout(Duration::from_millis(1), receipt.safe()).await.is_err(), "{left} are not committed yet");
        let batch = timeout(SOON, subscription.next(2)).await.expect("a batch soon").unwrap();
        left -= batch.records.len();
        subscription.commit(batch.position).await.unwrap();
    }
    timeout(SOON, receipt.safe()).await.expect("all of them are committed").unwrap();
    assert!(receipt.is_kept());
}

/// A gateway gets its own records only; records without a key keep the order of their topic.
pub async fn the_topics_of_gateways_are_kept_apart(bus: Arc<dyn Bus>) {
    let (one, two) = (Topic::Downstream(gateway()), Topic::Downstream(gateway()));
    let (first, second) = (subscribe(&*bus, &one).await, subscribe(&*bus, &two).await);
    for n in 1..=50 {
        drop(bus.publish(&one, vec![downstream(n)]).await.unwrap());
        drop(bus.publish(&two, vec![downstream(100 + n)]).await.unwrap());
    }
    assert_eq!(drain_all(&*first, 50).await.iter().map(number).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
    assert_eq!(drain_all(&*second, 50).await.iter().map(number).collect::<Vec<_>>(), (101..=150).collect::<Vec<_>>());
}
