//! Counters of this process in the text format of Prometheus, read from the parts at each scrape.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use gochat_core::ports::Topic;
#[cfg(feature = "mysql")]
use gochat_storage::mysql;
#[cfg(feature = "redis")]
use gochat_storage::redis::Redis;
use gochat_storage::sqlite;
#[cfg(feature = "kafka")]
use gochat_transport::bus::KafkaBus;
use gochat_transport::{bus::LocalBus, gateway::Gateway};
use prometheus::{Encoder, Gauge, IntCounter, IntGauge, Registry, TextEncoder};
#[cfg(feature = "kafka")]
use prometheus::{IntGaugeVec, Opts};

/// The parts of this process that count something; they come as the process starts.
#[derive(Debug)]
pub struct Metrics {
    sources: Mutex<Vec<Source>>,
    started: Instant,
}

/// A part that counts.
#[derive(Clone, Debug)]
pub enum Source {
    /// A gateway.
    Gateway(Arc<Gateway>),
    /// The bus of this process.
    LocalBus(LocalBus),
    /// The bus on Kafka.
    #[cfg(feature = "kafka")]
    Kafka(KafkaBus),
    /// Redis, as routes and cache.
    #[cfg(feature = "redis")]
    Redis(Redis),
    /// SQLite.
    Sqlite(sqlite::Database),
    /// MySQL.
    #[cfg(feature = "mysql")]
    Mysql(mysql::Database),
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { sources: Mutex::default(), started: Instant::now() }
    }
}

impl Metrics {
    /// Shows this part too.
    pub fn add(&self, source: Source) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(source);
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
        let fill = Fill(registry);
        for source in self.sources.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            match source {
                Source::Gateway(gateway) => of_gateway(&fill, gateway)?,
                Source::LocalBus(bus) => of_local_bus(&fill, bus)?,
                #[cfg(feature = "kafka")]
                Source::Kafka(bus) => of_kafka(&fill, bus)?,
                #[cfg(feature = "redis")]
                Source::Redis(redis) => of_redis(&fill, redis)?,
                Source::Sqlite(database) => of_sqlite(&fill, database)?,
                #[cfg(feature = "mysql")]
                Source::Mysql(database) => of_mysql(&fill, database)?,
            }
        }
        let process = Process::read();
        fill.seconds("process_cpu_seconds_total", "User and system time", process.cpu_seconds)?;
        fill.gauge("process_resident_memory_bytes", "Resident memory", process.resident_bytes)?;
        fill.seconds("gochat_uptime_seconds", "Time since the start", self.started.elapsed().as_secs_f64())
    }
}

/// Takes values as metrics.
struct Fill<'a>(&'a Registry);

impl Fill<'_> {
    fn counter(&self, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(value);
        self.0.register(Box::new(counter))
    }

    fn gauge(&self, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.0.register(Box::new(gauge))
    }

    #[cfg(feature = "kafka")]
    fn by<const N: usize>(&self, name: &str, help: &str, labels: [&str; N], set: impl FnOnce(&IntGaugeVec)) -> prometheus::Result<()> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &labels)?;
        set(&gauge);
        self.0.register(Box::new(gauge))
    }

    fn seconds(&self, name: &str, help: &str, value: f64) -> prometheus::Result<()> {
        let gauge = Gauge::new(name, help)?;
        gauge.set(value);
        self.0.register(Box::new(gauge))
    }
}

fn of_gateway(fill: &Fill<'_>, gateway: &Gateway) -> prometheus::Result<()> {
    let stats = gateway.stats();
    fill.gauge("gochat_connections", "WebSocket connections now", stats.connections)?;
    fill.gauge("gochat_connections_authenticated", "Authenticated WebSocket connections now", stats.authenticated)?;
    fill.counter("gochat_connections_opened_total", "WebSocket connections ever opened", stats.opened)?;
    fill.counter("gochat_frames_received_total", "Frames from clients", stats.frames_in)?;
    fill.counter("gochat_received_bytes_total", "Bytes from clients", stats.bytes_in)?;
    fill.counter("gochat_frames_sent_total", "Frames to clients", stats.frames_out)?;
    fill.counter("gochat_writes_total", "Writes to sockets", stats.writes)?;
    fill.counter("gochat_sends_accepted_total", "Messages accepted from clients", stats.sends)?;
    fill.counter("gochat_sends_overloaded_total", "Messages refused because the bus was full", stats.overloaded)?;
    fill.counter("gochat_resyncs_total", "Slow connections that were told to resync", stats.resyncs)?;
    fill.counter("gochat_slow_closes_total", "Connections closed without progress", stats.slow_closes)?;
    fill.counter("gochat_protocol_errors_total", "Connections closed for breaking the protocol", stats.protocol_errors)?;
    fill.counter("gochat_auth_refusals_total", "Refused authentications of connections", stats.auth_refusals)?;
    fill.counter("gochat_connection_refusals_total", "Connections refused at the door", stats.refusals)?;
    fill.counter("gochat_rate_refusals_total", "Requests refused because of a rate", stats.rate_refusals)?;
    fill.counter("gochat_takeovers_total", "Connections that gave way to a newer one of their device", stats.takeovers)
}

