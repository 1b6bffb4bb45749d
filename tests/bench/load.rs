//! The load: wrk on its own core, and what it says.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::process::{LOAD_CORE, Server, children_cpu};
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
    /// CPU time of the generator, in seconds.
    pub(crate) generator_cpu: f64,
}

/// Loads `url` for `seconds` over `connections` HTTP/1.1 connections, asking for `host`.
pub(crate) fn run(server: &Server, url: &str, host: &str, connections: u32, seconds: u32) -> anyhow::Result<Sample> {
    wrk(server, url, Some(host), connections, seconds)
}

/// The same; without a host, for that of the URL.
pub(crate) fn wrk(server: &Server, url: &str, host: Option<&str>, connections: u32, seconds: u32) -> anyhow::Result<Sample> {
    let host = host.map(|host| format!("Host: {host}"));
    let arguments: Vec<&OsStr> = host.iter().flat_map(|host| [OsStr::new("-H"), OsStr::new(host)]).collect();
    wrk_with(server, url, &arguments, connections, seconds)
}

/// The same, with requests that a script makes.
pub(crate) fn wrk_script(server: &Server, url: &str, script: &Path, connections: u32, seconds: u32) -> anyhow::Result<Sample> {
    wrk_with(server, url, &[OsStr::new("-s"), script.as_os_str()], connections, seconds)
}

fn wrk_with(server: &Server, url: &str, arguments: &[&OsStr], connections: u32, seconds: u32) -> anyhow::Result<Sample> {
    let (before, generator) = (server.cpu(), children_cpu());
    let output = Command::new("taskset")
        .args(["-c", LOAD_CORE, "wrk", "-t1", "--latency"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{seconds}s"))
        .args(arguments)
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
    let p99_us = microseconds(&field("99%").unwrap_or_default());
    let generator_cpu = (children_cpu() - generator).as_secs_f64();
    Ok(Sample { per_second, per_cpu_second: requests / cpu, p99_us, generator_cpu })
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
