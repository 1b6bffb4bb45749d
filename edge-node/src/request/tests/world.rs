//! A request path with real upstream servers on loopback, scripted workers, and a clock that stands still.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use selvedge_origin::registry::CacheSettings;
use selvedge_runtime::{Body, Invocation, Limits, RunError, Strain, WorkerSource};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::cache::Cache;
use crate::cache::disk::DiskConfig;
use crate::deployments::{Contact, Purger};
use crate::listen::{Connection, Interim, Protocol, TlsInfo};
use crate::metrics::{Metrics, RouteCounters};
use crate::request::{Clock, Observer, Parts, RequestPath, RequestRecord};
use crate::routes::{ActiveRoutes, ActiveWorker, Route, RouteTable, Target};
use crate::tasks::{self, Tasks};
use crate::upstream::{Group, Upstreams, UpstreamsConfig};
use crate::workers::Runners;

/// The time at which every world begins.
pub(super) const START_MS: u64 = 1_700_000_000_000;

type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// An upstream.
pub(super) struct Server {
    pub(super) address: std::net::SocketAddr,
    requests: Arc<AtomicUsize>,
    _listening: AbortOnDropHandle<()>,
}

impl Server {
    /// Answers every request with `answer`.
    pub(super) async fn start<F>(answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let handler: Handler = Arc::new(move |request| {
            counted.fetch_add(1, SeqCst);
            answer(request).boxed()
        });
        let listening = tasks::owned("test upstream", async move {
            let mut connections = Vec::new();
            while let Ok((socket, _)) = listener.accept().await {
                let handler = handler.clone();
                let service = hyper::service::service_fn(move |request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                connections.push(tasks::owned("test connection", async move {
                    let _ = connection.await;
                }));
            }
        });
        Self { address, requests, _listening: listening }
    }

    /// Answers every request with the same fields and body.
    pub(super) async fn fixed(fields: &'static [(&'static str, &'static str)], body: &'static str) -> Self {
        Self::start(move |_| async move { response(200, fields, body) }).await
    }

    /// Answers every request with a part.
    pub(super) async fn fixed206(range: &'static str, body: &'static str) -> Self {
        Self::start(move |_| async move { response(206, &[("cache-control", "max-age=60"), ("content-range", range)], body) }).await
    }

    /// Answers one request of each connection, when all of it has come, and notes every byte that comes.
    pub(super) async fn recording(seen: &Arc<Mutex<String>>) -> Self {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, seen) = (listener.local_addr().expect("an address"), seen.clone());
        let listening = tasks::owned("test upstream", async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                while let Ok(byte) = socket.read_u8().await {
                    let whole = {
                        let mut seen = seen.lock();
                        seen.push(byte.into());
                        let end = if seen.contains("content-length: 2\r\n") { "\r\n\r\nbo" } else { "\r\n\r\nbody" };
                        seen.ends_with(end) || seen.ends_with("\r\n0\r\n\r\n")
                    };
                    if whole {
                        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                    }
                }
            }
        });
        Self { address, requests: Arc::default(), _listening: listening }
    }

    /// How many it has had.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

pub(super) fn response(status: u16, fields: &[(&'static str, &'static str)], body: &'static str) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(Body::full(body)).expect("a response")
}

/// A request path and what belongs to it.
pub(super) struct World {
    pub(super) path: Arc<RequestPath>,
    pub(super) clock: Arc<AtomicU64>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) records: Arc<Records>,
    pub(super) tasks: Tasks,
    pub(super) contact: Arc<Contact>,
    pub(super) strain: Arc<Strain>,
}

#[derive(Default)]
pub(super) struct Records(pub(super) Mutex<Vec<RequestRecord>>);

impl Observer for Records {
    fn request(&self, record: &RequestRecord) {
        self.0.lock().push(record.clone());
    }
}

impl World {
    /// With these routes, and no workers.
    pub(super) fn new(routes: Vec<Route>) -> Self {
        Self::with_worker(routes, |_| async { panic!("no worker is routed") })
    }

