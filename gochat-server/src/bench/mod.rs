//! `gochat bench`: a load generator that speaks the real protocol, from a process of its own.
//!
//! ```text
//! talk.rs                p2p, fanout           load.rs      messages at a pace
//! idle.rs connect.rs history.rs login.rs start.rs           one scenario each
//! limits.rs              what the machine can do at best: calibrate.rs, sockets.rs
//! target.rs, child.rs    the server            provision.rs users and conversations
//! pool.rs, line.rs       connections           wire.rs      frames: json.rs, proto.rs
//! verify.rs              what was lost, repeated or disordered
//! ```
//!
//! Results go to standard output, progress to standard error.

mod calibrate;
mod child;
mod connect;
mod figures;
mod history;
mod http;
mod idle;
mod json;
mod limits;
mod line;
mod load;
mod login;
mod pool;
mod progress;
mod proto;
mod provision;
mod sockets;
mod start;
mod talk;
mod target;
mod timer;
mod usage;
mod verify;
mod wire;

use std::{net::SocketAddr, path::PathBuf};

use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Fault, Outcome, say};
use figures::Figures;
use limits::Limits;
use target::Target;
use wire::Form;

/// What a shell expects of a process that was interrupted.
const INTERRUPTED: i32 = 130;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// What the machine can do at best: disk, bare append loop, bare sockets, bare hash.
    Calibrate,
    /// Pairs that write to each other.
    P2p,
    /// Members of one group write to it.
    Fanout,
    /// Connections that do nothing.
    Idle,
    /// Connect, prove who it is, sync.
    Connect,
    /// The newest page of a conversation, over WebSocket.
    History,
    /// Password logins beside messages.
    Login,
    /// Start of an empty server.
    Start,
}

/// Arguments of `gochat bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// A server that runs already, or several gateways of one, separated by commas: clients connect to one after the other. Without
    /// it a server is started for each scenario, and removed afterwards.
    #[arg(long, value_delimiter = ',')]
    url: Vec<String>,
    /// Address of that server's admin listener. Without it users register one by one, which its limits make slow.
    #[arg(long, requires = "url", requires = "admin_token")]
    admin: Option<SocketAddr>,
    /// Token of that admin listener.
    #[arg(long, requires = "admin")]
    admin_token: Option<String>,
    /// That server's process, if it runs here: its CPU time and memory are measured then. Several with their names, as in
    /// `logic=123,repo=124`: each is shown for itself too.
    #[arg(long, requires = "url", value_delimiter = ',')]
    server_pid: Vec<usage::Watched>,
    /// What to measure, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "calibrate,p2p,fanout")]
    scenario: Vec<Scenario>,
    /// Clients. p2p: senders (200). fanout: senders (1). idle (9000), connect (4000), history (64): connections. login: who logs in.
    #[arg(long)]
    clients: Option<usize>,
    /// Messages in flight for each sender: in p2p until its ack, in fanout until all members have it.
    #[arg(long, default_value_t = 1)]
    window: usize,
    /// Members of the group of fanout.
    #[arg(long, default_value_t = 1000)]
    members: usize,
    /// Seconds that are measured, behind a warm-up of a fifth of it (at most 2 s).
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Open loop: so many messages a second in all, whatever is answered; latency counts from the instant that was meant.
    #[arg(long)]
    rate: Option<f64>,
    /// What the frames hold.
    #[arg(long, value_enum, default_value = "json")]
    protocol: Form,
    /// Count what was lost, repeated or disordered, live and in the log; any of it ends in failure.
    #[arg(long)]
    verify: bool,
    /// Print one JSON object for each scenario.
    #[arg(long)]
    json: bool,
    /// Folder for the throw-away server's data and for measuring the disk; by default that of temporary files.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// Runs the scenarios. An error if one broke off, or `--verify` found a violation.
pub async fn run(arguments: Arguments) -> Outcome {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        child::remove_all();
        std::process::exit(INTERRUPTED);
    });
    let folder = arguments.folder.clone().unwrap_or_else(std::env::temp_dir);
    let mut limits = Limits::new(&folder);
    let mut violated = Vec::new();
    for scenario in &arguments.scenario {
        let figures = measure(*scenario, &arguments, &folder, &mut limits).await.map_err(|fault| format!("{scenario:?}: {fault}"))?;
        say(&if arguments.json { figures.json() } else { figures.text() });
        if figures.is_violated() {
            violated.push(figures.scenario());
        }
    }
    if violated.is_empty() { Ok(()) } else { Err(format!("messages were lost, repeated or disordered: {}", violated.join(", ")).into()) }
}

async fn measure(scenario: Scenario, arguments: &Arguments, folder: &std::path::Path, limits: &mut Limits) -> Result<Figures, Fault> {
    match scenario {
        Scenario::Calibrate => return limits.calibrate().await,
        Scenario::Start => return start::start(folder),
        // Before there is a server that would be in the way.
        Scenario::P2p => drop(limits.appends(arguments.clients.unwrap_or(200) * arguments.window)?),
        Scenario::Fanout => drop(limits.deliveries(arguments.members, arguments.clients.unwrap_or(1) * arguments.window)?),
        Scenario::Login => drop(limits.hashes().await?),
        Scenario::Idle | Scenario::Connect | Scenario::History => {}
    }
    let before = calibrate::fdatasync(folder)?;
    let target = Target::of(arguments, folder)?;
    let mut figures = match scenario {
        Scenario::P2p => talk::p2p(&target, arguments, limits).await?,
        Scenario::Fanout => talk::fanout(&target, arguments, limits).await?,
        Scenario::Idle => idle::idle(target, arguments).await?,
        Scenario::Connect => connect::connect(&target, arguments).await?,
        Scenario::History => history::history(&target, arguments).await?,
        Scenario::Login => login::login(&target, arguments, limits).await?,
        Scenario::Calibrate | Scenario::Start => return Err("runs without a server".into()),
    };
    figures.number("fdatasync_us", before);
    figures.number("fdatasync_us_after", calibrate::fdatasync(folder)?);
    Ok(figures)
}
