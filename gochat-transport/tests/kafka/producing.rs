//! The way in: bounds, sizes, topics that are not there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gochat_core::{
    error::Code,
    ids::{ClientMsgId, MessageId, Seq, UserId},
    model::{Body, Message, MessageKind},
    ports::{Ack, Bus, Delivery, Downstream, Payload, Record, Refusal, Target, Task, Topic},
    time::Timestamp,
};
use gochat_transport::bus::{KafkaBus, KafkaSettings};
use uuid::Uuid;

use crate::{SOON, key, next, nothing_comes, numbers, settings, take, task, upstream, upstream_of, with};

fn gateway() -> Topic {
    Topic::Downstream(format!("g-{}", Uuid::new_v4().simple()).parse().unwrap())
}

fn downstream(n: u64) -> Record {
    let refusal = Refusal { code: Code::Overloaded, message: "full".into(), retry_after_ms: None };
    Record::Downstream(Arc::new(Downstream { acks: vec![Ack { connection: 1, request: n, outcome: Err(refusal) }], ..Downstream::default() }))
}

fn message(seq: i64, bytes: usize) -> Arc<Message> {
    Arc::new(Message {
        conversation: key(),
        seq: Seq(seq),
        id: MessageId::from(Uuid::now_v7()),
        sender: UserId::from(Uuid::now_v7()),
        client_msg_id: ClientMsgId::from(Uuid::now_v7()),
        body: Body { kind: MessageKind::Text, content: "x".repeat(bytes).into() },
        reply_to: None,
        created_at: Timestamp(1),
    })
}

/// Nobody answers at this address: what is offered stays in flight.
#[tokio::test(flavor = "multi_thread")]
async fn an_offer_beyond_the_bound_is_refused_whole() {
    let away = KafkaSettings { brokers: "127.0.0.1:9".into(), records_in_flight_max: 100, request_timeout: Duration::from_millis(300), ..settings() };
    let bus = KafkaBus::connect(away.clone()).unwrap();
    assert!(!bus.ready());
    assert_eq!(bus.ping().await.unwrap_err().code, Code::Unavailable);
    let records = |count| (0..count).map(|n| upstream(key(), n)).collect::<Vec<_>>();
    bus.offer(&Topic::Upstream, records(90)).unwrap();
    let refusal = bus.offer(&Topic::Upstream, records(11)).unwrap_err();
    assert_eq!(refusal.code, Code::Overloaded);
    assert!(refusal.retry_after.is_some());
    assert_eq!((bus.statistics().in_flight, bus.statistics().produced, bus.statistics().refused), (90, 90, 1));
    bus.offer(&Topic::Upstream, records(10)).unwrap();
    assert_eq!(bus.offer(&Topic::Upstream, records(1)).unwrap_err().code, Code::Overloaded);
    assert_eq!(bus.statistics().in_flight, 100);
    assert_eq!(bus.subscribe(&Topic::Upstream, "g").await.unwrap_err().code, Code::Unavailable);
    assert_eq!(bus.close().await.unwrap_err().code, Code::Unavailable, "records were lost with the end");

    // By bytes as well.
    let bus = KafkaBus::connect(KafkaSettings { bytes_in_flight_max: 4 * 1024 * 1024, records_in_flight_max: 1_000, ..away.clone() }).unwrap();
    let mut accepted = 0;
    let refusal = loop {
        match bus.offer(&Topic::Upstream, vec![upstream_of(key(), 1, 64 * 1024)]) {
            Ok(()) => accepted += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal.code, accepted), (Code::Overloaded, 63));
    drop(bus);

    // And by age.
    let bus = KafkaBus::connect(KafkaSettings { queue_age_max: Duration::from_millis(200), ..away }).unwrap();
    bus.offer(&Topic::Upstream, records(1)).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bus.offer(&Topic::Upstream, records(1)).unwrap_err().code, Code::Overloaded);
}

