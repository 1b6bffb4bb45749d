//! A million objects of 1 KiB: memory for each, hits from disk, and how long a start takes with them on disk.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::stage::{Over, Stage, Subject};
use super::{fill, load, setting, upstream};
use crate::load::{median, wrk_script};
use crate::process::memory_of;
use crate::table::Table;

const BYTES: usize = 1024;
/// What a start may take.
const START_WAIT: Duration = Duration::from_secs(120);

fn objects() -> u32 {
    setting("OBJECTS", 1_000_000)
}

fn held_bytes(subject: &Subject) -> u64 {
    subject.server().family().into_iter().filter_map(memory_of).sum()
}

/// Memory for each stored object, all of it in memory.
fn memory_per_object(subject: &Subject) -> anyhow::Result<f64> {
    let address = subject.at(Over::H1).ok_or_else(|| anyhow::anyhow!("no cleartext"))?;
    load::peak(subject, Over::H1, &format!("/{BYTES}/hit"), 1)?;
    let before = held_bytes(subject);
    fill::all(address, BYTES, objects())?;
    std::thread::sleep(Duration::from_secs(2));
    Ok(held_bytes(subject).saturating_sub(before) as f64 / f64::from(objects()))
}

/// Selvedge and Varnish hold objects in their own memory; nginx keeps files, and only keys in memory.
pub(super) fn memory(table: &mut Table) -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let bytes = u64::from(objects()) * 4096 + (64 << 20);
    let ours = memory_per_object(&stage.ours(&format!("[cache]\nmemory_bytes = {bytes}\n"))?)?;
    let varnish = memory_per_object(&stage.varnish(bytes)?)?;
    table.beside("memory per stored object of 1 KiB", "bytes", ours, ("Varnish", varnish), varnish / ours, "");
    let cache = tempfile::tempdir()?;
    let nginx = memory_per_object(&stage.nginx(cache.path())?)?;
    table.beside("memory per stored object of 1 KiB (nginx: its key only)", "bytes", ours, ("nginx", nginx), nginx / ours, "");
    Ok(())
}

/// A node whose memory holds little of what its disk holds.
fn on_disk(stage: &Stage) -> anyhow::Result<Subject> {
    stage.ours(&format!("[cache]\nmemory_bytes = {}\n{}", 8 << 20, DISK))
}

/// How a node's file says that there is a disk tier: room for all objects of the largest run.
const DISK: &str = "disk_bytes = 17179869184\n";

/// Hits that come from disk: random ones of all that are stored.
pub(super) fn disk(table: &mut Table) -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let cache = tempfile::tempdir()?;
    let count = objects();
    let script = random_of(count)?;
    let (seconds, runs) = (setting("SECONDS", 4), setting("RUNS", 3));
    let measure = |subject: &Subject| -> anyhow::Result<(f64, f64, f64)> {
        let address = subject.at(Over::H1).ok_or_else(|| anyhow::anyhow!("no cleartext"))?;
        fill::all(address, BYTES, count)?;
        let (mut samples, asked) = (Vec::new(), upstream::asked());
        for run in 0..=runs {
            let sample = wrk_script(subject.server(), &format!("http://{address}/"), script.path(), load::CONNECTIONS, seconds)?;
            if run > 0 {
                samples.push(sample);
            }
        }
        let of = |figure: fn(&crate::load::Sample) -> f64| median(samples.iter().map(figure).collect());
        let requests = of(|sample| sample.per_second) * f64::from(seconds) * f64::from(runs + 1);
        let missed = (upstream::asked() - asked) as f64 / requests * 100.0;
        Ok((of(|sample| sample.per_cpu_second), of(|sample| sample.p99_us), missed))
    };
    let ours = measure(&on_disk(&stage)?)?;
    let nginx = measure(&stage.nginx(cache.path())?)?;
    table.beside("1 KiB hit from disk, h1", "requests per CPU second", ours.0, ("nginx", nginx.0), ours.0 / nginx.0, "");
    table.beside("1 KiB hit from disk, h1: p99 at full load", "µs", ours.1, ("nginx", nginx.1), nginx.1 / ours.1, "");
    table.beside("1 KiB hit from disk, h1: of these, misses", "%", ours.2, ("nginx", nginx.2), f64::NAN, "0");
    Ok(())
}

/// Makes wrk ask for a random one of so many objects.
fn random_of(count: u32) -> anyhow::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    writeln!(file, "math.randomseed(7)\nrequest = function() return wrk.format(nil, '/{BYTES}/' .. math.random(0, {})) end", count - 1)?;
    file.flush()?;
    Ok(file)
}

/// From starting the process until it listens, and to the first hit from disk.
pub(super) fn start(table: &mut Table) -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let count = objects();
    let mut subject = on_disk(&stage)?;
    let address = subject.at(Over::H1).ok_or_else(|| anyhow::anyhow!("no cleartext"))?;
    fill::all(address, BYTES, count)?;
    // What was asked for last is the last to be written.
    std::thread::sleep(Duration::from_secs(3));
    let node = subject.ours.take().ok_or_else(|| anyhow::anyhow!("it is ours"))?;
    let begun = Instant::now();
    let node = node.restart_edge()?;
    let ours = until_hit(&node.http, address, begun)?;
    drop(node);
    let cache = tempfile::tempdir()?;
    let nginx = stage.nginx(cache.path())?;
    fill::all(nginx.at(Over::H1).ok_or_else(|| anyhow::anyhow!("no cleartext"))?, BYTES, count)?;
    drop(nginx);
    let begun = Instant::now();
    let nginx = stage.nginx(cache.path())?;
    let address = nginx.at(Over::H1).ok_or_else(|| anyhow::anyhow!("no cleartext"))?;
    let theirs = until_hit(&address.to_string(), address, begun)?;
    let what = format!("start with {count} objects on disk");
    table.beside(&format!("{what}: until it listens"), "ms", ours.0, ("nginx", theirs.0), theirs.0 / ours.0, "");
    table.beside(&format!("{what}: until the first hit"), "ms", ours.1, ("nginx", theirs.1), theirs.1 / ours.1, "");
    Ok(())
}

/// Milliseconds since `begun` until now, when it listens, and until it first answers without asking its upstream. Asks at an address by the name that was asked before: what is
/// stored is stored under it.
fn until_hit(http: &str, name: SocketAddr, begun: Instant) -> anyhow::Result<(f64, f64)> {
    let listens = begun.elapsed();
    // Not the same one again: a miss is stored.
    for number in 0..objects() {
        anyhow::ensure!(begun.elapsed() < START_WAIT, "no hit within {START_WAIT:?} of its start");
        let asked = upstream::asked();
        let mut socket = std::net::TcpStream::connect(http)?;
        socket.write_all(format!("GET /{BYTES}/{number} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        if upstream::asked() == asked && answer.starts_with(b"HTTP/1.1 200") {
            return Ok((listens.as_secs_f64() * 1e3, begun.elapsed().as_secs_f64() * 1e3));
        }
    }
    anyhow::bail!("no hit among all objects")
}
