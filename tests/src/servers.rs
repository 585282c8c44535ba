//! The real MariaDB, Redis and Kafka that tests talk to: those of `./deploy/local.sh up --servers-only --with-cluster`, or of the
//! environment. A test that cannot reach its server fails.

use std::{
    net::{TcpStream, ToSocketAddrs},
    process::Command,
};

use uuid::Uuid;

/// A variable, or where the script puts the server.
fn address(variable: &str, usual: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| usual.to_owned())
}

/// MariaDB, without a database: `mysql://user:password@host:port`.
pub fn mysql() -> String {
    address("GOCHAT_TEST_MYSQL", "mysql://im:im@127.0.0.1:13306").trim_end_matches('/').to_owned()
}

/// One Redis.
pub fn redis() -> String {
    address("GOCHAT_TEST_REDIS", "redis://127.0.0.1:16379")
}

/// Three nodes of a Redis Cluster.
pub fn redis_cluster() -> Vec<String> {
    let usual = "redis://127.0.0.1:17001,redis://127.0.0.1:17002,redis://127.0.0.1:17003";
    address("GOCHAT_TEST_REDIS_CLUSTER", usual).split(',').map(str::to_owned).collect()
}

/// Kafka's brokers.
pub fn kafka() -> String {
    address("GOCHAT_TEST_KAFKA", "127.0.0.1:19092")
}

/// A place of its own on the shared servers: a database, and prefixes of keys and topics.
#[derive(Clone, Debug)]
pub struct Namespace {
    pub name: String,
    /// Address of the database.
    pub mysql: String,
}

impl Namespace {
    /// Makes one.
    pub fn new() -> Namespace {
        for server in [mysql(), redis(), kafka()] {
            reach(&server);
        }
        let name = format!("t{}", Uuid::new_v4().simple());
        let mysql = format!("{}/gochat_{name}", mysql());
        make_database(&mysql);
        Namespace { name, mysql }
    }

    /// What every role has to know.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("redis.urls", redis()),
            ("redis.prefix", format!("{}:", self.name)),
            ("kafka.brokers", kafka()),
            ("kafka.prefix", format!("{}-", self.name)),
            ("kafka.partitions", "4".to_owned()),
        ]
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Namespace::new()
    }
}

/// Makes the database that an address names.
pub fn make_database(address: &str) {
    let parts = address.trim_start_matches("mysql://").split(['@', ':', '/']).collect::<Vec<_>>();
    let [user, password, host, port, name] = parts[..] else { panic!("{address} is not mysql://user:password@host:port/database") };
    let made = Command::new("mariadb")
        .args(["--no-defaults", "-h", host, "-P", port, "-u", user, &format!("-p{password}"), "-e"])
        .arg(format!("CREATE DATABASE IF NOT EXISTS `{name}`"))
        .output()
        .expect("the client of MariaDB is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn reach(server: &str) {
    let host = server.rsplit('@').next().unwrap_or(server).trim_start_matches("redis://");
    let reached = host.to_socket_addrs().ok().into_iter().flatten().any(|address| TcpStream::connect(address).is_ok());
    assert!(reached, "{host} does not answer: start the servers with ./deploy/local.sh up --servers-only --with-cluster, or run ./test.sh");
}
