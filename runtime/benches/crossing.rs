//! What crossing from edge to runner and back costs, without HTTP and without V8: CPU time of both sides per request at 64
//! connections, and an idle round trip beside that of a bare socket pair. Prints one line of JSON; `./x bench` shows it.

#[path = "../tests/supervisor/fake.rs"]
#[allow(dead_code, reason = "shared with the test")]
mod fake;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use selvedge_runtime::protocol::Fields;
use selvedge_runtime::supervisor::{Supervisor, SupervisorConfig};
use selvedge_runtime::{
    Body, CacheAnswer, CacheAsk, CachePurge, ClientInfo, FetchError, Fetched, Host, Invocation, Limits, LogLine, Module, ModuleKind,
    PurgeRefusal, Report, Subrequest, WorkerSource,
};

/// Connections of the busy measurement.
const CONNECTIONS: usize = 64;
/// Requests of each of them in one run.
const REQUESTS: usize = 3000;
/// Round trips of one idle run.
const ROUND_TRIPS: usize = 3000;
/// Runs; medians are reported.
const RUNS: usize = 5;

struct Silent;

impl Host for Silent {
    fn fetch(&self, _: Subrequest) -> BoxFuture<'static, Result<Fetched, FetchError>> {
        futures::future::ready(Err(FetchError { message: String::new() })).boxed()
    }

    fn cache(&self, _: CacheAsk) -> BoxFuture<'static, Result<CacheAnswer, FetchError>> {
        futures::future::ready(Ok(CacheAnswer::No(None))).boxed()
    }

    fn purge(&self, _: CachePurge) -> BoxFuture<'static, Result<(), PurgeRefusal>> {
        futures::future::ready(Ok(())).boxed()
    }

    fn pass_through(&self) {}

    fn log(&self, _: LogLine) {}

    fn finished(&self, _: Report) {}
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "runner") {
        fake::main(&arguments);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (busy, idle, bare) = runtime.block_on(async {
        let supervisor = supervisor().await;
        let source = source();
        supervisor.warm(&source).await.expect("warm");
        let mut busy = Vec::new();
        let mut idle = Vec::new();
        let mut bare = Vec::new();
        for _ in 0..RUNS {
            busy.push(run_busy(&supervisor, &source).await);
            // One right after the other: whatever else the machine does is in both.
            idle.push(run_idle(&supervisor, &source).await);
            bare.push(run_bare());
        }
        (busy, idle, bare)
    });
    let edge = median(busy.iter().map(|run| run.0));
    let made = median((0..RUNS).map(|_| run_made()));
    let runner = median(busy.iter().map(|run| run.1));
    let per_second = median(busy.iter().map(|run| run.2));
    let (idle, bare) = (median(idle), median(bare));
    println!(
        "{{\"crossing_edge_us\":{edge:.2},\"crossing_runner_us\":{runner:.2},\"request_us\":{made:.2},\"per_second\":{per_second:.0},\
         \"idle_us\":{idle:.1},\"bare_us\":{bare:.1}}}"
    );
}

async fn supervisor() -> Supervisor {
    let executable = std::fs::File::open(std::env::current_exe().expect("a path")).expect("this program");
    let arguments = vec!["runner".to_owned()];
    Supervisor::start(SupervisorConfig { executable, arguments, threads: 1, allow_unsandboxed: false, strain: Arc::default() })
        .await
        .expect("a supervisor")
}

fn source() -> Arc<WorkerSource> {
    let module = Module { specifier: "index.js".to_owned(), kind: ModuleKind::EsModule, bytes: "".into(), source_map: None };
    Arc::new(WorkerSource {
        worker: "hello".into(),
        version: "v1".into(),
        cordon: "shared".into(),
        entry: "index.js".to_owned(),
        modules: vec![module],
        vars: Default::default(),
        compatibility_date: "2026-01-01".to_owned(),
        compatibility_flags: Vec::new(),
        limits: Limits::default(),
    })
}

fn invocation(host: &Arc<dyn Host>, headers: &HeaderMap, request_id: &Arc<str>, path: &'static str) -> Invocation {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = http::Uri::from_static(path);
    *request.headers_mut() = headers.clone();
    let client = ClientInfo { http_protocol: "HTTP/1.1", tls_version: None, colo: request_id.clone() };
    Invocation { request, written: Fields::default(), client, host: host.clone() }
}

