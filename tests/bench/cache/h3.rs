//! A load generator for HTTP/3, made of quinn and h3: this very program in a process of its own on the load's core. As fast as the server goes with so many requests at one
//! time, or at a fixed rate; then a latency counts from when its request was due (no coordinated omission).

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use quinn::crypto::rustls::QuicClientConfig;
use serde::{Deserialize, Serialize};

use super::load::{MULTIPLEXED_CONNECTIONS, STREAMS, percentile};
use super::stage::{Over, Subject};
use crate::process::LOAD_CORE;

/// The word that makes this program the generator.
pub(crate) const WORD: &str = "generate-h3";

/// What it did.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Generated {
    pub(super) requests: f64,
    pub(super) seconds: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// Its own CPU.
    pub(super) cpu_seconds: f64,
}

/// Runs it against a subject.
pub(super) fn generate(subject: &Subject, path: &str, seconds: u32, rate: Option<f64>) -> anyhow::Result<Generated> {
    let address = subject.at(Over::H3).ok_or_else(|| anyhow::anyhow!("{} does not speak HTTP/3", subject.name))?;
    let output = Command::new("taskset")
        .args(["-c", LOAD_CORE])
        .arg(std::env::current_exe()?)
        .args([WORD, &address.to_string(), path, &seconds.to_string(), &rate.unwrap_or(0.0).to_string()])
        .output()?;
    anyhow::ensure!(output.status.success(), "{WORD} {address}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The generator: ADDRESS PATH SECONDS RATE (0: as fast as it goes). Prints what it did.
pub(crate) fn main(arguments: &[String]) -> anyhow::Result<()> {
    let [address, path, seconds, rate] = arguments else { anyhow::bail!("{WORD} ADDRESS PATH SECONDS RATE") };
    let (address, seconds, rate) = (address.parse()?, Duration::from_secs(seconds.parse()?), rate.parse::<f64>()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let generated = runtime.block_on(load(address, path, seconds, rate))?;
    println!("{}", serde_json::to_string(&generated)?);
    // What is still under way is not waited for.
    runtime.shutdown_background();
    Ok(())
}

async fn load(address: SocketAddr, path: &str, seconds: Duration, rate: f64) -> anyhow::Result<Generated> {
    let config = QuicClientConfig::try_from(selvedge_tests::client::anyone(b"h3"))?;
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(config)));
    let uri: http::Uri = format!("https://localhost:{}{path}", address.port()).parse()?;
    let shared = Arc::new(Shared { uri, latencies_us: Mutex::default(), due: AtomicU64::new(0), rate, start: Instant::now(), seconds });
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..MULTIPLEXED_CONNECTIONS {
        let quic = endpoint.connect(address, "localhost")?.await?;
        let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(quic)).await?;
        tokio::spawn(async move { driver.wait_idle().await });
        for _ in 0..STREAMS {
            workers.spawn(work(sender.clone(), shared.clone()));
        }
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    let latencies_us = std::mem::take(&mut *shared.latencies_us.lock());
    Ok(Generated {
        requests: latencies_us.len() as f64,
        seconds: seconds.as_secs_f64(),
        p50_us: percentile(latencies_us.clone(), 50),
        p99_us: percentile(latencies_us, 99),
        cpu_seconds: crate::process::own_cpu().as_secs_f64(),
    })
}

struct Shared {
    uri: http::Uri,
    latencies_us: Mutex<Vec<u32>>,
    /// Requests that have been taken from the schedule.
    due: AtomicU64,
    rate: f64,
    start: Instant,
    seconds: Duration,
}

async fn work(mut sender: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>, shared: Arc<Shared>) -> anyhow::Result<()> {
    loop {
        let mut begun = Instant::now();
        if shared.rate > 0.0 {
            let number = shared.due.fetch_add(1, Relaxed);
            begun = shared.start + Duration::from_secs_f64(number as f64 / shared.rate);
            tokio::time::sleep_until(begun.into()).await;
        }
        if begun.duration_since(shared.start) >= shared.seconds {
            return Ok(());
        }
        let request = http::Request::get(shared.uri.clone()).body(())?;
        let mut stream = sender.send_request(request).await?;
        stream.finish().await?;
        let response = stream.recv_response().await?;
        anyhow::ensure!(response.status() == 200, "an answer with status {}", response.status());
        while let Some(mut data) = stream.recv_data().await? {
            data.advance(data.remaining());
        }
        shared.latencies_us.lock().push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
}
