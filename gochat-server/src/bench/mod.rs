//! `gochat bench`: a load generator that speaks the real protocol, from a process of its own.
//!
//! ```text
//! calibrate.rs           what the machine can do at best
//! talk.rs                p2p and fanout        idle.rs   idle, connect, start
//! history.rs             pages                 login.rs  passwords beside messages
//! target.rs              the server under load
//! pool.rs, line.rs       connections           wire.rs   frames
//! verify.rs              what was lost, repeated or disordered
//! ```
//!
//! A message is *in flight* until its sender has the ack and every recipient has the message.

mod calibrate;
mod figures;
mod history;
mod idle;
mod json;
mod line;
mod login;
mod pool;
mod progress;
mod proto;
mod talk;
mod target;
mod verify;
mod wire;

use std::path::PathBuf;

use clap::ValueEnum;

use crate::{Fault, Outcome, admin_client::Admin, say};
use figures::Figures;
use target::Target;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// What the machine can do at best.
    Calibrate,
    /// Pairs that write to each other.
    P2p,
    /// One member writes to a group.
    Fanout,
    /// Connections that do nothing.
    Idle,
    /// Connect, prove who it is, sync, hang up.
    Connect,
    /// The newest page of a conversation.
    History,
    /// Password logins beside messages.
    Login,
    /// Start of an empty server.
    Start,
}

/// Arguments of `gochat bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// A server that runs already; without it one is started, and removed afterwards.
    #[arg(long)]
    url: Option<String>,
    /// Address of that server's admin listener; without it and its token, the data folder of `--data` tells both.
    #[arg(long, requires = "url", requires = "admin_token")]
    admin: Option<std::net::SocketAddr>,
    /// Token of that admin listener.
    #[arg(long, requires = "admin")]
    admin_token: Option<String>,
    /// What to measure; several are measured one after the other, each on a server of its own.
    #[arg(long, value_delimiter = ',', default_value = "calibrate,p2p,fanout")]
    scenario: Vec<Scenario>,
    /// Clients: connections of p2p (200), idle (9000), connect (2000), history (64), login (8).
    #[arg(long)]
    clients: Option<usize>,
    /// Messages in flight for each sender.
    #[arg(long, default_value_t = 1)]
    window: u32,
    /// Members of the group of fanout (1000).
    #[arg(long)]
    members: Option<usize>,
    /// Seconds that are measured, behind a short warm-up.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Send so many messages a second, whatever is answered.
    #[arg(long)]
    rate: Option<f64>,
    /// Count what was lost, repeated or disordered, live and in the log; any of it ends in failure.
    #[arg(long)]
    verify: bool,
    /// Print one JSON object for each scenario.
    #[arg(long)]
    json: bool,
    /// Put in front of the names of users, so that runs on one server do not meet.
    #[arg(skip)]
    label: String,
}

impl Arguments {
    fn quiet(&self) -> bool {
        self.json
    }

    /// What the names of provisioned users begin with: another one in each run.
    fn prefix(&self, scenario: &str) -> String {
        let run = uuid::Uuid::now_v7().as_u128() >> 80 & 0xff_ffff;
        format!("{scenario}{}{run:x}u", self.label)
    }

    fn renamed(&self, label: &str) -> Self {
        Arguments { label: label.to_owned(), ..self.clone() }
    }
}

/// Runs the scenarios. An error if one broke off, or `--verify` found a violation.
pub async fn run(arguments: Arguments, data: PathBuf) -> Outcome {
    let mut limits = None;
    let mut violated = Vec::new();
    for scenario in &arguments.scenario {
        let figures = measure(*scenario, &arguments, &data, limits.as_ref()).await.map_err(|fault| format!("{scenario:?}: {fault}"))?;
        say(&if arguments.json { figures.json() } else { figures.text() });
        if figures.violations() > 0.0 {
            violated.push(format!("{scenario:?}"));
        }
        if *scenario == Scenario::Calibrate {
            limits = Some(figures);
        }
    }
    if violated.is_empty() { Ok(()) } else { Err(format!("messages were lost, repeated or disordered: {}", violated.join(", ")).into()) }
}

async fn measure(scenario: Scenario, arguments: &Arguments, data: &std::path::Path, limits: Option<&Figures>) -> Result<Figures, Fault> {
    let folder = std::env::temp_dir();
    match scenario {
        Scenario::Calibrate => return calibrate::calibrate(&folder).await,
        Scenario::Start => return idle::start(arguments),
        _ => {}
    }
    let target = target(arguments, data)?;
    let disk = target.data().unwrap_or(&folder).to_owned();
    let before = calibrate::fdatasync(&disk)?;
    let mut figures = match scenario {
        Scenario::P2p => talk::p2p(&target, arguments).await?,
        Scenario::Fanout => talk::fanout(&target, arguments).await?,
        Scenario::Idle => idle::idle(&target, arguments).await?,
        Scenario::Connect => idle::connect(&target, arguments).await?,
        Scenario::History => history::history(&target, arguments).await?,
        Scenario::Login => login::login(&target, arguments).await?,
        Scenario::Calibrate | Scenario::Start => return Err("runs without a server".into()),
    };
    figures.number("fdatasync_us", before);
    figures.number("fdatasync_us_after", calibrate::fdatasync(&disk)?);
    if let Some(limits) = limits {
        let by = if arguments.window > 1 { "socket_deliveries_per_s_by_8" } else { "socket_deliveries_per_s" };
        let limit = match scenario {
            Scenario::P2p => figures.get("acked_per_s").zip(limits.get("store_appends_per_s")),
            Scenario::Fanout => figures.get("deliveries_per_s").zip(limits.get(by)),
            _ => None,
        };
        if let Some((reached, limit)) = limit {
            figures.number("share_of_limit", reached / limit);
        }
    }
    Ok(figures)
}

fn target(arguments: &Arguments, data: &std::path::Path) -> Result<Target, Fault> {
    let Some(url) = &arguments.url else { return Target::start() };
    let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/').parse();
    let address = address.map_err(|_| format!("--url {url}: http:// and an address such as 127.0.0.1:8080"))?;
    let admin = match (arguments.admin, &arguments.admin_token) {
        (Some(admin), Some(token)) => Admin::at(admin, token.clone()),
        _ => Admin::of(data).map_err(|error| format!("{error}; --admin and --admin-token name it"))?,
    };
    Ok(Target::running(address, admin))
}
