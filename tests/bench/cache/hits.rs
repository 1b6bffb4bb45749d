//! Hits: as many as each server can give, and their latency at half of that; and how long a miss takes to its first byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::load::{self, Paced};
use super::stage::{Over, Stage, Subject};
use super::{setting, upstream};
use crate::load::{Sample, median};
use crate::table::Table;

const SIZES: [(usize, &str); 2] = [(1024, "1 KiB"), (100 << 10, "100 KiB")];
/// Misses that are timed for each server.
const MISSES: usize = 300;

/// Who is compared over a protocol.
struct Bench {
    ours: Subject,
    nginx: Subject,
    varnish: Subject,
    caddy: Subject,
    _cache: tempfile::TempDir,
    _stage: Stage,
}

impl Bench {
    fn start() -> anyhow::Result<Self> {
        let stage = Stage::new()?;
        let cache = tempfile::tempdir_in("/dev/shm")?;
        Ok(Self {
            ours: stage.ours("")?,
            nginx: stage.nginx(cache.path())?,
            varnish: stage.varnish(256 << 20)?,
            caddy: stage.caddy(&SIZES.map(|(size, _)| size))?,
            _cache: cache,
            _stage: stage,
        })
    }

    fn peers(&self, over: Over) -> Vec<&Subject> {
        match over {
            Over::H1 => vec![&self.nginx, &self.varnish],
            Over::H1Tls | Over::H2 => vec![&self.nginx],
            Over::H3 => vec![&self.caddy],
        }
    }
}

const PROTOCOLS: [Over; 4] = [Over::H1, Over::H1Tls, Over::H2, Over::H3];

/// Throughput, per CPU second and per second of the wall; CPU seconds per million hits.
pub(super) fn peaks(table: &mut Table) -> anyhow::Result<()> {
    let bench = Bench::start()?;
    let (seconds, runs) = (setting("SECONDS", 4), setting("RUNS", 3));
    for over in PROTOCOLS {
        for (size, called) in SIZES {
            let path = format!("/{size}/hit");
            let peers = bench.peers(over);
            let all: Vec<&Subject> = std::iter::once(&bench.ours).chain(peers).collect();
            let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); all.len()];
            for run in 0..=runs {
                let asked = upstream::asked();
                for (subject, samples) in all.iter().zip(&mut samples) {
                    let sample = load::peak(subject, over, &path, seconds)?;
                    // The first run warms up.
                    if run > 0 {
                        samples.push(sample);
                    }
                }
                anyhow::ensure!(run == 0 || upstream::asked() == asked, "not all of these were hits");
            }
            show(table, over, called, &all, &samples, seconds);
        }
    }
    Ok(())
}

fn show(table: &mut Table, over: Over, called: &str, all: &[&Subject], samples: &[Vec<Sample>], seconds: u32) {
    let of = |samples: &[Sample], figure: fn(&Sample) -> f64| median(samples.iter().map(figure).collect());
    let [ours, peers @ ..] = samples else { return };
    for (peer, theirs) in all.iter().skip(1).zip(peers) {
        let aim = match over {
            Over::H1 => "2",
            Over::H3 => "above 1",
            _ => "",
        };
        let what = format!("{called} hit, {}", over.name());
        let (our, their) = (of(ours, |sample| sample.per_cpu_second), of(theirs, |sample| sample.per_cpu_second));
        table.beside(&what, "requests per CPU second", our, (peer.name, their), our / their, if peer.name == "Varnish" { "" } else { aim });
        table.beside(&what, "CPU seconds per million", 1e6 / our, (peer.name, 1e6 / their), our / their, "");
        let (our, their) = (of(ours, |sample| sample.per_second), of(theirs, |sample| sample.per_second));
        table.beside(&what, "requests per second", our, (peer.name, their), our / their, "");
        if over == Over::H3 {
            let busy = |samples: &[Sample]| of(samples, |sample| sample.generator_cpu) / f64::from(seconds);
            table.beside(&what, "of a core for the generator (quinn and h3)", busy(ours), (peer.name, busy(theirs)), f64::NAN, "below 1");
        }
    }
}

