//! The server under load: a throw-away one of our own, as a child process, or one that runs already.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use http::Method;
use serde_json::{Value, json};

use super::Fault;
use crate::admin_client::Admin;

/// Settings of the throw-away server: the limits of one address and one connection are not what is measured.
const SETTINGS: [(&str, &str); 6] = [
    ("GOCHAT_LIMITS_CONNECTIONS_PER_ADDRESS", "20000"),
    ("GOCHAT_LIMITS_SENDS_PER_SECOND", "1000000"),
    ("GOCHAT_LIMITS_SENDS_BURST", "1000000"),
    ("GOCHAT_LIMITS_SIGN_INS_PER_MINUTE", "1000000"),
    ("GOCHAT_LIMITS_SIGN_INS_BURST", "1000000"),
    ("GOCHAT_LOG_LEVEL", "warn"),
];
/// Ports for it: below those that the system hands out.
const PORTS: std::ops::Range<u16> = 24_000..31_000;

pub struct Target {
    pub address: SocketAddr,
    admin: Admin,
    /// From the start of the process to the first answer.
    pub started_in: Option<Duration>,
    own: Option<Own>,
}

struct Own {
    child: Child,
    data: PathBuf,
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu: Duration,
    pub resident: u64,
}

impl Target {
    /// Starts a server of our own.
    pub fn start() -> Result<Target, Fault> {
        let data = std::env::temp_dir().join(format!("gochat-bench-{}-{}", std::process::id(), uuid::Uuid::now_v7().simple()));
        let address = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GOCHAT_") && !name.starts_with("GOCHAT_BENCH_")) {
            command.env_remove(name);
        }
        // Whoever measures a setting passes it on: GOCHAT_BENCH_STORE_READERS=4 becomes GOCHAT_STORE_READERS.
        for (name, value) in std::env::vars().filter_map(|(name, value)| Some((name.strip_prefix("GOCHAT_BENCH_")?.to_owned(), value))) {
            command.env(format!("GOCHAT_{name}"), value);
        }
        let began = Instant::now();
        let mut child = command
            .envs(SETTINGS)
            .args(["--listen", &address.to_string(), "--data"])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take();
        let own = Own { child, data };
        let mut line = String::new();
        BufReader::new(out.ok_or("no output")?).read_line(&mut line)?;
        if !line.contains("http://") {
            return Err("the server did not start".into());
        }
        let started_in = Some(began.elapsed());
        Ok(Target { address, admin: Admin::of(&own.data)?, started_in, own: Some(own) })
    }

    /// A server that runs already.
    pub fn running(address: SocketAddr, admin: Admin) -> Target {
        Target { address, admin, started_in: None, own: None }
    }

    /// Makes users, devices and conversations.
    pub async fn provision(&self, wanted: Value) -> Result<Crowd, Fault> {
        let made = self.admin.ask(Method::POST, "/admin/provision", Some(wanted)).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |name: &str| made[name].as_array().cloned().unwrap_or_default();
        Ok(Crowd {
            tokens: list("users").iter().map(|user| text(&user["access_token"])).collect(),
            conversations: list("conversations").iter().map(|conversation| text(&conversation["id"])).collect(),
        })
    }

    /// Sets a user's password.
    pub async fn set_password(&self, username: &str, password: &str) -> Result<(), Fault> {
        self.admin.ask(Method::POST, &format!("/admin/users/{username}/password"), Some(json!({"password": password}))).await.map(|_| ())
    }

    /// The folder whose disk the server writes to, if it is ours.
    pub fn data(&self) -> Option<&std::path::Path> {
        self.own.as_ref().map(|own| own.data.as_path())
    }

    /// What the server has used so far, if it is ours (proc(5)).
    pub fn usage(&self) -> Option<Usage> {
        let id = self.own.as_ref()?.child.id();
        // Every thread's time on a processor, in nanoseconds; what ended threads used is lost, and ours live on.
        let cpu = std::fs::read_dir(format!("/proc/{id}/task")).ok()?.filter_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        let cpu = Duration::from_nanos(cpu.sum());
        let statm = std::fs::read_to_string(format!("/proc/{id}/statm")).ok()?;
        Some(Usage { cpu, resident: statm.split_whitespace().nth(1)?.parse::<u64>().ok()? * 4096 })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

/// Users and what they talk in.
pub struct Crowd {
    pub tokens: Vec<String>,
    pub conversations: Vec<String>,
}

impl Crowd {
    pub fn tokens(&self) -> Vec<&str> {
        self.tokens.iter().map(String::as_str).collect()
    }
}

fn free_address() -> Result<SocketAddr, Fault> {
    let first = PORTS.start + (std::process::id() % 5000) as u16;
    (first..PORTS.end)
        .chain(PORTS)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| "no free port".into())
}
