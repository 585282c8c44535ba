//! A server in this process, with a clock that tests move: one with everything, or four services with two gateways on the real
//! MariaDB, Redis and Kafka. Tests cannot tell.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use gochat_core::{
    ports::PushProvider,
    time::{Clock, Timestamp},
};
use gochat_server::{
    config::Config,
    roles::Roles,
    wire::{self, Parts, Running},
};
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::{Answer, Socket, http},
    servers::Namespace,
};

/// A server with its data in a place of its own.
#[derive(Debug)]
pub struct Sandbox {
    /// What clients connect to.
    gateways: Vec<Running>,
    /// What operators ask; the gateway where there is nothing else.
    logic: Option<Running>,
    /// The other roles.
    behind: Vec<Running>,
    next: AtomicUsize,
    clock: Arc<ShiftedClock>,
    folder: TempDir,
}

/// The system's time plus what a test has added.
#[derive(Debug, Default)]
struct ShiftedClock(AtomicI64);

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(now.as_millis() as i64 + self.0.load(Ordering::Relaxed))
    }
}

impl Sandbox {
    /// Starts one process whose roles pass records as they are.
    pub async fn start() -> Sandbox {
        Sandbox::one_process(&[], |parts| parts).await
    }

    /// Starts one process whose roles pass every record through its protobuf form.
    pub async fn start_wire() -> Sandbox {
        Sandbox::one_process(&[], |parts| Parts { records_as_bytes: true, ..parts }).await
    }

    /// Starts one process with settings and a push provider of the test's own.
    pub async fn start_pushing(more: &[(&str, &str)], push: Arc<dyn PushProvider>) -> Sandbox {
        Sandbox::one_process(more, |parts| Parts { push: Some(push), ..parts }).await
    }

    /// Starts one process with settings of the test's own.
    pub async fn start_with(more: &[(&str, &str)]) -> Sandbox {
        Sandbox::one_process(more, |parts| parts).await
    }

    async fn one_process(more: &[(&str, &str)], change: impl FnOnce(Parts) -> Parts) -> Sandbox {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::<ShiftedClock>::default());
        let running = wire::start(settings(&folder, "all", more), change(parts(&clock, Roles::ALL))).await.expect("the server starts");
        Sandbox { gateways: vec![running], logic: None, behind: Vec::new(), next: AtomicUsize::new(0), clock, folder }
    }

    /// Starts repo, logic, task and two gateways, each with nothing of the others but what goes over the wire, on MariaDB, Redis
    /// and Kafka.
    pub async fn start_services() -> Sandbox {
        let space = Namespace::new();
        Sandbox::services(&space, &[("store.url", &space.mysql)]).await
    }

    /// The same, with these settings of the store.
    pub async fn services(space: &Namespace, store: &[(&str, &str)]) -> Sandbox {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::<ShiftedClock>::default());
        let start = async |name: &str, roles: Roles, more: &[(&str, &str)]| {
            let shared = space.settings();
            let shared: Vec<(&str, &str)> = shared.iter().map(|(key, value)| (*key, value.as_str())).collect();
            let settings = settings(&folder, name, &[&shared[..], more].concat());
            wire::start(settings, parts(&clock, roles)).await.unwrap_or_else(|error| panic!("{name} starts: {error:?}"))
        };
        let repo = start("repo", Roles::REPO, store).await;
        let repo_url = format!("http://{}", repo.address());
        let logic = start("logic", Roles::LOGIC, &[("repo.urls", &repo_url)]).await;
        let task = start("task", Roles::TASK, &[("repo.urls", &repo_url)]).await;
        let logic_url = format!("http://{}", logic.address());
        let mut gateways = Vec::new();
        for id in ["gateway-1", "gateway-2"] {
            gateways.push(start(id, Roles::GATEWAY, &[("logic.urls", &logic_url), ("gateway.id", id)]).await);
        }
        Sandbox { gateways, logic: Some(logic), behind: vec![task, repo], next: AtomicUsize::new(0), clock, folder }
    }

    /// Where the next client connects: to one gateway after the other.
    pub fn address(&self) -> SocketAddr {
        self.gateways[self.next.fetch_add(1, Ordering::Relaxed) % self.gateways.len()].address()
    }

    /// Drains and ends all roles, gateways first.
    pub async fn shutdown(self) {
        for running in self.gateways.into_iter().chain(self.logic).chain(self.behind) {
            running.shutdown(Duration::from_secs(5)).await;
        }
    }

    fn operators(&self) -> (SocketAddr, &str) {
        let running = self.logic.as_ref().unwrap_or(&self.gateways[0]);
        (running.admin_address().expect("an admin listener"), running.admin_token())
    }

    /// Moves the server's clock forward.
    pub fn advance(&self, by: Duration) {
        self.clock.0.fetch_add(by.as_millis() as i64, Ordering::Relaxed);
    }

    /// The server's time in milliseconds.
    pub fn now(&self) -> i64 {
        self.clock.now().0
    }

    /// A secret that all roles share.
    pub fn secret(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join("secrets").join(name)).expect("the secret").trim().to_owned()
    }

    /// A request to the admin listener.
    pub async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let (address, token) = self.operators();
        http(address, method, path, Some(token), &[], body.as_ref()).await
    }

    /// Many users in one group.
    pub async fn crowd(&self, prefix: &str, size: usize) -> Crowd {
        let (admin, token) = self.operators();
        let made = provision(admin, token, json!({"users": size, "prefix": prefix, "groups": [{"members": size}]})).await;
        let users = made["users"].as_array().unwrap().iter().map(|user| user["access_token"].as_str().unwrap().to_owned()).collect();
        Crowd {
            addresses: self.gateways.iter().map(Running::address).collect(),
            conversation: made["conversations"][0]["id"].as_str().unwrap().into(),
            tokens: users,
        }
    }
}

