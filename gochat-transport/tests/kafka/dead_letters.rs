//! Poison: put aside, listed, replayed.

use std::time::{Duration, Instant};

use gochat_core::{
    error::Code,
    ports::{Bus, Topic},
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

use crate::{SOON, key, next, nothing_comes, numbers, settings, take, upstream, with};

fn raw(brokers: &str) -> FutureProducer {
    ClientConfig::new().set("bootstrap.servers", brokers).set("partitioner", "murmur2_random").create().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_nobody_can_read_is_put_aside_and_holds_nothing_up() {
    let settings = settings();
    let (brokers, topic) = (settings.brokers.clone(), format!("{}{}", settings.prefix, Topic::Upstream.name()));
    with(settings, |bus| async move {
        let (raw, key) = (raw(&brokers), key());
        let subscription = bus.subscribe(&Topic::Upstream, "g").await.unwrap();
        let poison = |bytes: Vec<u8>| {
            let (raw, topic) = (raw.clone(), topic.clone());
            async move { raw.send(FutureRecord::to(&topic).key(&key.as_bytes()[..]).payload(&bytes), SOON).await.unwrap() }
        };
        let give = |n| {
            let bus = bus.clone();
            async move { bus.publish(&Topic::Upstream, vec![upstream(key, n)]).await.unwrap().safe().await.unwrap() }
        };
        give(1).await;
        let first = poison(b"\xff not protobuf".to_vec()).await;
        poison(Vec::new()).await;
        give(2).await;
        poison(vec![0xff; 900_000]).await;
        let started = Instant::now();
        give(3).await;
        assert_eq!(take(&*subscription, 3).await, [1, 2, 3]);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        // At the end of what there is, too: its offset is committed although no batch comes after it.
        poison(b"last".to_vec()).await;
        nothing_comes(&*subscription).await;
        assert_eq!(bus.statistics().dead_lettered, 4);
        let letters = bus.dead_letters(10).await.unwrap();
        assert_eq!(letters.iter().map(|letter| letter.size).collect::<Vec<_>>(), [14, 0, 900_000, 4]);
        assert_eq!(letters.iter().map(|letter| letter.position).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(
            (&letters[0].topic, letters[0].partition, letters[0].offset),
            (&topic, first.partition.unsigned_abs(), first.offset.unsigned_abs())
        );
        assert!(letters[0].error.contains("not a record"), "{}", letters[0].error);
        assert!(letters[0].at.0 > 1_700_000_000_000);
        assert_eq!(bus.dead_letters(1).await.unwrap(), letters[3..]);
        drop(subscription);
        let again = bus.subscribe(&Topic::Upstream, "g").await.unwrap();
        nothing_comes(&*again).await;
        assert_eq!(bus.statistics().dead_lettered, 4, "none was put aside twice");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_comes_back_to_its_topic_under_its_key() {
    let settings = settings();
    let (brokers, prefix) = (settings.brokers.clone(), settings.prefix.clone());
    with(settings, |bus| async move {
        let (raw, key) = (raw(&brokers), key());
        let topic = format!("{prefix}{}", Topic::Upstream.name());
        let subscription = bus.subscribe(&Topic::Upstream, "g").await.unwrap();
        raw.send(FutureRecord::to(&topic).key(&key.as_bytes()[..]).payload("unreadable"), SOON).await.unwrap();
        nothing_comes(&*subscription).await;
        let before = bus.dead_letters(10).await.unwrap();
        assert_eq!(before.len(), 1);
        assert_eq!(bus.replay(before[0].position).await.unwrap(), before[0]);
        // It is as unreadable as before, so it comes back, from the same partition: the key is the same.
        nothing_comes(&*subscription).await;
        let after = bus.dead_letters(10).await.unwrap();
        assert_eq!(after.len(), 2);
        assert_eq!((after[1].partition, after[1].offset, after[1].size), (before[0].partition, before[0].offset + 1, before[0].size));
        // What can be read arrives.
        let good = gochat_transport::bus::codec::encode(&upstream(key, 7));
        let dead = format!("{prefix}{}", Topic::DeadLetter.name());
        let headers = |topic| {
            [("error", "none"), ("topic", topic), ("partition", "0"), ("offset", "5"), ("time", "1")]
                .iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }))
        };
        for topic in [&topic[..], "somebody-elses"] {
            let record = FutureRecord::to(&dead).key(&key.as_bytes()[..]).payload(&good[..]).headers(headers(topic));
            raw.send(record, SOON).await.unwrap();
        }
        bus.replay(2).await.unwrap();
        let batch = next(&*subscription, 10).await;
        assert_eq!((numbers(&batch), batch.position.partition), (vec![7], before[0].partition));
        assert_eq!(bus.replay(3).await.unwrap_err().code, Code::InvalidRequest);
        assert_eq!(bus.replay(4).await.unwrap_err().code, Code::NotFound);
        assert_eq!(bus.replay(u64::MAX).await.unwrap_err().code, Code::NotFound);
    })
    .await;
}