/// A browser's request: 8 fields, 400 bytes.
fn headers() -> HeaderMap {
    let long = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36";
    let fields = [
        ("host", "shop.example"),
        ("user-agent", long),
        ("accept", "text/html,application/xhtml+xml"),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en"),
        ("cookie", "session=0123456789abcdef0123456789abcdef"),
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1;proto=https"),
    ];
    fields.into_iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

async fn run_busy(supervisor: &Supervisor, source: &Arc<WorkerSource>) -> (f64, f64, f64) {
    let runner = runner_cpu(supervisor, source).await;
    let (edge, started) = (own_cpu(), Instant::now());
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (supervisor, source) = (supervisor.clone(), source.clone());
            tokio::spawn(async move {
                let (host, headers, id): (Arc<dyn Host>, _, Arc<str>) = (Arc::new(Silent), headers(), "r1".into());
                for _ in 0..REQUESTS {
                    let invocation = invocation(&host, &headers, &id, "http://shop.example/hello");
                    supervisor.run(&source, invocation).await.expect("an answer");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("a client that is content");
    }
    let (edge, wall) = (own_cpu() - edge, started.elapsed());
    let runner = runner_cpu(supervisor, source).await - runner;
    let requests = (CONNECTIONS * REQUESTS) as f64;
    (micros(edge) / requests, micros(runner) / requests, requests / wall.as_secs_f64())
}

/// Making the requests that the busy measurement sends, which is part of its edge side but not of the crossing.
fn run_made() -> f64 {
    let (host, headers, id): (Arc<dyn Host>, _, Arc<str>) = (Arc::new(Silent), headers(), "r1".into());
    let made = own_cpu();
    for _ in 0..CONNECTIONS * REQUESTS {
        std::hint::black_box(invocation(&host, &headers, &id, "http://shop.example/hello"));
    }
    micros(own_cpu() - made) / (CONNECTIONS * REQUESTS) as f64
}

async fn run_idle(supervisor: &Supervisor, source: &Arc<WorkerSource>) -> f64 {
    let (supervisor, source) = (supervisor.clone(), source.clone());
    // On a worker thread of the runtime, as a connection is.
    let run = tokio::spawn(async move {
        let (host, headers, id): (Arc<dyn Host>, _, Arc<str>) = (Arc::new(Silent), headers(), "r1".into());
        let started = Instant::now();
        for _ in 0..ROUND_TRIPS {
            let invocation = invocation(&host, &headers, &id, "http://shop.example/hello");
            supervisor.run(&source, invocation).await.expect("an answer");
        }
        micros(started.elapsed()) / ROUND_TRIPS as f64
    });
    run.await.expect("a task")
}

/// The same bytes, more or less, between two threads with blocking calls.
fn run_bare() -> f64 {
    let (mut ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    let other = std::thread::spawn(move || {
        let mut bytes = [0; 400];
        while theirs.read_exact(&mut bytes).is_ok() {
            theirs.write_all(&bytes[..200]).expect("a peer");
        }
    });
    let mut bytes = [0; 400];
    let started = Instant::now();
    for _ in 0..ROUND_TRIPS {
        ours.write_all(&bytes).expect("a peer");
        ours.read_exact(&mut bytes[..200]).expect("a peer");
    }
    let elapsed = micros(started.elapsed()) / ROUND_TRIPS as f64;
    drop(ours);
    other.join().expect("a thread");
    elapsed
}

async fn runner_cpu(supervisor: &Supervisor, source: &Arc<WorkerSource>) -> Duration {
    let (host, headers, id): (Arc<dyn Host>, _, Arc<str>) = (Arc::new(Silent), headers(), "r1".into());
    let response = supervisor.run(source, invocation(&host, &headers, &id, "http://shop.example/cpu")).await.expect("an answer");
    let text = response.into_body().as_whole().expect("whole");
    Duration::from_nanos(std::str::from_utf8(&text).expect("text").parse().expect("a number"))
}

fn own_cpu() -> Duration {
    Duration::from_nanos(fake::process_cpu_ns())
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