fn of_local_bus(fill: &Fill<'_>, bus: &LocalBus) -> prometheus::Result<()> {
    fill.gauge("gochat_upstream_records", "Messages that wait to be stored", bus.depth(&Topic::Upstream) as u64)?;
    fill.gauge("gochat_task_records", "Tasks that wait", bus.depth(&Topic::Task) as u64)
}

fn of_sqlite(fill: &Fill<'_>, database: &sqlite::Database) -> prometheus::Result<()> {
    let stats = database.stats();
    fill.counter("gochat_store_commits_total", "Group commits", stats.commits)?;
    fill.counter("gochat_store_units_total", "Units of work in group commits", stats.units)?;
    fill.counter("gochat_store_failed_groups_total", "Group commits that were given up", stats.failed_groups)?;
    fill.seconds("gochat_store_commit_seconds_total", "Time spent in COMMIT", stats.commit_micros as f64 / 1e6)?;
    fill.gauge("gochat_store_wal_pages", "Pages in the write-ahead log", stats.wal_pages)?;
    fill.gauge("gochat_store_writes_waiting", "Units that wait for the writer", stats.writes_waiting)?;
    fill.gauge("gochat_store_reads_waiting", "Reads that wait", stats.reads_waiting)
}

#[cfg(feature = "mysql")]
fn of_mysql(fill: &Fill<'_>, database: &mysql::Database) -> prometheus::Result<()> {
    let stats = database.stats();
    fill.counter("gochat_store_commits_total", "Transactions that were committed", stats.commits)?;
    fill.counter("gochat_store_repeats_total", "Units of work that were run again after a lost race or connection", stats.repeats)?;
    fill.counter("gochat_store_connections_lost_total", "Connections to the database that died under a unit of work", stats.lost_connections)?;
    fill.counter("gochat_store_connections_opened_total", "Connections to the database ever opened", stats.opened_connections)?;
    fill.gauge("gochat_store_writes_waiting", "Units that wait for a writer", stats.writes_waiting as u64)?;
    fill.gauge("gochat_store_reads_waiting", "Reads that wait", stats.reads_waiting as u64)
}

#[cfg(feature = "redis")]
fn of_redis(fill: &Fill<'_>, redis: &Redis) -> prometheus::Result<()> {
    let stats = redis.stats();
    fill.counter("gochat_redis_round_trips_total", "Round trips to Redis", stats.round_trips)?;
    fill.counter("gochat_redis_failures_total", "Calls of Redis that failed", stats.failures)?;
    fill.counter("gochat_redis_connects_total", "Connections to Redis ever made", stats.connects)
}

#[cfg(feature = "kafka")]
fn of_kafka(fill: &Fill<'_>, bus: &KafkaBus) -> prometheus::Result<()> {
    let stats = bus.statistics();
    fill.counter("gochat_kafka_records_produced_total", "Records handed to the client of Kafka", stats.produced)?;
    fill.counter("gochat_kafka_records_delivered_total", "Records that the brokers keep", stats.delivered)?;
    fill.counter("gochat_kafka_records_failed_total", "Records that the brokers did not take in time", stats.failed)?;
    fill.counter("gochat_kafka_hints_lost_total", "Records for gateways whose topic does not exist", stats.hints_lost)?;
    fill.counter("gochat_kafka_offers_refused_total", "Messages refused because the bus was full", stats.refused)?;
    fill.counter("gochat_kafka_records_consumed_total", "Records received", stats.consumed)?;
    fill.counter("gochat_kafka_records_committed_total", "Records done", stats.committed)?;
    fill.counter("gochat_kafka_dead_letters_total", "Records that nobody can read", stats.dead_lettered)?;
    fill.gauge("gochat_kafka_records_in_flight", "Records on their way to the brokers", stats.in_flight)?;
    fill.gauge("gochat_kafka_up", "Whether the brokers answered lately", u64::from(stats.up))?;
    fill.by("gochat_kafka_consumer_lag_records", "Records that wait to be consumed here", ["topic", "partition"], |gauge| {
        for (topic, partition, lag) in &stats.lag {
            gauge.with_label_values(&[topic.as_str(), &partition.to_string()]).set(*lag);
        }
    })
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
