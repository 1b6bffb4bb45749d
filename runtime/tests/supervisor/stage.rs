//! Runs the tests one by one, and what they share: a supervisor, a host that remembers, requests.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use selvedge_runtime::protocol::Fields;
use selvedge_runtime::supervisor::{Supervisor, SupervisorConfig};
use selvedge_runtime::{
    Body, CacheAnswer, CacheAsk, CacheCall, CachePurge, ClientInfo, FetchError, Fetched, Host, Invocation, Limits, LogLine, Module,
    ModuleKind, Outcome, PurgeRefusal, Report, RunError, Strain, Subrequest, WorkerSource,
};

use crate::fake::Shared;

/// A test: its sentence and what it does.
pub(crate) type Test = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

/// What a test may take.
const TEST_MAX: Duration = Duration::from_secs(60);

/// Runs the tests whose names contain the first argument that is not an option, or all.
pub(crate) fn play(arguments: &[String], tests: &[Test]) {
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let mut failed = Vec::new();
    for (name, test) in tests.iter().filter(|(name, _)| wanted.is_none_or(|wanted| name.contains(wanted.as_str()))) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let result = runtime.block_on(async { tokio::time::timeout(TEST_MAX, AssertUnwindSafe(test()).catch_unwind()).await });
        runtime.shutdown_background();
        let ok = matches!(result, Ok(Ok(())));
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        if !ok {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

/// What the host keeps of one response.
const KEPT_BYTES_MAX: u64 = 1 << 20;

/// A host that answers every fetch with the request's body, and remembers what it is told.
#[derive(Default)]
pub(crate) struct Memory {
    /// Lines of the log.
    pub(crate) lines: Shared<Vec<LogLine>>,
    /// Reports.
    pub(crate) reports: Shared<Vec<Report>>,
    /// What was put, by URL.
    pub(crate) kept: Shared<std::collections::HashMap<String, Bytes>>,
    /// What was purged.
    pub(crate) purges: Shared<Vec<CachePurge>>,
    /// `passThroughOnException()` was called.
    pub(crate) passes: std::sync::atomic::AtomicBool,
    /// Woken at each report.
    pub(crate) reported: tokio::sync::Notify,
}

impl Host for Memory {
    fn fetch(&self, subrequest: Subrequest) -> BoxFuture<'static, Result<Fetched, FetchError>> {
        async move {
            let url = subrequest.request.uri().to_string();
            let body = subrequest.request.into_body().collect(1 << 20).await.map_err(|error| FetchError { message: error.to_string() })?;
            Ok(Fetched { response: Response::new(Body::full(body)), url, redirects: 0 })
        }
        .boxed()
    }

    fn cache(&self, ask: CacheAsk) -> BoxFuture<'static, Result<CacheAnswer, FetchError>> {
        let kept = self.kept.clone();
        async move {
            match ask.call {
                CacheCall::Match => Ok(match kept.lock().get(&ask.url) {
                    Some(bytes) => CacheAnswer::Found(Response::new(Body::full(bytes.clone()))),
                    None => CacheAnswer::No(None),
                }),
                CacheCall::Put(_) if ask.url.ends_with("/refuse") => Err(FetchError { message: "refused".to_owned() }),
                CacheCall::Put(response) => {
                    let bytes =
                        response.into_body().collect(KEPT_BYTES_MAX).await.map_err(|error| FetchError { message: error.to_string() })?;
                    kept.lock().insert(ask.url, bytes);
                    Ok(CacheAnswer::Yes)
                }
                CacheCall::Delete => Ok(if kept.lock().remove(&ask.url).is_some() { CacheAnswer::Yes } else { CacheAnswer::No(None) }),
            }
        }
        .boxed()
    }

    fn purge(&self, purge: CachePurge) -> BoxFuture<'static, Result<(), PurgeRefusal>> {
        let refused = purge.tags.iter().any(|tag| tag == "refuse");
        self.purges.lock().push(purge);
        let made = if refused { Err(PurgeRefusal { code: 429, message: "refused".to_owned() }) } else { Ok(()) };
        futures::future::ready(made).boxed()
    }

    fn pass_through(&self) {
        self.passes.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn log(&self, line: LogLine) {
        self.lines.lock().push(line);
    }

    fn finished(&self, report: Report) {
        self.reports.lock().push(report);
        self.reported.notify_one();
    }
}

