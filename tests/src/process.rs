//! The `gochat` binary as a child process: for crash, overload and browser tests.

use std::{
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

/// A running server process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub data: PathBuf,
    child: Child,
    settings: Vec<(String, String)>,
}

impl Process {
    /// Starts the server on free ports with its data in `data`. `settings` are `GOCHAT_…` variables.
    pub fn start(data: &Path, settings: &[(&str, &str)]) -> Process {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Process::start_at(free_port(), free_port(), data, settings)
    }

    fn start_at(address: SocketAddr, admin: SocketAddr, data: &Path, settings: Vec<(String, String)>) -> Process {
        let mut child = gochat()
            .args(["--listen", &address.to_string(), "--data"])
            .arg(data)
            .env("GOCHAT_ADMIN_LISTEN", admin.to_string())
            .envs(settings.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server binary starts");
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let began = Instant::now();
        let mut line = String::new();
        loop {
            line.clear();
            if out.read_line(&mut line).unwrap_or(0) == 0 || began.elapsed() > Duration::from_secs(60) {
                let mut errors = String::new();
                let _ = child.kill();
                let _ = child.stderr.take().unwrap().read_to_string(&mut errors);
                panic!("the server did not become ready:\n{errors}");
            }
            if line.contains("http://") {
                break;
            }
        }
        // Whatever it prints later must not fill the pipes.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let mut errors = child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::stderr()));
        Process { address, admin, data: data.to_owned(), child, settings }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, then the same server again: same ports, same data.
    pub fn kill_and_restart(mut self) -> Process {
        self.kill();
        Process::start_at(self.address, self.admin, &self.data.clone(), std::mem::take(&mut self.settings))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; answers with the exit code and how long it took.
    pub fn terminate(mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        let status = Command::new("kill").args(["-TERM", &self.id().to_string()]).status().expect("kill is there");
        assert!(status.success());
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), began.elapsed());
            }
            assert!(began.elapsed() < Duration::from_secs(30), "the server does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The token of the admin listener.
    pub fn admin_token(&self) -> String {
        std::fs::read_to_string(self.data.join("admin-token")).expect("the admin token").trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nothing listens on now, below the range that client sockets take.
pub fn free_port() -> SocketAddr {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + (std::process::id() as u16 % 100) * 100;
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A call of the server binary that sees no setting of ours in its environment.
pub fn gochat() -> Command {
    without_settings(Command::new(binary()))
}

/// A command that sees no setting of ours in its environment.
pub fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GOCHAT_")) {
        command.env_remove(name);
    }
    command
}

/// The server binary, built from the present sources. The whole workspace is named so that the dependencies are the
/// ones that the tests were built with.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let release = !cfg!(debug_assertions);
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if release {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo is there").success(), "the server does not build");
        let test = std::env::current_exe().expect("the test's own path");
        let target = test.ancestors().find(|path| path.ends_with("deps")).and_then(Path::parent).expect("a target directory");
        target.join("gochat")
    })
}
