//! What a scenario found out, as one object and as a table for people.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// Latencies, in microseconds up to a minute.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Self {
        // The bounds are constants that the histogram takes.
        Latencies(Histogram::new_with_bounds(1, 60_000_000, 3).unwrap_or_else(|_| Histogram::new(3).unwrap_or_else(|_| unreachable!())))
    }

    pub fn add(&mut self, latency: Duration) {
        self.0.saturating_record((latency.as_micros() as u64).max(1));
    }

    /// p50, p99 and p99.9 in milliseconds; null without a sample.
    pub fn value(&self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        let at = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        json!({"p50": at(0.5), "p99": at(0.99), "p999": at(0.999)})
    }
}

/// One scenario's figures: those that every scenario has, null where they do not apply, and its own.
pub struct Figures(Map<String, Value>);

/// Figures that every object has.
const ALWAYS: [&str; 11] = [
    "scenario",
    "acked_per_s",
    "deliveries_per_s",
    "ack_ms",
    "e2e_ms",
    "server_cpu_us_per_msg",
    "rss_bytes_per_connection",
    "fdatasync_us",
    "lost",
    "repeated",
    "disordered",
];

impl Figures {
    pub fn of(scenario: &str) -> Self {
        let mut figures = Figures(ALWAYS.iter().map(|name| ((*name).to_owned(), Value::Null)).collect());
        figures.set("scenario", scenario);
        figures
    }

    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// A rate or share, to three digits behind the point.
    pub fn number(&mut self, name: &str, value: f64) {
        self.set(name, (value * 1000.0).round() / 1000.0);
    }

    pub fn value(&self, name: &str) -> Value {
        self.0.get(name).cloned().unwrap_or_default()
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(Value::as_f64)
    }

    /// Messages that were lost, repeated or disordered.
    pub fn violations(&self) -> f64 {
        ["lost", "repeated", "disordered"].iter().filter_map(|name| self.get(name)).sum()
    }

    pub fn json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// One figure a line, without those that do not apply.
    pub fn text(&self) -> String {
        let mut lines = String::new();
        for (name, value) in self.0.iter().filter(|(_, value)| !value.is_null()) {
            let shown = match value {
                Value::String(text) => text.clone(),
                Value::Object(parts) => parts.iter().map(|(part, value)| format!("{part} {value}")).collect::<Vec<_>>().join(", "),
                other => other.to_string(),
            };
            lines.push_str(&format!("{name:<28} {shown}\n"));
        }
        lines
    }
}
