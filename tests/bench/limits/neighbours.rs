//! What the neighbours notice of a worker that computes to its full legal limit again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Answer, CPU_MS, ask, send};
use crate::load::median;
use crate::ours::Ours;
use crate::table::Table;

/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(8);
/// The pace of a neighbour's requests.
const PACE: Duration = Duration::from_millis(2);
/// How long one request of a hundred may take, in milliseconds.
const P99_MS: f64 = 50.0;

/// The p99 of neighbours, of whom no request may fail.
pub(super) fn measure(table: &mut Table, ours: &Ours) -> anyhow::Result<()> {
    let compute = "export default { fetch(request) { let x = 0; for (let i = 0, n = +new URL(request.url).searchParams.get('n'); i < n; i++) \
                   x = (x + i * i) | 0; return new Response('' + x) } }";
    let hello = "export default { fetch: () => new Response('hello') }";
    ours.deploy_in("computes", compute, Some("one"))?;
    ours.deploy_in("same", hello, Some("one"))?;
    ours.deploy_in("other", hello, Some("two"))?;
    let rounds = rounds_within_the_limit(ours)?;
    let stop = Arc::new(AtomicBool::new(false));
    let watch = |name: &'static str| {
        let (address, stop) = (ours.http.clone(), stop.clone());
        std::thread::spawn(move || steady(&address, name, &stop))
    };
    let (same, other) = (watch("same"), watch("other"));
    let begun = Instant::now();
    while begun.elapsed() < WATCHED {
        let answer = ask(&ours.http, "computes", &format!("?n={rounds}"))?;
        anyhow::ensure!(answer.status == 200 || answer.text.contains("exceededCpu"), "{}", answer.text);
    }
    stop.store(true, Ordering::Relaxed);
    for (name, watched) in [("in its cordon", same), ("in another cordon", other)] {
        let mut ms = watched.join().map_err(|_| anyhow::anyhow!("a neighbour panicked"))??;
        ms.sort_by(f64::total_cmp);
        let p99 = ms.get(ms.len() * 99 / 100).copied().unwrap_or(f64::NAN);
        table.within(&format!("p99 of a neighbour {name} of one that computes"), "ms", p99, P99_MS);
    }
    Ok(())
}

/// As many rounds as take nine tenths of the limit.
fn rounds_within_the_limit(ours: &Ours) -> anyhow::Result<u64> {
    let mut rounds = 1_000_000;
    loop {
        let took =
            (0..3).map(|_| ask(&ours.http, "computes", &format!("?n={rounds}")).map(|answer| answer.ms)).collect::<Result<_, _>>()?;
        if median(took) > CPU_MS * 0.8 {
            return Ok(rounds);
        }
        rounds = rounds * 9 / 8;
    }
}

/// Asks again and again until it is stopped, by GET and by POST: milliseconds of each answer.
fn steady(address: &str, name: &str, stop: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let mut ms = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let answer = if ms.len().is_multiple_of(2) { ask(address, name, "")? } else { post(address, name)? };
        anyhow::ensure!(answer.status == 200, "{name}: {}", answer.text);
        ms.push(answer.ms);
        std::thread::sleep(PACE);
    }
    Ok(ms)
}

fn post(address: &str, name: &str) -> anyhow::Result<Answer> {
    send(address, name, &format!("POST / HTTP/1.1\r\nHost: {name}.test\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"))
}