/// Makes users, devices and groups in bulk through the admin listener (decision 37).
pub async fn provision(admin: SocketAddr, token: &str, wanted: Value) -> Value {
    let answer = http(admin, Method::POST, "/admin/provision", Some(token), &[], Some(&wanted)).await;
    assert!(answer.status.is_success(), "{answer:?}");
    answer.body
}

/// Users who are members of one group.
#[derive(Debug)]
pub struct Crowd {
    pub addresses: Vec<SocketAddr>,
    pub conversation: String,
    pub tokens: Vec<String>,
}

impl Crowd {
    /// Connects a member: to one gateway after the other, by its number.
    pub async fn connect(&self, member: usize) -> Socket {
        let mut socket = Socket::open(self.addresses[member % self.addresses.len()]).await;
        let ready = socket.request(json!({"type": "auth", "token": self.tokens[member]})).await;
        assert_eq!(ready["type"], "ready", "{ready}");
        socket
    }
}

/// Free ports, cheap passwords, and no limit that many users behind one address would meet; and what a test wants beside.
fn settings(folder: &TempDir, name: &str, more: &[(&str, &str)]) -> Config {
    let (data, secrets) = (folder.path().join(name), folder.path().join("secrets"));
    let usual = [
        ("listen", "127.0.0.1:0"),
        ("admin.listen", "127.0.0.1:0"),
        ("grpc.listen", "127.0.0.1:0"),
        ("data", data.to_str().expect("a readable path")),
        ("secrets", secrets.to_str().expect("a readable path")),
        ("passwords.iterations", "1000"),
        ("limits.connections_per_address", "20000"),
        ("limits.sign_ins_per_minute", "60000"),
        ("limits.sign_ins_burst", "60000"),
    ];
    Config::with(&[&usual[..], more].concat()).expect("the settings")
}

fn parts(clock: &Arc<ShiftedClock>, roles: Roles) -> Parts {
    Parts { clock: clock.clone(), roles, ..Parts::default() }
}
