//! What a scenario found out, as one object and as a table for people.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::verify::Verdict;

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

    pub fn merge(&mut self, other: &Latencies) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// A quantile in milliseconds.
    pub fn millis(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// p50, p99 and p99.9 in milliseconds; null without a sample.
    pub fn value(&self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        json!({"p50": self.millis(0.5), "p99": self.millis(0.99), "p999": self.millis(0.999)})
    }
}

/// One scenario's figures, and whether it found a fault: those that every scenario has, null where they do not apply, and its own.
pub struct Figures {
    scenario: &'static str,
    values: Map<String, Value>,
    violated: bool,
}

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
    pub fn of(scenario: &'static str) -> Self {
        let values = ALWAYS.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
        let mut figures = Figures { scenario, values, violated: false };
        figures.set("scenario", scenario);
        figures
    }

    pub fn scenario(&self) -> &'static str {
        self.scenario
    }

    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.values.insert(name.to_owned(), value.into());
    }

    /// A number, to three digits behind the point.
    pub fn number(&mut self, name: &str, value: f64) {
        self.set(name, (value * 1000.0).round() / 1000.0);
    }

    /// What the machine could do at best, and the share of it that was reached.
    pub fn share(&mut self, reached: f64, limit: Option<f64>) {
        if let Some(limit) = limit {
            self.number("limit_per_s", limit);
            self.number("share_of_limit", reached / limit);
        }
    }

    pub fn verdict(&mut self, verdict: Verdict) {
        self.set("lost", verdict.lost);
        self.set("repeated", verdict.repeated);
        self.set("disordered", verdict.disordered);
        self.set("missing_live", verdict.missing_live);
        self.set("stored_though_refused", verdict.stored_though_refused);
        self.violated = verdict.is_violated();
    }

    /// Whether messages were lost, repeated or disordered.
    pub fn is_violated(&self) -> bool {
        self.violated
    }

    pub fn json(&self) -> String {
        Value::Object(self.values.clone()).to_string()
    }

    /// One figure a line, without those that do not apply, the scenario first.
    pub fn text(&self) -> String {
        let mut lines = format!("{}\n", self.scenario);
        for (name, value) in self.values.iter().filter(|(name, value)| !value.is_null() && *name != "scenario") {
            let shown = match value {
                Value::String(text) => text.clone(),
                Value::Object(parts) => parts.iter().map(|(part, value)| format!("{part} {value}")).collect::<Vec<_>>().join(", "),
                other => other.to_string(),
            };
            if !shown.is_empty() {
                lines.push_str(&format!("  {name:<28} {shown}\n"));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_has_the_promised_names() {
        let mut figures = Figures::of("p2p");
        figures.share(1.0, Some(4.0));
        figures.verdict(Verdict { lost: 2, ..Verdict::default() });
        let object: Value = serde_json::from_str(&figures.json()).unwrap();
        assert!(ALWAYS.iter().all(|name| object.get(name).is_some()));
        assert_eq!((&object["lost"], &object["share_of_limit"], &object["ack_ms"]), (&json!(2), &json!(0.25), &Value::Null));
        assert!(figures.is_violated() && figures.text().contains("lost"));
    }

    #[test]
    fn latencies_are_milliseconds() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.value(), Value::Null);
        (1..=100).for_each(|millis| latencies.add(Duration::from_millis(millis)));
        assert!((latencies.millis(0.5) - 50.0).abs() < 0.1 && (latencies.millis(0.99) - 99.0).abs() < 0.1);
    }
}
