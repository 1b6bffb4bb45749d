//! Cold starts: the first request to a worker that is deployed but not loaded, minus a warm one.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::load::median;
use crate::ours::Ours;
use crate::table::Table;

/// Workers, each asked once cold and a few times warm.
const WORKERS: usize = 100;
const WARM: usize = 5;
/// How long a node that has just started is left alone: what it does then (it joins, plans, starts a standby) is not what a cold start costs, and the
/// first request would wait for that.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// p50 and p99 of the time to first byte of a cold request, minus the median of warm ones.
pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let ours = Ours::start()?;
    for n in 0..WORKERS {
        let script = format!("const n = {n}; export default {{ fetch: () => new Response('worker ' + n) }};");
        ours.deploy(&format!("cold-{n}"), &script)?;
    }
    let ours = ours.restart_edge()?;
    std::thread::sleep(SETTLED_AFTER);
    let mut extra = Vec::new();
    for n in 0..WORKERS {
        let host = format!("cold-{n}.test");
        let cold = first_byte(&ours.http, &host)?;
        let warm = (0..WARM).map(|_| first_byte(&ours.http, &host).map(|time| time.as_secs_f64())).collect::<Result<Vec<_>, _>>()?;
        extra.push(((cold.as_secs_f64() - median(warm)) * 1e3).max(0.0));
        // The pool of blank isolates refills while nothing is asked, as between real cold starts.
        std::thread::sleep(Duration::from_millis(100));
    }
    extra.sort_by(f64::total_cmp);
    table.alone("cold start p50", "ms", extra[WORKERS / 2], "");
    table.alone("cold start p99", "ms", extra[WORKERS * 99 / 100], "5");
    Ok(())
}

fn first_byte(address: &str, host: &str) -> anyhow::Result<Duration> {
    let mut socket = std::net::TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let start = Instant::now();
    socket.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = [0; 12];
    socket.read_exact(&mut answer)?;
    let took = start.elapsed();
    anyhow::ensure!(answer.ends_with(b"200"), "{host}: {}", String::from_utf8_lossy(&answer));
    Ok(took)
}
