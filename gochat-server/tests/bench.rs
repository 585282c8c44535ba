//! `gochat bench` as its user runs it: each scenario, small, on a server of its own.

use std::process::{Command, Output};

use serde_json::Value;

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

fn run(folder: &std::path::Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gochat"));
    command.args(["bench", "--json", "--seconds", "0.5", "--folder"]).arg(folder).args(arguments);
    command.output().unwrap()
}

fn bench(arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(ALWAYS.iter().all(|name| figures.get(name).is_some()), "{figures}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the server's data is gone");
    figures
}

fn is_positive(figures: &Value, names: &[&str]) {
    for name in names {
        assert!(figures[name].as_f64().is_some_and(|value| value > 0.0), "{name}: {figures}");
    }
}

fn is_clean(figures: &Value) {
    for name in ["lost", "repeated", "disordered", "missing_live", "stored_though_refused", "unanswered"] {
        assert_eq!(figures[name], 0, "{name}: {figures}");
    }
}

#[test]
fn pairs_lose_nothing() {
    let figures = bench(&["--scenario", "p2p", "--clients", "10", "--window", "3", "--verify"]);
    is_clean(&figures);
    is_positive(&figures, &["acked_per_s", "deliveries_per_s", "server_cpu_us_per_msg", "fdatasync_us", "share_of_limit"]);
    is_positive(&figures["ack_ms"], &["p50", "p99", "p999"]);
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let figures = bench(&["--scenario", "p2p", "--clients", "4", "--rate", "200", "--verify"]);
    is_clean(&figures);
    is_positive(&figures, &["acked_per_s"]);
    assert!(figures["acked_per_s"].as_f64().is_some_and(|rate| rate < 400.0), "{figures}");
}

#[test]
fn groups_on_both_sides_of_the_threshold_lose_nothing() {
    for members in ["20", "120"] {
        let figures = bench(&["--scenario", "fanout", "--members", members, "--clients", "2", "--window", "2", "--verify"]);
        is_clean(&figures);
        is_positive(&figures, &["deliveries_per_s", "server_cpu_us_per_delivery"]);
        is_positive(&figures["last_member_ms"], &["p50"]);
    }
}

#[test]
fn every_other_scenario_has_its_figures() {
    is_positive(&bench(&["--scenario", "idle", "--clients", "100"]), &["rss_bytes"]);
    is_positive(&bench(&["--scenario", "connect", "--clients", "60"]), &["connects_per_s"]);
    is_positive(&bench(&["--scenario", "history", "--clients", "4"]), &["pages_per_s"]);
    is_positive(&bench(&["--scenario", "start"]), &["ready_ms", "rss_bytes"]);
}

#[test]
fn what_cannot_run_fails_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["--scenario", "p2p", "--clients", "2", "--url", "http://127.0.0.1:1"]);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("P2p"), "{}", String::from_utf8_lossy(&output.stderr));
}
