//! What a request leaves behind while it is answered. When the last holder lets go (the response's body has been sent, the worker's invocation has ended),
//! it becomes the request's record: counted, logged, shown to the observers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use selvedge_runtime::{Body, BodyError, Outcome, Report};
use tracing::Level;

use super::context::Context;
use super::record::{Observer, RequestRecord, WorkerRecord};
use crate::listen::{Interim, Reply, has_no_content};
use crate::metrics::{Asker, CacheResult, Metrics, RouteCounters, Source};
use crate::routes::{ActiveVersion, Route};

/// Where records go.
pub(crate) struct Sinks {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
}

/// Whose request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client's.
    Client,
    /// A worker's `fetch()` of another route of this node.
    Worker,
    /// Another node's, for which this one is the shield.
    Peer,
    /// Ours: a background refresh. Logged for whoever looks closely, counted nowhere.
    Refresh,
}

/// A request on its way.
pub(crate) struct Trail {
    pub(crate) context: Context,
    /// Takes interim responses for the client; those of nested requests and refreshes have none.
    pub(crate) interim: Interim,
    origin: Origin,
    sinks: Arc<Sinks>,
    notes: Mutex<Notes>,
    /// What is stored came from the disk.
    recalled: AtomicBool,
    /// What it needs is done on an overloaded node, too.
    let_in: AtomicBool,
    /// Where the answer's bytes come from.
    source: AtomicU8,
}

#[derive(Default)]
struct Notes {
    route: Option<Arc<RouteCounters>>,
    version: Option<ActiveVersion>,
    outcome: Option<Outcome>,
    report: Option<Report>,
    status: Option<StatusCode>,
    error: Option<&'static str>,
    error_text: Option<String>,
    cache: Option<CacheResult>,
    head_wall: Duration,
    response_bytes: u64,
    complete: bool,
}

impl Trail {
    /// Begins one.
    pub(crate) fn new(context: Context, origin: Origin, sinks: Arc<Sinks>, interim: Interim) -> Arc<Self> {
        if origin == Origin::Client {
            sinks.metrics.requests_running.add(1);
        }
        let (recalled, source) = (AtomicBool::new(false), AtomicU8::new(Source::Node as u8));
        // The request of a worker that runs has been let in with its client's.
        let let_in = AtomicBool::new(origin == Origin::Worker);
        Arc::new(Self { context, interim, origin, sinks, notes: Mutex::default(), recalled, let_in, source })
    }

    /// One for a background refresh of what this request asked for.
    pub(crate) fn refresh(&self) -> Arc<Self> {
        Self::new(self.context.refresh(), Origin::Refresh, self.sinks.clone(), Interim::none())
    }

    /// One for a slice of what this request asked for.
    pub(crate) fn of_slice(&self) -> Arc<Self> {
        let origin = if self.is_peers() { Origin::Peer } else { Origin::Refresh };
        let slice = Self::new(self.context.refresh(), origin, self.sinks.clone(), Interim::none());
        slice.let_in.store(self.is_let_in(), Relaxed);
        slice
    }

    /// What was begun for it is brought to its end.
    pub(crate) fn let_in(&self) {
        self.let_in.store(true, Relaxed);
    }

    /// Whether what it needs is done whatever the load.
    pub(crate) fn is_let_in(&self) -> bool {
        self.let_in.load(Relaxed)
    }

    /// Whether a client asks, rather than a worker or this node itself.
    pub(crate) fn is_clients(&self) -> bool {
        self.origin == Origin::Client
    }

    /// Whether another node asks.
    pub(crate) fn is_peers(&self) -> bool {
        self.origin == Origin::Peer
    }

    pub(crate) fn sinks(&self) -> &Arc<Sinks> {
        &self.sinks
    }

    pub(crate) fn routed(&self, route: &Route) {
        self.notes.lock().route = Some(route.counters.clone());
    }

    pub(crate) fn runs(&self, version: &ActiveVersion) {
        self.notes.lock().version = Some(version.clone());
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        self.notes.lock().outcome = Some(outcome);
    }

    pub(crate) fn reported(&self, report: Report) {
        self.sinks.metrics.invoked(&report);
        let mut notes = self.notes.lock();
        // What the run told the client stands: a worker killed for its CPU may be "canceled" in the end.
        notes.outcome.get_or_insert(report.outcome);
        notes.report = Some(report);
    }

    pub(crate) fn cached(&self, result: CacheResult) {
        self.notes.lock().cache = Some(result);
    }

    /// Whether it is answered by what is stale.
    pub(crate) fn is_stale(&self) -> bool {
        self.notes.lock().cache == Some(CacheResult::Stale)
    }

    /// As it was for a part of this request.
    pub(crate) fn cached_as(&self, part: &Self) {
        let result = part.notes.lock().cache;
        self.notes.lock().cache = result;
    }

    /// What is stored was read from the disk for this request.
    pub(crate) fn recalled(&self) {
        self.recalled.store(true, Relaxed);
    }