/// What fails is told, once its time is over, and gives its room back.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_not_kept_in_time_is_an_error() {
    let away = KafkaSettings { brokers: "127.0.0.1:9".into(), message_timeout: Duration::from_millis(1_500), ..settings() };
    let bus = KafkaBus::connect(away).unwrap();
    let error = tokio::time::timeout(SOON, bus.publish(&Topic::Task, (0..10).map(|n| task(key(), n)).collect())).await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    let error = bus.publish(&gateway(), vec![downstream(1)]).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "brokers that are away are not a gateway that is gone");
    let statistics = bus.statistics();
    assert_eq!((statistics.in_flight, statistics.failed, statistics.delivered, statistics.hints_lost), (0, 11, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_record_holds_arrives_in_parts() {
    with(settings(), |bus| async move {
        let gateway = gateway();
        let told = bus.subscribe(&gateway, "g").await.unwrap();
        let tasks = bus.subscribe(&Topic::Task, "g").await.unwrap();
        let messages: Vec<_> = (1..=200).map(|seq| message(seq, 64 * 1024)).collect();
        let fanout = Task::Fanout { messages: messages.clone(), members_seq: Seq(1), from: vec![None; 200] };
        bus.publish(&Topic::Task, vec![Record::Task(Arc::new(fanout))]).await.unwrap().safe().await.unwrap();
        let (mut seqs, mut parts) = (Vec::new(), 0);
        while seqs.len() < 200 {
            let batch = next(&*tasks, 10).await;
            for record in &batch.records {
                let Record::Task(task) = record else { panic!("{record:?}") };
                let Task::Fanout { messages, .. } = &**task else { panic!("{task:?}") };
                seqs.extend(messages.iter().map(|message| message.seq.0));
                parts += 1;
            }
            tasks.commit(batch.position).await.unwrap();
        }
        // All fragments have one key, so they stay in order.
        assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
        assert!(parts >= 13, "{parts} parts");
        let deliveries = messages
            .iter()
            .map(|message| Delivery { targets: vec![Target { connection: 1, epoch: 1 }], payloads: vec![Payload::Message(message.clone())] })
            .collect();
        let record = Record::Downstream(Arc::new(Downstream { deliveries, ..Downstream::default() }));
        bus.publish(&gateway, vec![record]).await.unwrap().safe().await.unwrap();
        let mut seqs = Vec::new();
        while seqs.len() < 200 {
            let batch = next(&*told, 10).await;
            for record in &batch.records {
                let Record::Downstream(part) = record else { panic!("{record:?}") };
                for payload in part.deliveries.iter().flat_map(|delivery| &delivery.payloads) {
                    let Payload::Message(message) = payload else { panic!("{payload:?}") };
                    seqs.push(message.seq.0);
                }
            }
            told.commit(batch.position).await.unwrap();
        }
        assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
        assert_eq!(bus.publish(&Topic::Upstream, vec![upstream_of(key(), 1, 1_100_000)]).await.unwrap_err().code, Code::TooLarge);
    })
    .await;
}

/// What a gateway was to be told before it subscribed was for connections that are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_hears_what_comes_after_it_subscribed_and_nothing_before() {
    with(settings(), |bus| async move {
        let gateway = gateway();
        bus.ensure_topics(std::slice::from_ref(&gateway)).await.unwrap();
        for round in 0..4_u64 {
            let publish = |n| bus.publish(&gateway, vec![downstream(10 * round + n)]);
            publish(1).await.unwrap().safe().await.unwrap();
            let told = bus.subscribe(&gateway, "g").await.unwrap();
            publish(2).await.unwrap().safe().await.unwrap();
            publish(3).await.unwrap().safe().await.unwrap();
            let base = (10 * round).cast_signed();
            let batch = next(&*told, 1).await;
            assert_eq!(numbers(&batch), [base + 2]);
            told.release(batch.position).await.unwrap();
            assert_eq!(take(&*told, 2).await, [base + 2, base + 3]);
            publish(4).await.unwrap().safe().await.unwrap();
        }
    })
    .await;
}

/// A gateway that was removed holds nobody up; when it is there again, it hears.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_there_loses_its_hints_quickly_and_hears_again_when_it_returns() {
    let settings = settings();
    let own = settings.clone();
    with(settings, |bus| async move {
        let gateway = gateway();
        bus.ensure_topics(&[Topic::Upstream, Topic::DeadLetter]).await.unwrap();
        for round in 0..3 {
            let started = Instant::now();
            bus.publish(&gateway, vec![downstream(1)]).await.unwrap().safe().await.unwrap();
            println!("round {round}: {:?} to lose a hint", started.elapsed());
            assert!(started.elapsed() < Duration::from_secs(3), "{:?} for a gateway that is not there", started.elapsed());
        }
        assert_eq!(bus.statistics().hints_lost, 3);
        // The gateway is another process.
        let other = KafkaBus::connect(own).unwrap();
        let told = other.subscribe(&gateway, "g").await.unwrap();
        let started = Instant::now();
        let heard = tokio::spawn(async move { numbers(&next(&*told, 1).await) });
        while !heard.is_finished() {
            bus.publish(&gateway, vec![downstream(2)]).await.unwrap().safe().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("{:?} until a new gateway hears", started.elapsed());
        assert_eq!(heard.await.unwrap(), [2]);
        other.close().await.unwrap();
        // Gone again, with a record under way or not.
        bus.delete_topics(std::slice::from_ref(&gateway)).await.unwrap();
        for round in 0..3 {
            let started = Instant::now();
            bus.publish(&gateway, vec![downstream(1)]).await.unwrap().safe().await.unwrap();
            println!("after its removal, round {round}: {:?}", started.elapsed());
            assert!(started.elapsed() < Duration::from_secs(5), "{:?} for a gateway that was removed", started.elapsed());
        }
        // Everything else goes on meanwhile.
        let error = KafkaBus::connect(KafkaSettings { prefix: "nothing-of-this.".into(), ..crate::settings() })
            .unwrap()
            .publish(&Topic::Upstream, vec![upstream(key(), 1)])
            .await
            .unwrap_err();
        assert_eq!(error.code, Code::Unavailable, "a message is no hint");
        nothing_comes(&*bus.subscribe(&Topic::Upstream, "g").await.unwrap()).await;
    })
    .await;
}
