//! Loads: as fast as a server goes, or at a fixed rate; over each protocol with the generator that knows it.

use std::path::Path;
use std::process::Command;

use super::h3;
use super::stage::{Over, Subject};
use crate::load::{Sample, wrk};
use crate::process::LOAD_CORE;

/// Connections of a load, and requests at one time on each that can have several.
pub(super) const CONNECTIONS: u32 = 64;
pub(super) const MULTIPLEXED_CONNECTIONS: u32 = 16;
pub(super) const STREAMS: u32 = 8;

/// One run at a fixed rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paced {
    /// What was reached, in requests per second.
    pub(super) per_second: f64,
    /// Percentiles of the latency, in microseconds.
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// CPU of the server, in seconds per million requests.
    pub(super) cpu_per_million: f64,
    /// CPU of the generator, in seconds.
    pub(super) generator_cpu: f64,
}

/// As fast as it goes.
pub(super) fn peak(subject: &Subject, over: Over, path: &str, seconds: u32) -> anyhow::Result<Sample> {
    let url = subject.url(over, path).ok_or_else(|| anyhow::anyhow!("{} does not speak {}", subject.name, over.name()))?;
    match over {
        Over::H1 | Over::H1Tls => wrk(subject.server(), &url, None, CONNECTIONS, seconds),
        Over::H2 => {
            let (before, generator) = (subject.server().cpu(), crate::process::children_cpu());
            let told = h2load(&url, seconds, None)?;
            let cpu = (subject.server().cpu() - before).as_secs_f64();
            let generator_cpu = (crate::process::children_cpu() - generator).as_secs_f64();
            let requests = told.latencies_us.len() as f64;
            let per_second = requests / f64::from(seconds);
            Ok(Sample { per_second, per_cpu_second: requests / cpu, p99_us: percentile(told.latencies_us, 99), generator_cpu })
        }
        Over::H3 => {
            let before = subject.server().cpu();
            let told = h3::generate(subject, path, seconds, None)?;
            let cpu = (subject.server().cpu() - before).as_secs_f64();
            Ok(Sample {
                per_second: told.requests / told.seconds,
                per_cpu_second: told.requests / cpu,
                p99_us: told.p99_us,
                generator_cpu: told.cpu_seconds,
            })
        }
    }
}

/// At `rate` requests per second in all.
pub(super) fn paced(subject: &Subject, over: Over, path: &str, rate: f64, seconds: u32) -> anyhow::Result<Paced> {
    let url = subject.url(over, path).ok_or_else(|| anyhow::anyhow!("{} does not speak {}", subject.name, over.name()))?;
    let (before, generator) = (subject.server().cpu(), crate::process::children_cpu());
    let (requests, p50_us, p99_us) = match over {
        Over::H3 => {
            let told = h3::generate(subject, path, seconds, Some(rate))?;
            (told.requests, told.p50_us, told.p99_us)
        }
        _ => {
            let told = h2load(&url, seconds, Some((rate, over)))?;
            (told.latencies_us.len() as f64, percentile(told.latencies_us.clone(), 50), percentile(told.latencies_us, 99))
        }
    };
    let cpu = (subject.server().cpu() - before).as_secs_f64();
    let generator_cpu = (crate::process::children_cpu() - generator).as_secs_f64();
    Ok(Paced { per_second: requests / f64::from(seconds), p50_us, p99_us, cpu_per_million: cpu / requests * 1e6, generator_cpu })
}

struct Told {
    latencies_us: Vec<u32>,
}

fn h2load(url: &str, seconds: u32, rate: Option<(f64, Over)>) -> anyhow::Result<Told> {
    let log = tempfile::NamedTempFile::new()?;
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE, "h2load", "-t1"]).arg(format!("-D{seconds}")).arg(format!("--log-file={}", log.path().display()));
    match rate {
        None => command.arg(format!("-c{MULTIPLEXED_CONNECTIONS}")).arg(format!("-m{STREAMS}")),
        Some((rate, over)) => {
            if over != Over::H2 {
                command.arg("--h1");
            }
            // Whole requests per second for each of its connections.
            let each = (rate / f64::from(MULTIPLEXED_CONNECTIONS)).round().max(1.0);
            command.arg(format!("-c{MULTIPLEXED_CONNECTIONS}")).arg(format!("--rps={each}"))
        }
    };
    let output = command.arg(url).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success(), "h2load {url}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
    Ok(Told { latencies_us: read_log(log.path(), url)? })
}

/// Columns: start, status, microseconds.
fn read_log(log: &Path, url: &str) -> anyhow::Result<Vec<u32>> {
    let text = std::fs::read_to_string(log)?;
    let mut latencies = Vec::new();
    for line in text.lines() {
        let mut columns = line.split('\t');
        let (status, took) = (columns.nth(1), columns.next());
        anyhow::ensure!(status == Some("200"), "h2load {url}: an answer with status {status:?}");
        latencies.push(took.unwrap_or_default().parse()?);
    }
    anyhow::ensure!(!latencies.is_empty(), "h2load {url}: no answer at all");
    Ok(latencies)
}

/// Of latencies in microseconds.
pub(super) fn percentile(mut latencies_us: Vec<u32>, percent: usize) -> f64 {
    latencies_us.sort_unstable();
    latencies_us.get(latencies_us.len() * percent / 100).copied().map_or(f64::NAN, f64::from)
}
