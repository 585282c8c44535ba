//! Connections with a prefix of their own, and servers that may be killed.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use gochat_core::{
    ids::{ConversationId, DeviceId, UserId},
    ports::{Route, Store},
};
use gochat_storage::{
    redis::{Redis, RedisSettings},
    sqlite::{self, SqliteSettings},
};
use tempfile::TempDir;
use uuid::Uuid;

pub const LEASE: Duration = Duration::from_secs(60);

pub fn settings(urls: &[String]) -> RedisSettings {
    RedisSettings { urls: urls.to_vec(), prefix: format!("test-{}:", Uuid::now_v7().simple()), ..RedisSettings::default() }
}

/// The single server.
pub async fn single() -> Redis {
    let url = std::env::var("GOCHAT_TEST_REDIS").unwrap_or_else(|_| "redis://127.0.0.1:16379".into());
    reachable(settings(&[url])).await
}

/// The Cluster.
pub async fn cluster() -> Redis {
    let urls = std::env::var("GOCHAT_TEST_REDIS_CLUSTER")
        .unwrap_or_else(|_| "redis://127.0.0.1:17001,redis://127.0.0.1:17002,redis://127.0.0.1:17003".into());
    reachable(settings(&urls.split(',').map(str::to_owned).collect::<Vec<_>>())).await
}

async fn reachable(settings: RedisSettings) -> Redis {
    let urls = settings.urls.join(", ");
    let redis = Redis::connect(settings).await.unwrap();
    if let Err(error) = redis.ping().await {
        panic!("{urls} cannot be reached: {error:?}\nstart the servers of the tests first: ./deploy/local.sh up --servers-only");
    }
    redis
}

/// A server of a test's own. Killed when it is dropped.
pub struct Server {
    pub port: u16,
    process: Option<Child>,
    folder: TempDir,
    more: Vec<String>,
}

impl Server {
    pub fn start() -> Server {
        Server::start_on(free_port(), vec![])
    }

    /// A node that is to become part of a Cluster.
    pub fn start_node() -> Server {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Beside the ports of the Cluster of the other tests.
        let port = (0..40)
            .map(|_| 17_020 + (std::process::id() as u16 % 40 + NEXT.fetch_add(1, Ordering::Relaxed)) % 80)
            .find(|port| [*port, *port + 1000].iter().all(|port| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).is_ok()))
            .expect("a free port");
        let bus = (port + 1000).to_string();
        let more = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus].map(str::to_owned);
        Server::start_on(port, more.to_vec())
    }

    fn start_on(port: u16, more: Vec<String>) -> Server {
        let mut server = Server { port, process: None, folder: tempfile::tempdir().unwrap(), more };
        server.restart();
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Empty, on the same port.
    pub fn restart(&mut self) {
        self.kill();
        self.process = Some(spawn(self.port, self.folder.path(), &self.more));
        let began = Instant::now();
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "redis-server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// SIGSTOP or SIGCONT: it stays connected and says nothing.
    pub fn signal(&self, signal: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(port: u16, folder: &Path, more: &[String]) -> Child {
    let mut server = Command::new("redis-server");
    server.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()]).arg("--dir").arg(folder).args(more);
    server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redis-server is needed: apt-get install redis-server")
}

/// Below the ports that the system gives to connections, so that a restart finds its port free.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    (0..200)
        .map(|_| 16_300 + (std::process::id() as u16 % 100 + NEXT.fetch_add(1, Ordering::Relaxed)) % 200)
        .find(|port| *port != 16_379 && TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).is_ok())
        .expect("a free port")
}

/// One command on a connection of its own.
pub async fn command<T: ::redis::FromRedisValue>(url: &str, words: &[&str]) -> T {
    let client = ::redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = ::redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await.unwrap()
}

pub async fn until<F: Future<Output = bool>>(within: Duration, mut holds: impl FnMut() -> F) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < within, "not within {within:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

pub fn user() -> UserId {
    UserId::from(Uuid::now_v7())
}

pub fn conversation() -> ConversationId {
    ConversationId::from(Uuid::now_v7())
}

pub fn route(user: UserId, device: DeviceId, epoch: i64) -> Route {
    Route { user, device, gateway: "gateway-1".parse().unwrap(), connection: epoch as u64, epoch }
}

pub fn routes(count: usize) -> Vec<Route> {
    (0..count).map(|n| route(user(), DeviceId::from(Uuid::now_v7()), n as i64)).collect()
}

pub fn database() -> (Arc<dyn Store>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let database = sqlite::open(&folder.path().join("gochat.db"), &SqliteSettings::default()).unwrap();
    (Arc::new(database), folder)
}
