//! A throw-away server: this very program as a child process, with a data folder and a port of its own, both gone afterwards.

use std::{
    fs::DirBuilder,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::Fault;

/// Settings of the server: the limits of one address and one connection are not what is measured.
const SETTINGS: [(&str, &str); 7] = [
    ("GOCHAT_LIMITS_CONNECTIONS_PER_ADDRESS", "20000"),
    ("GOCHAT_LIMITS_SENDS_PER_SECOND", "1000000"),
    ("GOCHAT_LIMITS_SENDS_BURST", "1000000"),
    ("GOCHAT_LIMITS_SIGN_INS_PER_MINUTE", "1000000"),
    ("GOCHAT_LIMITS_SIGN_INS_BURST", "1000000"),
    ("GOCHAT_ADMIN_LISTEN", "127.0.0.1:0"),
    ("GOCHAT_LOG_LEVEL", "warn"),
];
/// Ports for it: below those that the system hands out.
const PORTS: std::ops::Range<u16> = 24_000..31_000;

/// What is to be removed when this process is interrupted: process ids cannot be told from the outside.
static RUNNING: Mutex<Vec<Own>> = Mutex::new(Vec::new());

/// A process and its folder.
struct Own {
    process: Child,
    data: PathBuf,
}

impl Own {
    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A running server; ends with this.
pub struct Server {
    id: u32,
    data: PathBuf,
    pub address: SocketAddr,
    /// From the start of the process to its word that it is ready.
    pub started_in: Duration,
    /// The server must be able to write to it.
    _output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a server on an empty folder inside `folder`.
    pub fn start(folder: &Path) -> Result<Server, Fault> {
        let data = std::path::absolute(folder)?.join(format!("gochat-bench-{}", uuid::Uuid::now_v7().simple()));
        DirBuilder::new().mode(0o700).create(&data)?;
        Server::on(data)
    }

    /// Kills it and starts another one on the same folder.
    pub fn restart(self) -> Result<Server, Fault> {
        let data = self.data.clone();
        if let Some(mut own) = self.take() {
            own.end();
        }
        Server::on(data)
    }

    fn on(data: PathBuf) -> Result<Server, Fault> {
        let address = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GOCHAT_")) {
            command.env_remove(name);
        }
        command.envs(SETTINGS);
        // Whoever measures a setting passes it on: GOCHAT_BENCH_STORE_READERS=4 becomes GOCHAT_STORE_READERS.
        for (name, value) in std::env::vars().filter_map(|(name, value)| Some((name.strip_prefix("GOCHAT_BENCH_")?.to_owned(), value))) {
            command.env(format!("GOCHAT_{name}"), value);
        }
        // There it finds no file with settings either.
        command.current_dir(&data);
        command.args(["--listen", &address.to_string(), "--data"]).arg(&data).stdin(Stdio::null()).stdout(Stdio::piped());
        let began = Instant::now();
        let mut process = command.spawn()?;
        let (id, output) = (process.id(), process.stdout.take());
        running().push(Own { process, data: data.clone() });
        let mut server = Server { id, data, address, started_in: Duration::ZERO, _output: BufReader::new(output.ok_or("no output")?) };
        let mut line = String::new();
        while !line.contains("http://") {
            line.clear();
            if server._output.read_line(&mut line)? == 0 {
                return Err("the server did not start".into());
            }
        }
        server.started_in = began.elapsed();
        Ok(server)
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    fn take(&self) -> Option<Own> {
        let mut running = running();
        let at = running.iter().position(|own| own.process.id() == self.id)?;
        Some(running.swap_remove(at))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(own) = self.take() {
            remove(own);
        }
    }
}

/// Ends and removes every server: before this process ends out of order.
pub fn remove_all() {
    running().drain(..).for_each(remove);
}

fn remove(mut own: Own) {
    own.end();
    let _ = std::fs::remove_dir_all(own.data);
}

fn running() -> std::sync::MutexGuard<'static, Vec<Own>> {
    RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A loopback address that nobody listens on.
pub fn free_address() -> Result<SocketAddr, Fault> {
    let first = PORTS.start + (std::process::id() % 5000) as u16;
    (first..PORTS.end)
        .chain(PORTS)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| "no free port".into())
}
