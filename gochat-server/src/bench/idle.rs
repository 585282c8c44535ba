//! Connections that do nothing (`idle`), connections that come and go (`connect`), and the start of an empty server (`start`).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Arguments, Fault, figures::Figures, line, pool::Pool, progress, target::Target};

/// Connections that one thread opens side by side.
const OPEN_AT_ONCE: usize = 64;

/// What authenticated connections cost that nobody writes to.
pub async fn idle(target: &Target, arguments: &Arguments) -> Result<Figures, Fault> {
    let clients = arguments.clients.unwrap_or(9000);
    let crowd = target.provision(json!({"users": clients, "prefix": arguments.prefix("idle")})).await?;
    // The first connections pay for what all share.
    let warm_up = Pool::open(target.address, &crowd.tokens()[..clients.min(50)])?;
    let before = target.usage();
    let mut pool = Pool::open(target.address, &crowd.tokens())?;
    drop(warm_up);
    let mut progress = progress::Line::new(arguments.quiet());
    let mut wait = |seconds: f64| -> Result<(), Fault> {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < end {
            pool.turn(Duration::from_millis(100), |_, _, _, _| {})?;
            progress.show(|| format!("{clients} connections"));
        }
        Ok(())
    };
    wait(2.0)?;
    let (began, used) = (Instant::now(), target.usage());
    wait(arguments.seconds)?;
    let mut figures = Figures::of("idle");
    figures.set("clients", clients);
    if let (Some(before), Some(used), Some(then)) = (before, used, target.usage()) {
        figures.number("rss_bytes_per_connection", then.resident.saturating_sub(before.resident) as f64 / clients as f64);
        figures.number("cpu_percent", (then.cpu - used.cpu).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0);
        figures.set("rss_bytes", then.resident);
    }
    Ok(figures)
}

/// Connect, prove who it is, sync once, hang up: over and over.
pub async fn connect(target: &Target, arguments: &Arguments) -> Result<Figures, Fault> {
    let clients = arguments.clients.unwrap_or(2000).max(2);
    let crowd = target.provision(json!({"users": clients, "prefix": arguments.prefix("come"), "pairs": true})).await?;
    let tokens = crowd.tokens();
    let (done, used, began) = (AtomicU64::new(0), target.usage(), Instant::now());
    let end = began + Duration::from_secs_f64(arguments.seconds);
    let mut progress = progress::Line::new(arguments.quiet());
    let outcome: Result<(), String> = std::thread::scope(|threads| {
        let halves: Vec<_> = tokens
            .chunks(clients.div_ceil(2))
            .map(|half| {
                let done = &done;
                threads.spawn(move || come_and_go(target, half, end, done).map_err(|fault| fault.to_string()))
            })
            .collect();
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
            progress.show(|| format!("{} connected", done.load(Ordering::Relaxed)));
        }
        halves.into_iter().try_for_each(|half| half.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    });
    outcome?;
    let (seconds, done) = (began.elapsed().as_secs_f64(), done.load(Ordering::Relaxed));
    let mut figures = Figures::of("connect");
    figures.set("clients", clients);
    figures.number("connects_per_s", done as f64 / seconds);
    if let (Some(used), Some(then)) = (used, target.usage()) {
        figures.number("server_cpu_us_per_connect", (then.cpu - used.cpu).as_micros() as f64 / (done as f64).max(1.0));
    }
    Ok(figures)
}

fn come_and_go(target: &Target, tokens: &[&str], end: Instant, done: &AtomicU64) -> Result<(), Fault> {
    for tokens in tokens.chunks(OPEN_AT_ONCE).cycle() {
        if Instant::now() >= end {
            return Ok(());
        }
        let mut lines = line::open(target.address, tokens)?;
        lines.iter_mut().try_for_each(|line| line.send(&json!({"type": "sync", "id": 2, "have": {}})))?;
        lines.iter_mut().try_for_each(|line| line.answer(2).map(|_| ()))?;
        done.fetch_add(lines.len() as u64, Ordering::Relaxed);
        lines.into_iter().for_each(line::Line::drop_at_once);
    }
    Ok(())
}

/// How soon an empty server is ready, and what it needs then.
pub fn start(arguments: &Arguments) -> Result<Figures, Fault> {
    let mut figures = Figures::of("start");
    let mut progress = progress::Line::new(arguments.quiet());
    let mut times = Vec::new();
    let mut resident = 0;
    for _ in 0..5 {
        let target = Target::start()?;
        std::thread::sleep(Duration::from_millis(500));
        times.extend(target.started_in);
        resident = target.usage().map_or(0, |usage| usage.resident);
        progress.show(|| format!("{} starts", times.len()));
    }
    times.sort_unstable();
    figures.number("ready_in_ms", times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1000.0));
    figures.set("rss_bytes", resident);
    Ok(figures)
}
