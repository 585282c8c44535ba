//! The command line of GoChat.

mod admin_client;
mod bench;
mod dead_letters;
mod migrate;
mod topics;
mod users;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use gochat_server::{
    config::{Config, Sources},
    roles::Roles,
    telemetry,
    wire::{self, Parts},
};
use tokio::signal::unix::{SignalKind, signal};

/// How long a drain may take before the process ends anyway.
const DRAIN: Duration = Duration::from_secs(8);

/// Instant messaging: one process with chat in the browser, or one role of several.
#[derive(Debug, Parser)]
#[command(name = "gochat", version)]
struct Arguments {
    /// Address that clients connect to.
    #[arg(long, global = true)]
    listen: Option<String>,
    /// Folder that holds everything the server keeps.
    #[arg(long, global = true)]
    data: Option<String>,
    /// File with settings.
    #[arg(long, global = true, env = "GOCHAT_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server with all roles in one process (also without a command).
    #[command(alias = "serve")]
    All,
    /// Start a gateway: sockets, HTTP, the web chat.
    Gateway,
    /// Start a logic role: decides what clients ask for.
    Logic,
    /// Start a repo role: keeps everything.
    Repo,
    /// Start a task role: large groups and pushes.
    Task,
    /// Bring the schema of the store up to date, and end. Every start does this too.
    Migrate,
    /// Make the topics that are missing, and show all with what is left to be consumed.
    Topics,
    /// Look at records that nobody could process.
    DeadLetters {
        #[command(subcommand)]
        command: dead_letters::DeadLettersCommand,
    },
    /// Print the effective settings and where each came from.
    Config,
    /// Measure a server with a load that speaks the real protocol.
    Bench(bench::Arguments),
    /// Look at and change accounts.
    User {
        #[command(subcommand)]
        command: users::UserCommand,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
fn complain(error: &dyn std::error::Error) {
    eprintln!("gochat: {error}");
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn say(text: &str) {
    println!("{text}");
}

/// Why a command failed.
type Fault = Box<dyn std::error::Error + Send + Sync>;
type Outcome = Result<(), Fault>;

fn run(mut arguments: Arguments) -> Outcome {
    // The load is not the server: the settings around are not its own, and stay out of the server that it starts.
    if let Some(Command::Bench(arguments)) = arguments.command.take_if(|command| matches!(command, Command::Bench(_))) {
        return tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(bench::run(arguments));
    }
    let config = Config::load(&sources(&arguments))?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if config.threads > 0 {
        runtime.worker_threads(config.threads);
    }
    let runtime = runtime.enable_all().build()?;
    let roles = match arguments.command {
        Some(Command::Config) => {
            say(config.describe().trim_end());
            return Ok(());
        }
        Some(Command::User { command }) => return runtime.block_on(users::run(&config, command)),
        Some(Command::Migrate) => return runtime.block_on(migrate::run(&config)),
        Some(Command::Topics) => return runtime.block_on(topics::run(&config)),
        Some(Command::DeadLetters { command }) => return runtime.block_on(dead_letters::run(&config, command)),
        Some(Command::Gateway) => Roles::GATEWAY,
        Some(Command::Logic) => Roles::LOGIC,
        Some(Command::Repo) => Roles::REPO,
        Some(Command::Task) => Roles::TASK,
        None | Some(Command::All | Command::Bench(_)) => Roles::ALL,
    };
    runtime.block_on(serve(config, roles))
}

fn sources(arguments: &Arguments) -> Sources {
    let mut flags = Vec::new();
    flags.extend(arguments.listen.clone().map(|value| ("listen", "--listen", value)));
    flags.extend(arguments.data.clone().map(|value| ("data", "--data", value)));
    Sources { file: arguments.config.clone(), environment: std::env::vars().collect(), flags }
}

async fn serve(config: Config, roles: Roles) -> Outcome {
    telemetry::start(&config);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let data = config.data.display().to_string();
    if roles.gateway && !config.listen.ip().is_loopback() {
        tracing::warn!(listen = %config.listen, "listening in plaintext beyond loopback: put a proxy that ends TLS in front");
    }
    let started = wire::start(config, Parts { roles, ..Parts::default() });
    let server = tokio::select! {
        server = started => server?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    say(&match roles.gateway {
        true => format!("GoChat is ready: http://{}  (data in {data})", server.address()),
        false => format!("GoChat is ready: {}  (data in {data})", server.address()),
    });
    let failed = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        () = server.failed() => true,
    };
    tracing::info!("draining");
    tokio::select! {
        () = server.shutdown(DRAIN) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    if failed { Err("a role ended by itself; the log says why".into()) } else { Ok(()) }
}
