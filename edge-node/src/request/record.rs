//! What is known of a request when all of it has ended: one wide event in the log, and what metrics and `selvedge dev` show.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use selvedge_runtime::{LogLevel, Outcome, Report};
use tracing::Level;

use crate::listen::Protocol;
use crate::metrics::CacheResult;

/// One request, complete: its response has been given to the listener to the end (or was dropped), and the worker's invocation, if there was one,
/// has ended.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// As in `X-Request-Id`.
    pub id: Arc<str>,
    /// The method.
    pub method: http::Method,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The authority, in lower case.
    pub authority: Arc<str>,
    /// Path and query.
    pub path: Arc<str>,
    /// How the client speaks.
    pub protocol: Protocol,
    /// The client's address, after trusted proxies.
    pub client: IpAddr,
    /// How deep inside the node: 0 is a client's request, more is a worker's `fetch()` of another route.
    pub depth: u32,
    /// The pattern of the route that answered.
    pub route: Option<Arc<str>>,
    /// The version that ran, or would have.
    pub worker: Option<WorkerRecord>,
    /// The status that was sent; none where the client went away before there was one.
    pub status: Option<http::StatusCode>,
    /// The error type of RFC 9209, where the answer is an error of this node.
    pub error: Option<&'static str>,
    /// Details for the operator, never sent.
    pub error_text: Option<String>,
    /// What the cache did; none where the route has none.
    pub cache: Option<CacheResult>,
    /// Until the response's head.
    pub head_wall: Duration,
    /// Until everything had ended.
    pub wall: Duration,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// The response's body came to its end.
    pub complete: bool,
}

impl RequestRecord {
    /// One wide event, of level INFO or DEBUG. The names of its fields are stable.
    pub(super) fn log(&self, level: Level) {
        let worker = self.worker.as_ref();
        let report = worker.and_then(|worker| worker.report.as_ref());
        macro_rules! event {
            ($level:expr) => {
                tracing::event!(
                    target: "selvedge::request",
                    $level,
                    request.id = &*self.id,
                    request.method = self.method.as_str(),
                    request.scheme = self.scheme,
                    request.authority = &*self.authority,
                    request.path = &*self.path,
                    request.protocol = self.protocol.name(),
                    request.depth = self.depth,
                    client.ip = %self.client,
                    route.pattern = self.route.as_deref(),
                    worker.name = worker.map(|worker| &*worker.name),
                    worker.version = worker.map(|worker| &*worker.version),
                    worker.outcome = worker.and_then(|worker| worker.outcome).map(Outcome::name),
                    worker.cpu_us = report.map(|report| report.cpu_us),
                    worker.heap_bytes = report.map(|report| report.heap_bytes),
                    worker.subrequests = report.map(|report| report.subrequests),
                    worker.cold_start = report.map(|report| report.cold_start),
                    response.status = self.status.map(|status| status.as_u16()),
                    response.bytes = self.response_bytes,
                    response.complete = self.complete,
                    cache.result = self.cache.map(CacheResult::name),
                    error.kind = self.error,
                    error.text = self.error_text.as_deref(),
                    duration.head_us = us(self.head_wall),
                    duration.us = us(self.wall),
                )
            };
        }
        if level == Level::DEBUG { event!(Level::DEBUG) } else { event!(Level::INFO) }
    }
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The worker's part of a [`RequestRecord`].
#[derive(Debug, Clone)]
pub struct WorkerRecord {
    /// Its name.
    pub name: Arc<str>,
    /// The version.
    pub version: Arc<str>,
    /// How the invocation ended.
    pub outcome: Option<Outcome>,
    /// What it used; none where it never began.
    pub report: Option<Report>,
    /// The version's CPU limit, in milliseconds.
    pub cpu_ms_max: u32,
    /// The version's heap limit, in bytes.
    pub heap_bytes_max: u64,
}

/// A line of a worker's log, with where it is from.
#[derive(Debug, Clone)]
pub struct WorkerLine {
    /// The worker's name.
    pub worker: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// The request that it belongs to.
    pub request_id: Arc<str>,
    /// How loud.
    pub level: LogLevel,
    /// The text, cut to a bound.
    pub message: String,
    /// An uncaught exception rather than a call of `console.*`.
    pub exception: bool,
    /// Where `console` was called, by the sources, where runners were asked to look.
    pub place: Option<String>,
}

/// Sees every request when it is complete, and every line of workers' logs: metrics, and what `selvedge dev` prints. Must not block.
pub trait Observer: Send + Sync + 'static {
    /// A request is complete.
    fn request(&self, record: &RequestRecord) {
        let _ = record;
    }

    /// A worker logged a line (those beyond its rate are not shown).
    fn worker_line(&self, line: &WorkerLine) {
        let _ = line;
    }
}
