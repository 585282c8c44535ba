//! Consumers come, go, die and are slow: nothing is lost, and the order of every key stands.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gochat_core::{
    error::Code,
    ids::ConversationId,
    ports::{Bus, Topic},
};
use gochat_transport::bus::{KafkaBus, KafkaSettings};
use tokio::{task::JoinHandle, time::timeout};

use crate::{SOON, key, next, nothing_comes, number, numbers, settings, take, task, upstream, with};

type Seen = Arc<Mutex<HashMap<ConversationId, Vec<i64>>>>;

/// A consumer that works until it is told to stop, and drops its subscription then.
fn consume(bus: &KafkaBus, seen: &Seen, each: Duration) -> (Arc<AtomicBool>, JoinHandle<usize>) {
    let (bus, seen, stop) = (bus.clone(), seen.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let subscription = bus.subscribe(&Topic::Upstream, "g").await.unwrap();
        let mut count = 0;
        while !stopped.load(Ordering::Relaxed) {
            let Ok(batch) = timeout(Duration::from_millis(50), subscription.next(50)).await else { continue };
            let batch = batch.unwrap();
            tokio::time::sleep(each).await;
            // Counted when it is committed: what was taken away is somebody else's.
            if subscription.commit(batch.position).await.is_ok() {
                count += batch.records.len();
                let mut seen = seen.lock().unwrap();
                for record in &batch.records {
                    seen.entry(record.key().unwrap()).or_default().push(number(record));
                }
            }
        }
        count
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_join_and_leave_under_load() {
    const EACH: i64 = 250;
    with(settings(), |bus| async move {
        let seen = Seen::default();
        let keys: Vec<_> = (0..24).map(|_| key()).collect();
        let (stop_a, a) = consume(&bus, &seen, Duration::from_millis(2));
        let producer = tokio::spawn({
            let (bus, keys) = (bus.clone(), keys.clone());
            async move {
                for n in 1..=EACH {
                    bus.publish(&Topic::Upstream, keys.iter().map(|key| upstream(*key, n)).collect()).await.unwrap().safe().await.unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let (stop_b, b) = consume(&bus, &seen, Duration::from_millis(2));
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop_a.store(true, Ordering::Relaxed);
        let by_a = a.await.unwrap();
        producer.await.unwrap();
        timeout(SOON, async {
            while seen.lock().unwrap().values().map(Vec::len).sum::<usize>() < keys.len() * EACH as usize {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("every record is committed");
        stop_b.store(true, Ordering::Relaxed);
        let by_b = b.await.unwrap();
        assert!(by_a > 100 && by_b > 100, "both worked: {by_a} and {by_b}");
        for key in keys {
            assert_eq!(seen.lock().unwrap()[&key], (1..=EACH).collect::<Vec<_>>());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consumer_did_not_commit_is_handed_to_the_next() {
    with(settings(), |bus| async move {
        let key = key();
        let first = bus.subscribe(&Topic::Task, "g").await.unwrap();
        bus.publish(&Topic::Task, (1..=10).map(|n| task(key, n)).collect()).await.unwrap().safe().await.unwrap();
        let batch = next(&*first, 4).await;
        assert_eq!(numbers(&batch), [1, 2, 3, 4]);
        first.commit(batch.position).await.unwrap();
        let batch = next(&*first, 3).await;
        assert_eq!(numbers(&batch), [5, 6, 7]);
        drop(first);
        let second = bus.subscribe(&Topic::Task, "g").await.unwrap();
        assert_eq!(take(&*second, 6).await, [5, 6, 7, 8, 9, 10]);
        drop(second);
        let third = bus.subscribe(&Topic::Task, "g").await.unwrap();
        nothing_comes(&*third).await;
    })
    .await;
}

/// A batch that is worked on longer than a handover waits: its partition moves, the batch is handed out again, and the late commit
/// is refused and moves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_batch_whose_partition_moved_is_refused_and_done_by_the_other() {
    let settings = KafkaSettings { partitions: 2, handover: Duration::from_millis(300), ..settings() };
    with(settings, |bus| async move {
        let slow = bus.subscribe(&Topic::Upstream, "g").await.unwrap();
        let keys: Vec<_> = (0..40).map(|_| key()).collect();
        bus.publish(&Topic::Upstream, keys.iter().map(|key| upstream(*key, 1)).collect()).await.unwrap().safe().await.unwrap();
        let held = [next(&*slow, 500).await, next(&*slow, 500).await];
        assert_ne!(held[0].position.partition, held[1].position.partition);
        let other = bus.subscribe(&Topic::Upstream, "g").await.unwrap();
        let moved = next(&*other, 500).await;
        let (gone, kept) = if moved.position.partition == held[0].position.partition { (&held[0], &held[1]) } else { (&held[1], &held[0]) };
        assert_eq!(moved.records, gone.records, "handed out again");
        assert_eq!(slow.commit(gone.position).await.unwrap_err().code, Code::InvalidRequest);
        assert_eq!(slow.release(gone.position).await.unwrap_err().code, Code::InvalidRequest);
        slow.commit(kept.position).await.unwrap();
        other.commit(moved.position).await.unwrap();
        drop(slow);
        nothing_comes(&*other).await;
        // Both offsets were committed: a third one finds nothing.
        drop(other);
        nothing_comes(&*bus.subscribe(&Topic::Upstream, "g").await.unwrap()).await;
    })
    .await;
}

/// A batch that is settled within the handover is not handed out twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_settled_in_time_moves_no_record_twice() {
    let settings = KafkaSettings { partitions: 2, handover: Duration::from_secs(3), ..settings() };
    with(settings, |bus| async move {
        let first = bus.subscribe(&Topic::Upstream, "g").await.unwrap();
        let records = (0..40).map(|_| upstream(key(), 1)).collect();
        bus.publish(&Topic::Upstream, records).await.unwrap().safe().await.unwrap();
        let held = [next(&*first, 500).await, next(&*first, 500).await];
        let second = bus.subscribe(&Topic::Upstream, "g").await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        for batch in held {
            first.commit(batch.position).await.unwrap();
        }
        nothing_comes(&*second).await;
        nothing_comes(&*first).await;
        let more = (0..40).map(|_| upstream(key(), 2)).collect();
        bus.publish(&Topic::Upstream, more).await.unwrap().safe().await.unwrap();
        let (mut by_first, mut by_second) = (0, 0);
        while by_first + by_second < 40 {
            let (count, batch, from) = tokio::select! {
                batch = first.next(500) => (&mut by_first, batch.unwrap(), &first),
                batch = second.next(500) => (&mut by_second, batch.unwrap(), &second),
                () = tokio::time::sleep(SOON) => panic!("{by_first} and {by_second} records came"),
            };
            assert!(numbers(&batch).iter().all(|number| *number == 2), "a record of the first round came again");
            *count += batch.records.len();
            from.commit(batch.position).await.unwrap();
        }
        assert!(by_first + by_second == 40 && by_first > 0 && by_second > 0, "{by_first} and {by_second}");
    })
    .await;
}

/// A lane takes no more than it may hold; what is behind comes after the commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_stands_still_holds_a_bounded_share_and_goes_on_where_it_was() {
    const RECORDS: i64 = 3_000;
    let settings = KafkaSettings { partitions: 1, buffered_records_max: 100, buffered_bytes_max: 64 * 1024, ..settings() };
    with(settings, |bus| async move {
        let subscription = bus.subscribe(&Topic::Upstream, "g").await.unwrap();
        let key = key();
        bus.publish(&Topic::Upstream, (1..=RECORDS).map(|n| upstream(key, n)).collect()).await.unwrap().safe().await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(bus.statistics().consumed <= 100, "{} records were taken in", bus.statistics().consumed);
        let started = std::time::Instant::now();
        assert_eq!(take(&*subscription, RECORDS as usize).await, (1..=RECORDS).collect::<Vec<_>>());
        assert!(started.elapsed() < Duration::from_secs(8), "{:?} for {RECORDS} records", started.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_bus_ends_its_subscriptions_and_keeps_what_was_committed() {
    let settings = settings();
    let own = settings.clone();
    with(settings, |bus| async move {
        let key = key();
        let closing = KafkaBus::connect(own).unwrap();
        let subscription = closing.subscribe(&Topic::Task, "g").await.unwrap();
        bus.publish(&Topic::Task, (1..=4).map(|n| task(key, n)).collect()).await.unwrap().safe().await.unwrap();
        let batch = next(&*subscription, 2).await;
        let waiting = tokio::spawn({
            let subscription = subscription.clone();
            async move { subscription.next(10).await.map(drop) }
        });
        let end = tokio::spawn({
            let closing = closing.clone();
            async move { closing.close().await }
        });
        assert_eq!(timeout(SOON, waiting).await.unwrap().unwrap().unwrap_err().code, Code::Unavailable);
        // What was out may still be committed.
        subscription.commit(batch.position).await.unwrap();
        timeout(SOON, end).await.unwrap().unwrap().unwrap();
        assert_eq!(subscription.next(1).await.unwrap_err().code, Code::Unavailable);
        assert_eq!(closing.offer(&Topic::Task, vec![task(key, 9)]).unwrap_err().code, Code::Unavailable);
        assert_eq!(closing.publish(&Topic::Task, vec![task(key, 9)]).await.unwrap_err().code, Code::Unavailable);
        assert_eq!(closing.subscribe(&Topic::Task, "g").await.unwrap_err().code, Code::Unavailable);
        let after = bus.subscribe(&Topic::Task, "g").await.unwrap();
        assert_eq!(take(&*after, 2).await, [3, 4]);
    })
    .await;
}
