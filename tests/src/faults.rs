//! Four services under load while their parts fail, one after the other, on servers of their own: nothing that was acked is lost,
//! nothing is stored twice, every sender's order is kept, and every follower is up to date again soon after.
//!
//! `GOCHAT_TEST_FAULT_ROUNDS` says how often everything fails (default 1; the full run takes 3).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gochat_core::ports::{Bus, Topic};
use gochat_transport::bus::{KafkaBus, KafkaSettings};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    task::{JoinSet, block_in_place},
    time::{Instant, sleep, timeout},
};

use crate::{
    checker::{self, Dump, read_log},
    client::User,
    load::{Follower, History, Progress, Sender, id, pairs, pushes, token},
    process,
    sandbox::{Sandbox, provision},
    servers::{self, Namespace},
};

const PAIRS: usize = 8;
/// One group whose members are told directly and one that goes through the task role.
const GROUPS: [usize; 2] = [5, 120];
/// Ports of this deployment: above those that `free_port` hands out.
const BASE: u16 = 32_200;
/// From the end of a fault until everybody has everything that was acked by then: heads come every 15 s, routes are renewed every
/// 5 s, and a sender whose gateway froze notices after 10 s.
const CAUGHT_UP: Duration = Duration::from_secs(45);

/// Something that happens to a part, and ends.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// `kill -9`, and a new start after a while.
    Kill(&'static str),
    /// SIGTERM, with its drain, and a new start.
    Restart(&'static str),
    /// SIGSTOP, and SIGCONT after a while.
    Pause(&'static str, Duration),
    /// Redis forgets everything.
    Flush,
    /// One more instance comes, takes its share, and goes.
    JoinAndLeave(&'static str),
}

const FAULTS: [Fault; 15] = [
    Fault::Restart("gateway-1"),
    Fault::Restart("logic"),
    Fault::Restart("repo"),
    Fault::Restart("task"),
    Fault::Kill("gateway-1"),
    Fault::Kill("logic"),
    Fault::Kill("repo"),
    Fault::Kill("task"),
    Fault::Flush,
    Fault::Kill("redis"),
    Fault::Kill("mariadb"),
    Fault::Kill("kafka"),
    Fault::JoinAndLeave("logic-2"),
    Fault::Pause("gateway-2", Duration::from_secs(30)),
    Fault::Pause("logic", Duration::from_secs(30)),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_nothing_that_was_acked_is_lost_and_everybody_catches_up() {
    let rounds: usize = std::env::var("GOCHAT_TEST_FAULT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let deployment = block_in_place(|| Deployment::up(BASE));
    let groups: Vec<Value> = GROUPS.iter().map(|size| json!({"members": size})).collect();
    let wanted = json!({"users": 130, "prefix": "fault", "devices_per_user": 2, "groups": groups});
    let crowd = provision(deployment.admin(), &deployment.admin_token(), wanted).await;
    let load = Load::start(&deployment, &crowd).await;
    load.caught_up("the start").await;
    for round in 0..rounds {
        for fault in FAULTS {
            let before = load.history.acked();
            let began = Instant::now();
            deployment.suffer(fault).await;
            let ended = began.elapsed();
            load.caught_up(&format!("{fault:?} in round {round}")).await;
            println!("{fault:?}: {ended:?}, caught up after {:?}, {} acked meanwhile", began.elapsed() - ended, load.history.acked() - before);
            assert!(load.history.acked() > before, "nobody could send any more after {fault:?}");
        }
    }
    load.end(&deployment, &crowd).await;
}

/// Everything that was ever sent comes once more, as after a loss of all offsets: nobody sees anything of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_of_the_upstream_topic_changes_nothing_that_anybody_sees() {
    let space = Namespace::new();
    let server = Sandbox::services(&space, &[("store.url", &space.mysql)]).await;
    let (ana, bo) = (User::register(server.address(), "ana").await, User::register(server.address(), "bo").await);
    let chat = ana.single(&bo).await;
    let (mut at_ana, mut at_bo) = (ana.connect().await, bo.connect().await);
    for number in 0..40 {
        at_ana.say(&chat, &format!("{number}")).await;
        at_bo.say(&chat, &format!("to {number}")).await;
    }
    let (seen_by_ana, seen_by_bo) = (at_ana.drain(Duration::from_secs(1)).await, at_bo.drain(Duration::from_secs(1)).await);
    let messages = |frames: &[Value]| frames.iter().filter(|frame| frame["type"] == "message").count();
    assert_eq!((messages(&seen_by_ana), messages(&seen_by_bo)), (40, 40));
    let before = ana.read_all(&chat).await;

    let settings = KafkaSettings { brokers: servers::kafka(), prefix: format!("{}-", space.name), partitions: 4, ..KafkaSettings::default() };
    let bus = KafkaBus::connect(settings).unwrap();
    let again = bus.subscribe(&Topic::Upstream, "replay").await.unwrap();
    let mut replayed = 0;
    while replayed < 80 {
        let batch = timeout(Duration::from_secs(20), again.next(1000)).await.expect("the topic holds every message").unwrap();
        replayed += batch.records.len();
        let mut receipt = bus.publish(&Topic::Upstream, batch.records).await.unwrap();
        receipt.safe().await.unwrap();
        again.commit(batch.position).await.unwrap();
    }
    // What is sent now is decided behind everything that was replayed before it in its partition.
    at_ana.say(&chat, "after the replay").await;
    assert_eq!(at_bo.next_of("message").await["text"], "0", "a repeated push is a hint that the client knows already");
    let after = ana.read_all(&chat).await;
    assert_eq!(after[..before.len()], before[..]);
    assert_eq!(after.len(), before.len() + 1);
}

/// Four services with two gateways on a MariaDB, a Redis and a Kafka of their own, by the script that the README names.
struct Deployment {
    folder: TempDir,
    base: u16,
}

impl Deployment {
    fn up(base: u16) -> Deployment {
        let folder = tempfile::tempdir().unwrap();
        let settings = "passwords.iterations = 1000\nlimits.connections_per_address = 10000\nlog.level = 'warn'\n";
        std::fs::write(folder.path().join("gochat.toml"), settings).unwrap();
        let deployment = Deployment { folder, base };
        deployment.script(&["up", "--small", "--base", &base.to_string()]);
        deployment
    }

    /// Runs the script on this deployment.
    fn script(&self, arguments: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local.sh");
        let mut command = Command::new(script);
        command.args(arguments).arg("--data").arg(self.folder.path()).env("GOCHAT_BIN", process::binary());
        let output = command.output().expect("the script starts");
        assert!(output.status.success(), "local.sh {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    async fn suffer(&self, fault: Fault) {
        let script = |arguments: &[&str]| block_in_place(|| self.script(arguments));
        match fault {
            Fault::Kill(part) => {
                script(&["kill", part]);
                sleep(Duration::from_secs(1)).await;
                script(&["start", part]);
            }
            Fault::Restart(part) => {
                script(&["stop", part]);
                script(&["start", part]);
            }
            Fault::Pause(part, time) => {
                script(&["pause", part]);
                sleep(time).await;
                script(&["resume", part]);
            }
            Fault::Flush => {
                let port = (self.base + 71).to_string();
                let flushed = Command::new("redis-cli").args(["-h", "127.0.0.1", "-p", &port, "FLUSHALL"]).status().expect("redis-cli is there");
                assert!(flushed.success());
            }
            Fault::JoinAndLeave(part) => {
                script(&["start", part]);
                sleep(Duration::from_secs(5)).await;
                script(&["stop", part]);
            }
        }
    }

    fn gateways(&self) -> Vec<SocketAddr> {
        [1, 2].map(|gateway| SocketAddr::from(([127, 0, 0, 1], self.base + gateway))).to_vec()
    }

    fn admin(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.base + 21))
    }

    fn admin_token(&self) -> String {
        let secret: PathBuf = self.folder.path().join("secrets/admin-token");
        std::fs::read_to_string(secret).expect("the admin token").trim().to_owned()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for part in ["gateway-1", "gateway-2", "logic", "repo", "task"] {
                let log = std::fs::read_to_string(self.folder.path().join(format!("run/{part}.log"))).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- {part}\n{}", lines[lines.len().saturating_sub(15)..].join("\n"));
            }
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local.sh");
        let _ = Command::new(script).args(["down", "--wipe", "--data"]).arg(self.folder.path()).output();
    }
}

/// Senders and followers at both gateways.
struct Load {
    history: History,
    progress: Progress,
    conversations: Vec<(usize, String)>,
    groups: Vec<String>,
    stop: Arc<AtomicBool>,
    senders: JoinSet<()>,
    followers: JoinSet<()>,
}

impl Load {
    async fn start(deployment: &Deployment, crowd: &Value) -> Load {
        let gateways = deployment.gateways();
        let pairs = pairs(gateways[0], crowd, PAIRS).await;
        let groups: Vec<String> = crowd["conversations"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
        let in_groups = [(0, groups[0].clone()), (3, groups[0].clone()), (1, groups[1].clone()), (2, groups[1].clone())];
        let conversations: Vec<(usize, String)> = pairs.into_iter().chain(in_groups).collect();
        let (history, progress, stop) = (History::default(), Progress::default(), Arc::<AtomicBool>::default());
        let (mut senders, mut followers) = (JoinSet::new(), JoinSet::new());
        for (number, (user, conversation)) in conversations.iter().enumerate() {
            let mut gateways = gateways.clone();
            gateways.rotate_left(number % 2);
            let sender = Sender {
                gateways: gateways.clone(),
                token: token(crowd, *user),
                user: id(crowd, *user),
                conversation: conversation.clone(),
                pause: Duration::from_millis(40),
                history: history.clone(),
            };
            let stop = stop.clone();
            senders.spawn(async move { sender.keep_sending(&stop).await });
            // With the user's second device, at the other gateway.
            gateways.rotate_left(1);
            let follower = Follower {
                gateways,
                token: crowd["users"][*user]["more_devices"][0]["access_token"].as_str().unwrap().to_owned(),
                user: id(crowd, *user),
                conversations: vec![conversation.clone()],
                history: history.clone(),
                progress: progress.clone(),
            };
            followers.spawn(follower.follow());
        }
        Load { history, progress, conversations, groups, stop, senders, followers }
    }

    /// Waits until every follower has what is acked by now, and somebody has sent something since.
    async fn caught_up(&self, what: &str) {
        let (began, acked) = (Instant::now(), self.history.acked());
        let heads = self.history.heads();
        loop {
            let behind = self.progress.behind(&heads);
            if behind.is_empty() && self.history.acked() > acked {
                return;
            }
            assert!(began.elapsed() < CAUGHT_UP, "after {what} these are behind: {behind:?}; {} acked since", self.history.acked() - acked);
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends the load and judges it.
    async fn end(mut self, deployment: &Deployment, crowd: &Value) {
        self.stop.store(true, Ordering::Relaxed);
        while self.senders.join_next().await.transpose().expect("no sender fails").is_some() {}
        let gateway = deployment.gateways()[0];
        let heads = self.history.heads();
        let began = Instant::now();
        while !self.progress.behind(&heads).is_empty() {
            assert!(began.elapsed() < CAUGHT_UP, "in the end these are behind: {:?}", self.progress.behind(&heads));
            sleep(Duration::from_millis(100)).await;
        }
        self.followers.shutdown().await;
        let mut history = self.history.take();
        let mut dump = Dump { logs: BTreeMap::new(), away: Vec::new() };
        for (user, conversation) in &self.conversations {
            let log = read_log(gateway, &token(crowd, *user), conversation).await;
            dump.logs.insert(conversation.clone(), log);
        }
        for conversation in &self.groups {
            let (away, recorded) = pushes(gateway, crowd, conversation, &dump.logs[conversation]).await;
            dump.away.push(away);
            history.extend(recorded);
        }
        let report = checker::check(&history, &dump).unwrap_or_else(|violation| panic!("{violation}"));
        println!("{report:?}");
        assert_eq!(report.unknown + report.refused, 0, "every sender repeated until its ack");
        assert!(report.acked > 1000 && report.received > 1000, "the test did not load the services: {report:?}");
    }
}
