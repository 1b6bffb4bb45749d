//! `./x bench cache [PART]...`: Selvedge as a cache beside nginx `proxy_cache`, Varnish and (for HTTP/3) Caddy. Servers run on one core, loads on the other.
//!
//! Generators: wrk for peaks over HTTP/1.1, h2load for HTTP/2 and for everything at a fixed rate, and for HTTP/3 one of our own ([`h3`]), whose CPU is reported. Environment:
//! `SELVEDGE_BENCH_SECONDS` (of one run, default 4), `SELVEDGE_BENCH_RUNS` (of each figure, default 3), `SELVEDGE_BENCH_PAIRS` (of `churn`, default 7),
//! `SELVEDGE_BENCH_OBJECTS` (default 1,000,000).

mod churn;
mod fill;
pub(crate) mod h3;
mod hits;
mod load;
mod objects;
mod stage;
mod upstream;

use crate::table::Table;

type Part = (&'static str, fn(&mut Table) -> anyhow::Result<()>);

const PARTS: [Part; 7] = [
    ("hits", hits::peaks),
    ("half", hits::at_half),
    ("miss", hits::misses),
    ("memory", objects::memory),
    ("disk", objects::disk),
    ("start", objects::start),
    ("churn", churn::measure),
];

/// Measures the parts that are named, all without any.
pub(crate) fn run(wanted: &[String]) -> anyhow::Result<()> {
    if let Some(unknown) = wanted.iter().find(|word| !PARTS.iter().any(|(name, _)| name == word)) {
        anyhow::bail!("no part {unknown:?} of the cache; there are {}", PARTS.map(|(name, _)| name).join(", "));
    }
    let mut table = Table::default();
    let chosen = PARTS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|word| word == name));
    for (name, measure) in chosen {
        eprintln!("measuring cache {name} ...");
        measure(&mut table)?;
    }
    table.print("cache")
}

/// A number from the environment.
fn setting(name: &str, default: u32) -> u32 {
    std::env::var(format!("SELVEDGE_BENCH_{name}")).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