    /// With these routes; every worker is `script`.
    pub(super) fn with_worker<F>(routes: Vec<Route>, script: impl Fn(Invocation) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Response<Body>, RunError>> + Send + 'static,
    {
        Self::reaching("192.0.2.0/24", routes, script)
    }

    /// The same; workers reach these addresses beside the public ones.
    pub(super) fn reaching<F>(allowed: &str, routes: Vec<Route>, script: impl Fn(Invocation) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Response<Body>, RunError>> + Send + 'static,
    {
        let metrics = Arc::new(Metrics::default());
        let cache = Cache::new(64 << 20, metrics.clone());
        Self::over(allowed, routes, script, cache, metrics)
    }

    /// With these routes, no workers, this much memory, and a disk.
    pub(super) fn on_disk(routes: Vec<Route>, memory_bytes: u64, folder: &std::path::Path) -> Self {
        let disk = DiskConfig { folder: folder.to_owned(), bytes_max: 512 << 20 };
        Self::around(routes, |metrics| Cache::with_disk(memory_bytes, &disk, metrics).expect("a folder"))
    }

    /// With these routes, no workers, and this cache.
    pub(super) fn around(routes: Vec<Route>, cache: impl FnOnce(Arc<Metrics>) -> Cache) -> Self {
        Self::with_worker_around(routes, |_| async { panic!("no worker is routed") }, cache)
    }

    /// The same; every worker is `script`.
    pub(super) fn with_worker_around<F>(
        routes: Vec<Route>,
        script: impl Fn(Invocation) -> F + Send + Sync + 'static,
        cache: impl FnOnce(Arc<Metrics>) -> Cache,
    ) -> Self
    where
        F: Future<Output = Result<Response<Body>, RunError>> + Send + 'static,
    {
        let metrics = Arc::new(Metrics::default());
        let cache = cache(metrics.clone());
        Self::over("192.0.2.0/24", routes, script, cache, metrics)
    }

    fn over<F>(
        allowed: &str,
        routes: Vec<Route>,
        script: impl Fn(Invocation) -> F + Send + Sync + 'static,
        cache: Cache,
        metrics: Arc<Metrics>,
    ) -> Self
    where
        F: Future<Output = Result<Response<Body>, RunError>> + Send + 'static,
    {
        let active = Arc::new(ActiveRoutes::default());
        active.swap(RouteTable::compile(routes).expect("routes"));
        let (tasks, clock) = (Tasks::new(), Arc::new(AtomicU64::new(START_MS)));
        let (records, contact, strain) = (Arc::new(Records::default()), Arc::new(Contact::default()), Arc::new(Strain::default()));
        let parts = Parts {
            node: "edge-1".into(),
            routes: active,
            cache: Arc::new(cache),
            peers: Arc::default(),
            contact: contact.clone(),
            purger: Purger::default(),
            upstreams: Arc::new(
                Upstreams::new(UpstreamsConfig { fetch_allow: vec![allowed.parse().expect("a network")], ..UpstreamsConfig::default() })
                    .expect("upstreams"),
            ),
            trusted_proxies: Vec::new(),
            strain: strain.clone(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            observers: vec![records.clone()],
            clock: Clock::Set(clock.clone()),
        };
        let path = RequestPath::with_runners(parts, Runners::Scripted(Box::new(move |invocation| script(invocation).boxed())));
        Self { path, clock, metrics, records, tasks, contact, strain }
    }

    /// Time goes on.
    pub(super) fn pass(&self, seconds: u64) {
        self.clock.fetch_add(seconds * 1000, SeqCst);
    }

    /// Waits until nothing runs any more, and all is on disk.
    pub(super) async fn rest(&self) {
        while self.tasks.running() > 0 {
            tokio::task::yield_now().await;
        }
        self.path.cache().settled().await;
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.path.serve(request, &connection(false), Interim::none()).await.into_response()
    }

    /// GET of a path of `www.example.org`.
    pub(super) async fn get(&self, path: &str) -> Response<Body> {
        self.send(get(path, &[])).await
    }

    /// Status, `Cache-Status` and body of a GET.
    pub(super) async fn look(&self, path: &str) -> (u16, String, String) {
        look(self.get(path).await).await
    }
}

/// Lets every request that is under way come as far as it can.
pub(super) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Status, `Cache-Status` and body.
pub(super) async fn look(response: Response<Body>) -> (u16, String, String) {
    let status = response.status().as_u16();
    let cache = field(response.headers(), "cache-status");
    (status, cache, text(response).await)
}

pub(super) fn field(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default()
}

pub(super) async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect(64 << 20).await.expect("a whole body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

pub(super) fn get(path: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().uri(path).header("host", "www.example.org");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).expect("a request")
}

pub(super) fn connection(tls: bool) -> Arc<Connection> {
    Arc::new(Connection {
        peer: "192.0.2.7:1234".parse().expect("an address"),
        protocol: Protocol::Http1,
        tls: tls.then_some(TlsInfo { version: "TLSv1.3", server_name: None, node: None }),
    })
}

pub(super) fn to_upstream(pattern: &str, server: &Server) -> Route {
    Route {
        pattern: pattern.into(),
        target: Target::Upstream,
        upstream: Some(group(&server.url())),
        redirect_to_https: false,
        fingerprint: 0,
        compress: Default::default(),
        early_hints: false,
        counters: Arc::new(RouteCounters::new(pattern.into())),
        cache: CacheSettings::default(),
    }
}

/// One server.
pub(super) fn group(address: &str) -> Arc<Group> {
    Arc::new(Group::new(&address.into()).expect("an address"))
}

pub(super) fn to_worker(pattern: &str, name: &str) -> Route {
    let source = WorkerSource {
        worker: name.into(),
        version: format!("{name}-version").into(),
        cordon: "shared".into(),
        entry: "index.js".into(),
        modules: Vec::new(),
        vars: Default::default(),
        compatibility_date: "2026-01-01".into(),
        compatibility_flags: Vec::new(),
        limits: Limits { request_body_bytes_max: 10, ..Limits::default() },
    };
    Route {
        pattern: pattern.into(),
        target: Target::Worker(Arc::new(ActiveWorker::new(name.into(), [(Arc::new(source), 100.0)]))),
        upstream: None,
        redirect_to_https: false,
        fingerprint: 0,
        compress: Default::default(),
        early_hints: false,
        counters: Arc::new(RouteCounters::new(pattern.into())),
        cache: CacheSettings::default(),
    }
}
