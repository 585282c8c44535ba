//! `start`: how soon an empty server is ready, and what it holds then.

use std::{path::Path, time::Duration};

use super::{Fault, child::Server, figures::Figures, progress, usage};

/// How many starts; the median counts.
const STARTS: usize = 5;
/// Until memory is looked at.
const SETTLE: Duration = Duration::from_millis(500);

pub fn start(folder: &Path) -> Result<Figures, Fault> {
    let mut progress = progress::Line::new("start");
    let (mut times, mut resident) = (Vec::new(), Vec::new());
    for number in 1..=STARTS {
        let server = Server::start(folder)?;
        times.push(server.started_in);
        std::thread::sleep(SETTLE);
        resident.extend(usage::of(server.id()).map(|usage| usage.resident));
        progress.show(|| format!("{number} of {STARTS}"));
    }
    times.sort_unstable();
    resident.sort_unstable();
    let mut figures = Figures::of("start");
    figures.number("ready_ms", times[STARTS / 2].as_secs_f64() * 1000.0);
    figures.set("rss_bytes", resident.get(STARTS / 2).copied());
    Ok(figures)
}