    /// Whether it was.
    pub(crate) fn is_recalled(&self) -> bool {
        self.recalled.load(Relaxed)
    }

    /// Where the answer's bytes come from; the last word counts.
    pub(crate) fn served_from(&self, source: Source) {
        self.source.store(source as u8, Relaxed);
    }

    pub(crate) fn failed(&self, kind: &'static str, text: String) {
        let mut notes = self.notes.lock();
        notes.error = Some(kind);
        notes.error_text = Some(text);
    }

    /// The response is ready: notes its head, and follows its body where it is a stream.
    pub(crate) fn answered(self: &Arc<Self>, reply: Reply) -> Reply {
        let head_wall = self.context.started.elapsed();
        let whole = match &reply {
            Reply::Made(response) if has_no_content(&self.context.method, response.status()) => Some(0),
            Reply::Made(response) => response.body().as_whole().map(|whole| whole.len()),
            Reply::Ready(ready) => Some(ready.body().len()),
        };
        let cache = {
            let mut notes = self.notes.lock();
            notes.status = Some(reply.status());
            notes.head_wall = head_wall;
            if let Some(whole) = whole {
                notes.response_bytes = whole as u64;
                notes.complete = true;
            }
            let cache = notes.cache.unwrap_or(CacheResult::Bypass);
            if let (Some(route), Some(asker)) = (&notes.route, self.asker()) {
                route.answered(asker, cache);
                route.sent(self.source(), whole.unwrap_or(0) as u64);
            }
            cache
        };
        if self.origin == Origin::Client {
            let metrics = &self.sinks.metrics;
            metrics.answered(self.context.protocol, reply.status(), cache);
            metrics.head_duration.observe(head_wall);
        }
        match reply {
            Reply::Made(response) if whole.is_none() => {
                let trail = self.clone();
                response.map(|inner| Body::stream(Followed { inner, trail, bytes: 0, complete: false })).into()
            }
            whole => whole,
        }
    }
}

impl Trail {
    fn asker(&self) -> Option<Asker> {
        match self.origin {
            Origin::Client => Some(Asker::Client),
            Origin::Worker => Some(Asker::Worker),
            Origin::Peer => Some(Asker::Peer),
            Origin::Refresh => None,
        }
    }

    fn source(&self) -> Source {
        Source::of_number(self.source.load(Relaxed))
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        let notes = std::mem::take(self.notes.get_mut());
        if self.origin == Origin::Client {
            self.sinks.metrics.requests_running.add(-1);
            self.sinks.metrics.sent_bytes.add(notes.response_bytes);
        }
        let watched = !self.sinks.observers.is_empty() && self.origin != Origin::Refresh;
        let (level, logged) = match self.origin {
            Origin::Refresh => (Level::DEBUG, tracing::enabled!(target: "selvedge::request", Level::DEBUG)),
            _ => (Level::INFO, tracing::enabled!(target: "selvedge::request", Level::INFO)),
        };
        if !watched && !logged {
            return;
        }
        let record = self.record(notes);
        if logged {
            record.log(level);
        }
        if watched {
            self.sinks.observers.iter().for_each(|observer| observer.request(&record));
        }
    }
}

impl Trail {
    fn record(&self, notes: Notes) -> RequestRecord {
        let context = &self.context;
        let worker = notes.version.map(|version| WorkerRecord {
            name: version.source.worker.clone(),
            version: version.source.version.clone(),
            outcome: notes.outcome,
            report: notes.report,
            cpu_ms_max: version.source.limits.cpu_ms,
            heap_bytes_max: version.source.limits.heap_bytes_max,
        });
        RequestRecord {
            id: context.id(),
            method: context.method.clone(),
            scheme: context.scheme(),
            authority: context.authority.as_ref().into(),
            path: context.target.as_str().into(),
            protocol: context.protocol,
            client: context.client,
            depth: context.nesting,
            route: notes.route.map(|route| route.pattern().clone()),
            worker,
            status: notes.status,
            error: notes.error,
            error_text: notes.error_text,
            cache: notes.cache,
            head_wall: notes.head_wall,
            wall: context.started.elapsed(),
            response_bytes: notes.response_bytes,
            complete: notes.complete,
        }
    }
}

/// A response's body that notes how much of it was sent, and whether all.
struct Followed {
    inner: Body,
    trail: Arc<Trail>,
    bytes: u64,
    complete: bool,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Poll::Ready(Some(Err(error))) => self.trail.failed("response_body", error.to_string()),
            Poll::Ready(None) => self.complete = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let mut notes = self.trail.notes.lock();
        if let (Some(route), Some(_)) = (&notes.route, self.trail.asker()) {
            route.sent(self.trail.source(), self.bytes);
        }
        notes.response_bytes = self.bytes;
        // A listener that knows the length does not poll past the last byte.
        notes.complete = self.complete || self.inner.is_end_stream();
    }
}
