//! A broker that is killed under load and started again. Has a broker of its own: `GOCHAT_TEST_KAFKA_JARS` names the folder of
//! Apache Kafka's jars (default `$XDG_CACHE_HOME/gochat/kafka-4.4.0/jars`, or below `~/.cache`); `java` is on the path.

use std::{
    collections::HashMap,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use gochat_core::{
    error::Code,
    ports::{Bus, Topic},
};
use gochat_transport::bus::{KafkaBus, KafkaSettings};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{SOON, key, next, number, settings, task, upstream};

/// Below the ports that clients' sockets take; none is given twice.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(19_100);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 19_200, "no free port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

struct Broker {
    folder: PathBuf,
    jars: String,
    port: u16,
    process: Option<Child>,
}

impl Broker {
    fn new() -> Self {
        let cache = std::env::var("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|_| Path::new(&std::env::var("HOME").unwrap()).join(".cache"));
        let jars = std::env::var("GOCHAT_TEST_KAFKA_JARS").map(PathBuf::from).unwrap_or_else(|_| cache.join("gochat/kafka-4.4.0/jars"));
        assert!(jars.is_dir(), "no jars of Kafka in {}: run ./deploy/local.sh up --servers-only, or set GOCHAT_TEST_KAFKA_JARS", jars.display());
        let folder = std::env::temp_dir().join(format!("gochat-kafka-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).unwrap();
        let (port, controller) = (free_port(), free_port());
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\nlog.dirs={}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\n\
             share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\nnum.network.threads=2\nnum.io.threads=4\nlog.cleaner.dedupe.buffer.size=2097152\n\
             auto.create.topics.enable=false\nbroker.session.timeout.ms=1500\nbroker.heartbeat.interval.ms=300\n",
            folder.join("data").display()
        );
        std::fs::write(folder.join("server.properties"), properties).unwrap();
        let broker = Broker { folder, jars: format!("{}/*", jars.display()), port, process: None };
        let mut format = broker.java("kafka.tools.StorageTool");
        let formatted = format.args(["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"]).arg(broker.folder.join("server.properties")).status().unwrap();
        assert!(formatted.success());
        broker
    }

    fn java(&self, class: &str) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xms256m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp"]);
        java.arg(&self.jars).arg(class).stdout(Stdio::null()).stderr(Stdio::null());
        java
    }

    fn start(&mut self) {
        let properties = self.folder.join("server.properties");
        self.process = Some(self.java("kafka.Kafka").arg(properties).spawn().unwrap());
    }

    /// As the power would.
    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_started_again_loses_nothing_that_was_kept() {
    let mut broker = Broker::new();
    broker.start();
    let settings = KafkaSettings { brokers: format!("127.0.0.1:{}", broker.port), request_timeout: Duration::from_secs(60), ..settings() };
    let bus = KafkaBus::connect(settings).unwrap();
    bus.ensure_topics(&[Topic::Upstream, Topic::DeadLetter]).await.unwrap();
    let subscription = bus.subscribe(&Topic::Upstream, "g").await.unwrap();
    let keys: Vec<_> = (0..20).map(|_| key()).collect();

    let seen: Arc<Mutex<Vec<(usize, i64, Instant)>>> = Arc::default();
    let consumer = tokio::spawn({
        let (seen, keys) = (seen.clone(), keys.clone());
        async move {
            loop {
                let Ok(batch) = subscription.next(200).await else { return };
                let now = Instant::now();
                let at = |record| keys.iter().position(|key| gochat_core::ports::Record::key(record) == Some(*key)).unwrap();
                seen.lock().unwrap().extend(batch.records.iter().map(|record| (at(record), number(record), now)));
                // Refused while the group forms anew: what it stands for comes again then.
                if let Err(error) = subscription.commit(batch.position).await {
                    assert_eq!(error.code, Code::InvalidRequest);
                }
            }
        }
    });
    let kept: Arc<Mutex<Vec<(usize, i64, Instant, Instant)>>> = Arc::default();
    let (mut pending, mut killed, mut given) = (Vec::new(), None, 0);
    let started = Instant::now();
    while killed.is_none_or(|killed: Instant| killed.elapsed() < Duration::from_secs(12)) {
        for (at, key) in keys.iter().copied().enumerate() {
            let (bus, kept, n) = (bus.clone(), kept.clone(), given + 1);
            let mut publication = Box::pin(async move {
                let since = Instant::now();
                let mut receipt = bus.publish(&Topic::Upstream, vec![upstream(key, n)]).await?;
                receipt.safe().await?;
                kept.lock().unwrap().push((at, n, since, Instant::now()));
                Ok::<_, gochat_core::error::Error>(())
            });
            // Polled here first, so that records are given in this order.
            if publication.as_mut().now_or_never().is_none() {
                pending.push(tokio::spawn(publication));
            }
        }
        given += 1;
        tokio::time::sleep(Duration::from_millis(40)).await;
        if killed.is_none() && started.elapsed() > Duration::from_secs(4) {
            killed = Some(Instant::now());
            broker.kill();
            broker.start();
        }
    }
    let killed = killed.unwrap();
    for publication in pending {
        timeout(Duration::from_secs(60), publication).await.expect("a report").unwrap().expect("nothing ran out of time");
    }
    let expected = keys.len() * given as usize;
    timeout(Duration::from_secs(60), async {
        loop {
            let mut distinct: Vec<_> = seen.lock().unwrap().iter().map(|(at, n, _)| (*at, *n)).collect();
            distinct.sort_unstable();
            distinct.dedup();
            if distinct.len() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("everything that was kept is consumed");
    assert_eq!(kept.lock().unwrap().len(), expected);
    assert_eq!(bus.statistics().failed, 0);
    let (mut last, mut again) = (HashMap::new(), 0);
    for (at, n, _) in seen.lock().unwrap().iter() {
        let last = last.entry(*at).or_insert(0);
        if *n <= *last {
            again += 1;
        } else {
            assert_eq!(*n, *last + 1, "a record of key {at} overtook another");
            *last = *n;
        }
    }
    let first_kept = kept.lock().unwrap().iter().filter(|(_, _, since, _)| *since > killed).map(|(.., at)| *at).min().unwrap() - killed;
    let first_seen = seen.lock().unwrap().iter().map(|(.., at)| *at).filter(|at| *at > killed + Duration::from_millis(200)).min().unwrap() - killed;
    println!("{expected} records kept; first kept {first_kept:?}, first consumed {first_seen:?} after the kill; {again} handed out again");
    assert!(bus.ready());
    bus.close().await.unwrap();
    consumer.await.unwrap();
}

/// A role may start before its brokers, and outlive them.
#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_was_there_before_its_broker_works_once_it_comes() {
    let mut broker = Broker::new();
    let brokers = format!("127.0.0.1:{}", broker.port);
    let bus = KafkaBus::connect(KafkaSettings { brokers, request_timeout: Duration::from_secs(1), ..settings() }).unwrap();
    assert_eq!(bus.ensure_topics(&[Topic::Task]).await.unwrap_err().code, Code::Unavailable);
    bus.offer(&Topic::Task, vec![task(key(), 1)]).unwrap();
    broker.start();
    timeout(Duration::from_secs(60), async {
        while bus.ensure_topics(&[Topic::Task]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("the broker comes");
    let subscription = bus.subscribe(&Topic::Task, "g").await.unwrap();
    bus.publish(&Topic::Task, vec![task(key(), 2)]).await.unwrap().safe().await.unwrap();
    let first = next(&*subscription, 1).await;
    // What was offered before the topic was there waits only as long as a new topic may take to be known.
    assert!([1, 2].contains(&number(&first.records[0])));
    subscription.commit(first.position).await.unwrap();
    timeout(SOON, bus.close()).await.unwrap().unwrap();
    // It is closed without its broker, too.
    let bus = KafkaBus::connect(KafkaSettings { brokers: format!("127.0.0.1:{}", broker.port), ..settings() }).unwrap();
    let subscription = bus.subscribe(&Topic::Task, "g").await.unwrap();
    broker.kill();
    timeout(Duration::from_secs(25), bus.close()).await.expect("an end").ok();
    assert_eq!(subscription.next(1).await.unwrap_err().code, Code::Unavailable);
}
