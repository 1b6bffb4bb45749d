//! The load: wrk on its own core, and what it says.

use std::process::Command;

use crate::process::{LOAD_CORE, Server};
use crate::table::Table;

/// One run of load against one server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Requests answered per second of wall time.
    pub(crate) per_second: f64,
    /// Requests answered per second of the server's CPU time.
    pub(crate) per_cpu_second: f64,
    /// 99th percentile of the latency, in microseconds.
    pub p99_us: f64,
}

/// Loads `url` for `seconds` over `connections` HTTP/1.1 connections, asking for `host`.
pub(crate) fn run(server: &Server, url: &str, host: &str, connections: u32, seconds: u32) -> anyhow::Result<Sample> {
    let before = server.cpu();
    let output = Command::new("taskset")
        .args(["-c", LOAD_CORE, "wrk", "-t1", "--latency"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{seconds}s"))
        .arg("-H")
        .arg(format!("Host: {host}"))
        .arg(url)
        .output()?;
    let cpu = (server.cpu() - before).as_secs_f64();
    let text = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success(), "wrk {url}: {}", String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(!text.contains("Non-2xx"), "wrk {url}: errors among the answers:\n{text}");
    let field = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name).map(|rest| rest.trim().to_owned()));
    let per_second: f64 = field("Requests/sec:").unwrap_or_default().parse()?;
    let requests: f64 = text
        .lines()
        .find(|line| line.contains("requests in"))
        .and_then(|line| line.split_whitespace().next())
        .unwrap_or_default()
        .parse()?;
    Ok(Sample { per_second, per_cpu_second: requests / cpu, p99_us: microseconds(&field("99%").unwrap_or_default()) })
}

/// `1.50ms`, `812.00us` or `1.02s`.
fn microseconds(text: &str) -> f64 {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "us" => 1.0,
        "ms" => 1e3,
        _ => 1e6,
    };
    digits.parse::<f64>().unwrap_or(f64::NAN) * factor
}

/// One row for requests per CPU second and one for the latency: medians of both sides.
pub(crate) fn compare(table: &mut Table, what: &str, ours: &[Sample], peer: (&str, &[Sample]), aim: &'static str) {
    let of = |samples: &[Sample], figure: fn(&Sample) -> f64| median(samples.iter().map(figure).collect());
    let (our_rate, peer_rate) = (of(ours, |sample| sample.per_cpu_second), of(peer.1, |sample| sample.per_cpu_second));
    table.beside(what, "requests per CPU second", our_rate, (peer.0, peer_rate), our_rate / peer_rate, aim);
    let (our_rate, peer_rate) = (of(ours, |sample| sample.per_second), of(peer.1, |sample| sample.per_second));
    table.beside(what, "requests per second", our_rate, (peer.0, peer_rate), our_rate / peer_rate, "");
    let (our_p99, peer_p99) = (of(ours, |sample| sample.p99_us), of(peer.1, |sample| sample.p99_us));
    table.beside(&format!("{what}, p99 at full load"), "µs", our_p99, (peer.0, peer_p99), peer_p99 / our_p99, "");
}

/// The middle one of several figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
