//! `idle`: what authenticated connections cost that nobody writes to.

use std::time::{Duration, Instant};

use super::{
    Arguments, Fault,
    figures::Figures,
    pool::Pool,
    progress,
    provision::{self, Wanted},
    target::Target,
};

/// Connections that come first: they pay for what all share.
const FIRST: usize = 50;
/// Seconds until what connecting left behind is done.
const SETTLE: f64 = 3.0;

pub async fn idle(target: Target, arguments: &Arguments) -> Result<Figures, Fault> {
    let clients = arguments.clients.unwrap_or(9000).max(1);
    let crowd = provision::provision(&target, "i", Wanted { users: clients + FIRST, ..Wanted::default() }).await?;
    let target = target.restarted()?;
    let tokens = crowd.tokens();
    let (first, others) = tokens.split_at(FIRST);
    let first = Pool::open(&target.addresses, arguments.protocol, first)?;
    drop(first);
    let before = target.usage();
    let mut pool = Pool::open(&target.addresses, arguments.protocol, others)?;
    let mut progress = progress::Line::new("idle");
    let mut wait = |seconds: f64| -> Result<(), Fault> {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < end {
            pool.turn(Duration::from_millis(100), |_, _, _, _| {})?;
            progress.show(|| format!("{clients} connections"));
        }
        Ok(())
    };
    wait(SETTLE)?;
    let (began, used) = (Instant::now(), target.usage());
    wait(arguments.seconds)?;
    let mut figures = Figures::of("idle");
    figures.set("clients", clients);
    figures.set("protocol", arguments.protocol.subprotocol());
    if let (Some(before), Some(used), Some(then)) = (before, used, target.usage()) {
        figures.number("rss_bytes_per_connection", (then.resident as f64 - before.resident as f64) / clients as f64);
        figures.number("server_cpu_percent", (then.cpu - used.cpu).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0);
        figures.set("rss_bytes", then.resident);
    }
    Ok(figures)
}
