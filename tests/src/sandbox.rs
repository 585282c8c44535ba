//! A server in this process, with a clock that tests move.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use gochat_core::{
    ports::PushProvider,
    time::{Clock, Timestamp},
};
use gochat_server::{
    config::Config,
    wire::{self, Parts, Running},
};
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, Socket, http};

/// A server with everything in one process and its data in a folder of its own.
#[derive(Debug)]
pub struct Sandbox {
    pub address: SocketAddr,
    pub running: Running,
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
    /// Starts a server whose roles pass records as they are.
    pub async fn start() -> Sandbox {
        Sandbox::start_with(false).await
    }

    /// Starts a server whose roles pass every record through its protobuf form.
    pub async fn start_wire() -> Sandbox {
        Sandbox::start_with(true).await
    }

    /// Starts a server with settings and a push provider of the test's own.
    pub async fn start_pushing(more: &[(&str, &str)], push: Arc<dyn PushProvider>) -> Sandbox {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ShiftedClock::default());
        let parts = Parts { push: Some(push), ..parts(clock.clone(), false) };
        let running = wire::start(settings(&folder, more), parts).await.expect("the server starts");
        Sandbox { address: running.address(), running, clock, folder }
    }

    async fn start_with(records_as_bytes: bool) -> Sandbox {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ShiftedClock::default());
        let running = wire::start(settings(&folder, &[]), parts(clock.clone(), records_as_bytes)).await.expect("the server starts");
        Sandbox { address: running.address(), running, clock, folder }
    }

    /// Moves the server's clock forward.
    pub fn advance(&self, by: Duration) {
        self.clock.0.fetch_add(by.as_millis() as i64, Ordering::Relaxed);
    }

    /// The server's time in milliseconds.
    pub fn now(&self) -> i64 {
        self.clock.now().0
    }

    /// The folder that holds the server's data.
    pub fn data(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A request to the admin listener.
    pub async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let (address, token) = (self.running.admin_address().expect("an admin listener"), self.running.admin_token());
        http(address, method, path, Some(token), &[], body.as_ref()).await
    }

    /// Many users in one group.
    pub async fn crowd(&self, prefix: &str, size: usize) -> Crowd {
        let admin = self.running.admin_address().expect("an admin listener");
        let made = provision(admin, self.running.admin_token(), json!({"users": size, "prefix": prefix, "groups": [{"members": size}]})).await;
        let users = made["users"].as_array().unwrap().iter().map(|user| user["access_token"].as_str().unwrap().to_owned()).collect();
        Crowd { address: self.address, conversation: made["conversations"][0]["id"].as_str().unwrap().into(), tokens: users }
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
    pub address: SocketAddr,
    pub conversation: String,
    pub tokens: Vec<String>,
}

impl Crowd {
    /// Connects a member.
    pub async fn connect(&self, member: usize) -> Socket {
        let mut socket = Socket::open(self.address).await;
        let ready = socket.request(json!({"type": "auth", "token": self.tokens[member]})).await;
        assert_eq!(ready["type"], "ready", "{ready}");
        socket
    }
}

/// Free ports, cheap passwords, and no limit that many users behind one address would meet; and what a test wants beside.
fn settings(folder: &TempDir, more: &[(&str, &str)]) -> Config {
    let data = folder.path().to_str().expect("a readable path");
    let usual = [
        ("listen", "127.0.0.1:0"),
        ("admin.listen", "127.0.0.1:0"),
        ("data", data),
        ("passwords.iterations", "1000"),
        ("limits.connections_per_address", "20000"),
        ("limits.sign_ins_per_minute", "60000"),
        ("limits.sign_ins_burst", "60000"),
    ];
    Config::with(&[&usual[..], more].concat()).expect("the settings")
}

fn parts(clock: Arc<ShiftedClock>, records_as_bytes: bool) -> Parts {
    Parts { clock, records_as_bytes, ..Parts::default() }
}