impl Memory {
    /// The only report, as soon as there is one.
    pub(crate) async fn report(&self) -> Report {
        loop {
            if let Some(report) = self.reports.lock().first().cloned() {
                return report;
            }
            self.reported.notified().await;
        }
    }
}

/// A supervisor of fake runners with two threads each.
pub(crate) async fn supervisor() -> Supervisor {
    start(&[], false).await.expect("a supervisor")
}

/// A supervisor of fake runners that are told `how` to begin.
pub(crate) async fn start(how: &[&str], allow_unsandboxed: bool) -> std::io::Result<Supervisor> {
    strained(how, allow_unsandboxed, Arc::default()).await
}

/// The same on a node of which this says how loaded it is.
pub(crate) async fn strained(how: &[&str], allow_unsandboxed: bool, strain: Arc<Strain>) -> std::io::Result<Supervisor> {
    let executable = std::fs::File::open(std::env::current_exe()?)?;
    let arguments = std::iter::once("runner").chain(how.iter().copied()).map(str::to_owned).collect();
    Supervisor::start(SupervisorConfig { executable, arguments, threads: 2, allow_unsandboxed, strain }).await
}

/// A version of a worker.
pub(crate) fn worker(name: &str, version: &str) -> Arc<WorkerSource> {
    limited(name, version, Limits::default())
}

/// A version with limits.
pub(crate) fn limited(name: &str, version: &str, limits: Limits) -> Arc<WorkerSource> {
    let bytes = Bytes::from(vec![b' '; 200_000]);
    Arc::new(WorkerSource {
        worker: name.into(),
        version: version.into(),
        cordon: "shared".into(),
        entry: "index.js".to_owned(),
        modules: vec![Module { specifier: "index.js".to_owned(), kind: ModuleKind::EsModule, bytes, source_map: None }],
        vars: Default::default(),
        compatibility_date: "2026-01-01".to_owned(),
        compatibility_flags: Vec::new(),
        limits,
    })
}

/// An invocation, and its host.
pub(crate) fn request(method: Method, path: &str, body: Body) -> (Invocation, Arc<Memory>) {
    let host = Arc::new(Memory::default());
    let request = Request::builder().method(method).uri(format!("https://shop.example/{path}")).body(body).expect("a request");
    let client = ClientInfo { http_protocol: "HTTP/3", tls_version: Some("TLSv1.3"), colo: "node-1".into() };
    (Invocation { request, written: Fields::default(), client, host: host.clone() }, host)
}

/// Gets a path.
pub(crate) async fn get(supervisor: &Supervisor, source: &Arc<WorkerSource>, path: &str) -> Result<(u16, Bytes), RunError> {
    send(supervisor, source, Method::GET, path, Body::empty()).await
}

/// Sends a request and collects the response.
pub(crate) async fn send(
    supervisor: &Supervisor,
    source: &Arc<WorkerSource>,
    method: Method,
    path: &str,
    body: Body,
) -> Result<(u16, Bytes), RunError> {
    let (invocation, _) = request(method, path, body);
    let response = supervisor.run(source, invocation).await?;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect(64 << 20).await.map_err(|error| RunError {
        outcome: Outcome::ResponseStreamDisconnected,
        message: error.to_string(),
        retry_after: None,
        request_body: None,
    })?;
    Ok((status, bytes))
}

/// Waits until something holds: for what other processes do, which nothing announces.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while !holds() {
        ticks.tick().await;
    }
}
