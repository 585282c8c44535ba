//! Topics are made once, checked and described.

use gochat_core::{
    error::Code,
    ports::{Bus, Topic},
};
use gochat_transport::bus::{GroupLag, KafkaBus, KafkaSettings};

use crate::{key, next, settings, upstream, with};

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_once_and_another_partition_count_is_refused() {
    let settings = settings();
    let own = settings.clone();
    with(settings, |bus| async move {
        let all = [Topic::Upstream, Topic::Task, Topic::DeadLetter, Topic::Downstream("g-1".parse().unwrap())];
        // Several roles start at once.
        let others: Vec<_> = (0..3).map(|_| KafkaBus::connect(own.clone()).unwrap()).collect();
        let made = others.iter().map(|other| other.ensure_topics(&all));
        for outcome in futures_util::future::join_all(made).await {
            outcome.unwrap();
        }
        bus.ensure_topics(&all).await.unwrap();
        bus.ensure_topics(&all).await.unwrap();
        let topics = bus.topics().await.unwrap();
        let found: Vec<_> = topics.iter().map(|topic| (topic.name.strip_prefix(&own.prefix).unwrap(), topic.partitions, topic.replication)).collect();
        let expected = [("im-dead-letter-topic", 1, 1), ("im-downstream-topic-g-1", 1, 1), ("im-task-topic", 6, 1), ("im-upstream-topic", 6, 1)];
        assert_eq!(found, expected);
        let other = KafkaBus::connect(KafkaSettings { partitions: 7, ..own.clone() }).unwrap();
        let error = other.ensure_topics(&all).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidField);
        assert!(error.message.contains("has 6 partitions and the settings say 7"), "{error}");
        assert_eq!(other.subscribe(&Topic::Upstream, "g").await.unwrap_err().code, Code::InvalidField);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_a_group_is_behind_is_told() {
    let settings = settings();
    let own = settings.clone();
    with(settings, |bus| async move {
        let subscription = bus.subscribe(&Topic::Upstream, "im-logic").await.unwrap();
        let key = key();
        bus.publish(&Topic::Upstream, (1..=10).map(|n| upstream(key, n)).collect()).await.unwrap().safe().await.unwrap();
        let batch = next(&*subscription, 4).await;
        subscription.commit(batch.position).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
        let topics = bus.topics().await.unwrap();
        let upstream = topics.iter().find(|topic| topic.name.ends_with("im-upstream-topic")).unwrap();
        assert_eq!((upstream.records, &upstream.groups[..]), (10, &[GroupLag { group: format!("{}im-logic", own.prefix), behind: 6 }][..]));
        let statistics = bus.statistics();
        assert_eq!(statistics.lag.iter().map(|(_, _, lag)| lag).sum::<i64>(), 6, "{:?}", statistics.lag);
        assert_eq!((statistics.produced, statistics.delivered, statistics.consumed, statistics.committed), (10, 10, 10, 4));
        assert!(statistics.up && bus.ready());
    })
    .await;
}
