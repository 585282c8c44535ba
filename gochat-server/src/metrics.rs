//! Counters of this process in the text format of Prometheus, read from the parts at each scrape.

use std::{sync::Arc, time::Instant};

use gochat_core::ports::Topic;
use gochat_storage::sqlite;
use gochat_transport::{bus::LocalBus, gateway::Gateway};
use prometheus::{Encoder, Gauge, IntCounter, IntGauge, Registry, TextEncoder};

/// What can be read.
#[derive(Debug)]
pub struct Metrics {
    gateway: Arc<Gateway>,
    bus: LocalBus,
    store: sqlite::Database,
    started: Instant,
}

impl Metrics {
    /// Metrics of these parts.
    pub fn new(gateway: Arc<Gateway>, bus: LocalBus, store: sqlite::Database) -> Self {
        Metrics { gateway, bus, store, started: Instant::now() }
    }

    /// The metrics as text.
    pub fn text(&self) -> String {
        let registry = Registry::new();
        let mut text = Vec::new();
        // Names are constants and each stands once, so nothing here can be refused.
        if self.fill(&registry).is_ok() {
            let _ = TextEncoder::new().encode(&registry.gather(), &mut text);
        }
        String::from_utf8(text).unwrap_or_default()
    }

    fn fill(&self, registry: &Registry) -> prometheus::Result<()> {
        let counter = |name: &str, help: &str, value: u64| {
            let counter = IntCounter::new(name, help)?;
            counter.inc_by(value);
            registry.register(Box::new(counter))
        };
        let gauge = |name: &str, help: &str, value: u64| {
            let gauge = IntGauge::new(name, help)?;
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(Box::new(gauge))
        };
        let seconds = |name: &str, help: &str, value: f64| {
            let gauge = Gauge::new(name, help)?;
            gauge.set(value);
            registry.register(Box::new(gauge))
        };
        let gateway = self.gateway.stats();
        gauge("gochat_connections", "WebSocket connections now", gateway.connections)?;
        gauge("gochat_connections_authenticated", "Authenticated WebSocket connections now", gateway.authenticated)?;
        counter("gochat_connections_opened_total", "WebSocket connections ever opened", gateway.opened)?;
        counter("gochat_frames_received_total", "Frames from clients", gateway.frames_in)?;
        counter("gochat_received_bytes_total", "Bytes from clients", gateway.bytes_in)?;
        counter("gochat_frames_sent_total", "Frames to clients", gateway.frames_out)?;
        counter("gochat_writes_total", "Writes to sockets", gateway.writes)?;
        counter("gochat_sends_accepted_total", "Messages accepted from clients", gateway.sends)?;
        counter("gochat_sends_overloaded_total", "Messages refused because the bus was full", gateway.overloaded)?;
        counter("gochat_resyncs_total", "Slow connections that were told to resync", gateway.resyncs)?;
        counter("gochat_slow_closes_total", "Connections closed without progress", gateway.slow_closes)?;
        counter("gochat_protocol_errors_total", "Connections closed for breaking the protocol", gateway.protocol_errors)?;
        counter("gochat_auth_refusals_total", "Refused authentications of connections", gateway.auth_refusals)?;
        counter("gochat_connection_refusals_total", "Connections refused at the door", gateway.refusals)?;
        counter("gochat_rate_refusals_total", "Requests refused because of a rate", gateway.rate_refusals)?;
        counter("gochat_takeovers_total", "Connections that gave way to a newer one of their device", gateway.takeovers)?;
        gauge("gochat_upstream_records", "Messages that wait to be stored", self.bus.depth(&Topic::Upstream) as u64)?;
        gauge("gochat_task_records", "Tasks that wait", self.bus.depth(&Topic::Task) as u64)?;
        let store = self.store.stats();
        counter("gochat_store_commits_total", "Group commits", store.commits)?;
        counter("gochat_store_units_total", "Units of work in group commits", store.units)?;
        counter("gochat_store_failed_groups_total", "Group commits that were given up", store.failed_groups)?;
        seconds("gochat_store_commit_seconds_total", "Time spent in COMMIT", store.commit_micros as f64 / 1e6)?;
        gauge("gochat_store_wal_pages", "Pages in the write-ahead log", store.wal_pages)?;
        gauge("gochat_store_writes_waiting", "Units that wait for the writer", store.writes_waiting)?;
        gauge("gochat_store_reads_waiting", "Reads that wait", store.reads_waiting)?;
        let process = Process::read();
        seconds("process_cpu_seconds_total", "User and system time", process.cpu_seconds)?;
        gauge("process_resident_memory_bytes", "Resident memory", process.resident_bytes)?;
        seconds("gochat_uptime_seconds", "Time since the start", self.started.elapsed().as_secs_f64())
    }
}

#[derive(Default)]
struct Process {
    cpu_seconds: f64,
    resident_bytes: u64,
}

impl Process {
    /// From `/proc/self` (proc(5)); zero where there is none.
    fn read() -> Process {
        let mut process = Process::default();
        // Fields behind the name, which may hold spaces: utime and stime are the 12th and 13th of them, in clock ticks,
        // which are 10 ms on every Linux.
        if let Ok(stat) = std::fs::read_to_string("/proc/self/stat") {
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let ticks: f64 = [11, 12].iter().filter_map(|&at| fields.get(at)?.parse::<f64>().ok()).sum();
            process.cpu_seconds = ticks / 100.0;
        }
        if let Ok(statm) = std::fs::read_to_string("/proc/self/statm") {
            let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
            process.resident_bytes = pages * 4096;
        }
        process
    }
}