/// p99 at half of the peak rate of each server, and CPU at a rate that both reach.
pub(super) fn at_half(table: &mut Table) -> anyhow::Result<()> {
    let bench = Bench::start()?;
    let (seconds, runs) = (setting("SECONDS", 4), setting("RUNS", 3));
    for over in PROTOCOLS {
        let path = format!("/{}/hit", SIZES[0].0);
        let mut rates = Vec::new();
        let all: Vec<&Subject> = std::iter::once(&bench.ours).chain(bench.peers(over)).collect();
        for subject in &all {
            load::peak(subject, over, &path, 1)?;
            rates.push(load::peak(subject, over, &path, seconds)?.per_second);
        }
        let same = rates.iter().copied().fold(f64::INFINITY, f64::min) / 2.0;
        let mut half = vec![(Vec::new(), Vec::new()); all.len()];
        for _ in 0..runs {
            for ((subject, rate), (half, at_same)) in all.iter().zip(&rates).zip(&mut half) {
                half.push(load::paced(subject, over, &path, rate / 2.0, seconds)?);
                at_same.push(load::paced(subject, over, &path, same, seconds)?);
            }
        }
        let of = |runs: &[Paced], figure: fn(&Paced) -> f64| median(runs.iter().map(figure).collect());
        let what = format!("1 KiB hit, {}", over.name());
        let (Some(ours), Some(our_rate)) = (half.first(), rates.first()) else { continue };
        for ((peer, theirs), their_rate) in all.iter().zip(&half).zip(&rates).skip(1) {
            let (our, their) = (of(&ours.0, |run| run.p99_us), of(&theirs.0, |run| run.p99_us));
            let named = format!("{what}: p99 at half of its peak ({:.0}/s and {:.0}/s)", our_rate / 2.0, their_rate / 2.0);
            table.beside(&named, "µs", our, (peer.name, their), their / our, "");
            let (our, their) = (of(&ours.0, |run| run.p50_us), of(&theirs.0, |run| run.p50_us));
            table.beside(&format!("{what}: median at half of its peak"), "µs", our, (peer.name, their), their / our, "");
            let (our, their) = (of(&ours.1, |run| run.cpu_per_million), of(&theirs.1, |run| run.cpu_per_million));
            let reached = of(&ours.1, |run| run.per_second);
            table.beside(&format!("{what}: at {reached:.0}/s"), "CPU seconds per million", our, (peer.name, their), their / our, "");
            if over == Over::H3 {
                let busy = |runs: &[Paced]| of(runs, |run| run.generator_cpu) / f64::from(seconds);
                let what = format!("{what}: at {reached:.0}/s, of a core for the generator");
                table.beside(&what, "quinn and h3", busy(&ours.1), (peer.name, busy(&theirs.1)), f64::NAN, "below 1");
            }
        }
    }
    Ok(())
}

/// Time to the first byte of a miss, one after the other on one connection to each.
pub(super) fn misses(table: &mut Table) -> anyhow::Result<()> {
    let bench = Bench::start()?;
    let mut timed = Vec::new();
    for subject in [&bench.ours, &bench.nginx, &bench.varnish] {
        let address = subject.at(Over::H1).ok_or_else(|| anyhow::anyhow!("no cleartext"))?;
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        timed.push((subject, address, socket, Vec::new()));
    }
    for number in 0..MISSES {
        for (_, address, socket, times) in &mut timed {
            times.push(first_byte(socket, *address, number)?);
        }
    }
    // The first ones open connections to the upstream.
    let typical: Vec<_> =
        timed.into_iter().map(|(subject, _, _, mut times)| (subject.name, median(times.split_off(MISSES / 10)))).collect();
    let [(_, ours), peers @ ..] = typical.as_slice() else { return Ok(()) };
    for (name, theirs) in peers {
        table.beside("1 KiB miss, h1: first byte", "µs", *ours, (name, *theirs), theirs / ours, "");
    }
    Ok(())
}

fn first_byte(socket: &mut TcpStream, address: SocketAddr, number: usize) -> anyhow::Result<f64> {
    let start = Instant::now();
    socket.write_all(format!("GET /1024/miss-{number} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut buffer = vec![0; 16 << 10];
    let mut held = socket.read(&mut buffer)?;
    let took = start.elapsed().as_secs_f64() * 1e6;
    anyhow::ensure!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..held.min(200)]));
    // The rest of the answer: its head, and 1 KiB.
    loop {
        let end = buffer[..held].windows(4).position(|end| end == b"\r\n\r\n");
        if end.is_some_and(|end| held >= end + 4 + 1024) {
            return Ok(took);
        }
        let read = socket.read(&mut buffer[held..])?;
        anyhow::ensure!(read > 0, "the connection ended");
        held += read;
    }
}
