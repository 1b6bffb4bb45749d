//! What a message costs between edge and runner, without V8: the runtime's own benchmark, whose runner answers at once.

use std::process::Command;

use serde_json::Value;

use crate::process::SERVER_CORE;
use crate::table::Table;

/// CPU per request of both sides together at 64 connections, and an idle round trip beside that of a bare socket pair in the same run.
pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let output = Command::new("taskset")
        .args(["-c", SERVER_CORE, "cargo", "bench", "--locked", "-q", "-p", "selvedge-runtime", "--bench", "crossing"])
        .output()?;
    anyhow::ensure!(output.status.success(), "the crossing's benchmark: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Value = serde_json::from_str(text.lines().find(|line| line.starts_with('{')).unwrap_or_default())?;
    let figure = |name: &str| figures[name].as_f64().ok_or_else(|| anyhow::anyhow!("no {name} in {figures}"));
    // What making the request costs is the benchmark's own work, not the crossing's.
    let both = figure("crossing_edge_us")? + figure("crossing_runner_us")? - figure("request_us")?;
    table.alone("crossing, both sides, at 64 connections", "µs of CPU per request", both, "4");
    let (idle, bare) = (figure("idle_us")?, figure("bare_us")?);
    table.beside("idle crossing", "µs", idle, ("bare socket pair", bare), idle / bare, "at most 1.5");
    Ok(())
}
