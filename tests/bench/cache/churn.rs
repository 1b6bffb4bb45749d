//! What hits notice of everything else: their p99 at a fixed rate while fills, evictions and purges run, beside the same without them, in alternating pairs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::fill::{self, Steady};
use super::stage::{Over, Stage};
use super::{load, setting};
use crate::load::median;
use crate::table::Table;

/// Fills in a second: each a miss that is fetched and stored, is asked for again, and pushes something out of a memory that is full.
const FILLS_PER_SECOND: u32 = 500;
/// Time between two purges.
const PURGE_EVERY: Duration = Duration::from_millis(50);
/// Small, so that fills evict at once.
const MEMORY_BYTES: u64 = 16 << 20;
/// What is asked for before, twice: more than memory holds.
const BEFORE: u32 = 32 << 10;
/// The node's count of what memory evicted.
const EVICTIONS: &str = "selvedge_cache_evictions_total";

pub(super) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let ours = stage.ours(&format!("[cache]\nmemory_bytes = {MEMORY_BYTES}\n"))?;
    let address = ours.at(Over::H1).ok_or_else(|| anyhow::anyhow!("no cleartext"))?;
    let node = ours.ours.as_ref().ok_or_else(|| anyhow::anyhow!("it is ours"))?;
    let (seconds, pairs) = (setting("SECONDS", 4), setting("PAIRS", 7));
    let path = "/1024/hit";
    load::peak(&ours, Over::H1, path, 1)?;
    let rate = load::peak(&ours, Over::H1, path, seconds)?.per_second / 4.0;
    (0..2).try_for_each(|_| fill::all(address, 1024, BEFORE))?;
    let (mut still, mut moved, mut first, mut evicted) = (Vec::new(), Vec::new(), BEFORE, 0.0);
    for pair in 0..=pairs {
        let without = load::paced(&ours, Over::H1, path, rate, seconds)?.p99_us;
        let (filling, before) = (Steady::start(address, 1024, FILLS_PER_SECOND, first), node.metric(EVICTIONS)?);
        let purging = Purging::start(node, first)?;
        let with = load::paced(&ours, Over::H1, path, rate, seconds)?.p99_us;
        purging.stop()?;
        let filled = filling.stop()?;
        first += filled;
        let gone = node.metric(EVICTIONS)? - before;
        anyhow::ensure!(gone > 0.0, "{filled} fills evicted nothing");
        if pair > 0 {
            still.push(without);
            moved.push(with);
            evicted += gone / f64::from(seconds * pairs);
        }
    }
    let ratios: Vec<f64> = moved.iter().zip(&still).map(|(with, without)| with / without).collect();
    let spread = |figures: &[f64]| {
        let (low, high) = figures.iter().fold((f64::INFINITY, 0f64), |(low, high), figure| (low.min(*figure), high.max(*figure)));
        format!("{low:.2} to {high:.2}")
    };
    let what = format!("p99 of 1 KiB hits at {rate:.0}/s");
    table.alone(&format!("{what}, nothing else (spread {})", spread(&still)), "µs", median(still.clone()), "");
    let busy = format!("{what}, {FILLS_PER_SECOND} fills/s, {evicted:.0} evictions/s, 20 purges/s (spread {})", spread(&moved));
    table.alone(&busy, "µs", median(moved.clone()), "");
    table.alone(
        &format!("ratio of the two, median of {pairs} pairs (spread {})", spread(&ratios)),
        "",
        median(ratios.clone()),
        "at most 1.25",
    );
    Ok(())
}

/// Purges objects that are filled, again and again.
struct Purging {
    stop: Arc<AtomicBool>,
    worker: std::thread::JoinHandle<anyhow::Result<()>>,
}

impl Purging {
    fn start(ours: &crate::ours::Ours, first: u32) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut purge) = (stop.clone(), ours.purger()?);
        let worker = std::thread::spawn(move || {
            crate::process::stand_behind_the_load();
            let mut number = first;
            while !stopped.load(Relaxed) {
                purge(number)?;
                number += 1;
                std::thread::sleep(PURGE_EVERY);
            }
            Ok(())
        });
        Ok(Self { stop, worker })
    }

    fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Relaxed);
        self.worker.join().map_err(|_| anyhow::anyhow!("the purger panicked"))?
    }
}
