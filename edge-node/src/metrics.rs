//! What the node counts: plain atomics, a few per request, with label sets that are closed or bounded (never a URL, a host or a worker).

mod by_route;
mod by_server;
mod histogram;
mod page;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use selvedge_runtime::{Outcome, Report};

use crate::cache::disk::{DiskCounters, DiskUsage};
use crate::limits::{METRIC_ROUTES_MAX, METRIC_SERVERS_MAX};
use crate::listen::Protocol;
use crate::upstream::ServerReading;

pub use by_route::{Asker, ByRoute, Removal, RouteCounters, Source, Waiting};
pub use histogram::Histogram;
use page::Page;

/// All counters of a node. Shared by every part; read by the admin listener.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Finished requests by protocol and status class (0: other, 1 to 5), then by what the cache did.
    requests: [[[AtomicU64; CacheResult::ALL.len()]; 6]; 3],
    /// Requests that are being answered now, or whose worker has more to do.
    pub requests_running: Gauge,
    /// Time from a request's head to its response's head.
    pub head_duration: Histogram,
    /// Body bytes that clients sent.
    pub received_bytes: Counter,
    /// Body bytes that were sent to clients.
    pub sent_bytes: Counter,
    connections: [ConnectionCounters; 3],
    refusals: [AtomicU64; ConnectionRefusal::ALL.len()],
    outcomes: [AtomicU64; OUTCOMES.len()],
    /// Invocations whose isolate was born for them.
    pub cold_starts: Counter,
    /// Thread CPU time of invocations, in microseconds.
    pub worker_cpu_us: Counter,
    /// Workers' `fetch()` calls.
    pub subrequests: Counter,
    /// Requests sent to upstreams, subrequests to other hosts among them.
    pub upstream_requests: Counter,
    /// Requests to upstreams without a response.
    pub upstream_errors: Counter,
    /// Cache entries evicted for want of room.
    pub cache_evictions: Counter,
    /// Responses that did not come into a full memory, because nobody had asked for them before.
    pub cache_strangers: Counter,
    /// Fetches that the key's shield answered.
    pub shield_answers: Counter,
    /// Fetches for which it was asked in vain.
    pub shield_refusals: Counter,
    /// The cache's disk tier.
    pub disk: DiskCounters,
    /// Bodies compressed on the fly; a hit whose coded bytes are stored is none.
    pub compressions: Counter,
}

/// Only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

/// What the cache did for a request; the words of RFC 9211.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CacheResult {
    /// Answered from the cache.
    Hit,
    /// Answered from the cache though stale.
    Stale,
    /// Answered from the cache after the upstream confirmed the entry.
    Revalidated,
    /// Waited for another request's fetch.
    Collapsed,
    /// Fetched.
    Miss,
    /// The cache was not asked.
    Bypass,
}

/// Why a connection was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnectionRefusal {
    /// `limits.connections_max`
    TooMany,
    /// `limits.connections_per_address_max`
    TooManyOfAddress,
    /// The TLS or QUIC handshake failed or took too long.
    Handshake,
}

#[derive(Debug, Default)]
struct ConnectionCounters {
    opened: AtomicU64,
    open: AtomicI64,
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Http1, Protocol::Http2, Protocol::Http3];

const OUTCOMES: [Outcome; 12] = [
    Outcome::Ok,
    Outcome::Exception,
    Outcome::ExceededCpu,
    Outcome::ExceededMemory,
    Outcome::ExceededWallTime,
    Outcome::Canceled,
    Outcome::LoadShed,
    Outcome::ResponseStreamDisconnected,
    Outcome::RunnerLost,
    Outcome::StartupFailed,
    Outcome::Disabled,
    Outcome::InternalError,
];

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Gauge {
    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, n: i64) {
        self.0.store(n, Relaxed);
    }

    /// Now.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl CacheResult {
    const ALL: [Self; 6] = [Self::Hit, Self::Stale, Self::Revalidated, Self::Collapsed, Self::Miss, Self::Bypass];

    /// The stable name, as in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Collapsed => "collapsed",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

impl ConnectionRefusal {
    const ALL: [Self; 3] = [Self::TooMany, Self::TooManyOfAddress, Self::Handshake];

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::TooManyOfAddress => "too_many_of_address",
            Self::Handshake => "handshake",
        }
    }
}

impl Metrics {
    /// A request has its response's head.
    pub fn answered(&self, protocol: Protocol, status: http::StatusCode, cache: CacheResult) {
        let class = usize::from(status.as_u16() / 100);
        let class = if class < 6 { class } else { 0 };
        let counter = self.requests.get(protocol as usize).and_then(|p| p.get(class)).and_then(|c| c.get(cache as usize));
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// An invocation has ended.
    pub fn invoked(&self, report: &Report) {
        if let Some(counter) = self.outcomes.get(report.outcome as usize) {
            counter.fetch_add(1, Relaxed);
        }
        self.cold_starts.add(report.cold_start.into());
        self.worker_cpu_us.add(report.cpu_us);
        self.subrequests.add(report.subrequests.into());
    }

    /// A connection is open until the value is dropped.
    pub fn connected(self: &Arc<Self>, protocol: Protocol) -> OpenConnection {
        let counters = &self.connections[protocol as usize];
        counters.opened.fetch_add(1, Relaxed);
        counters.open.fetch_add(1, Relaxed);
        OpenConnection { metrics: self.clone(), protocol }
    }

    /// A connection was not taken.
    pub fn refused(&self, why: ConnectionRefusal) {
        self.refusals[why as usize].fetch_add(1, Relaxed);
    }
}

/// Counts a connection as open.
#[derive(Debug)]
#[must_use]
pub struct OpenConnection {
    metrics: Arc<Metrics>,
    protocol: Protocol,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.metrics.connections[self.protocol as usize].open.fetch_sub(1, Relaxed);
    }
}

/// Numbers that another part keeps, read when the metrics are asked for.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    /// Runner processes.
    pub runners: usize,
    /// Those without a cordon, ready to take one.
    pub standbys: usize,
    /// Versions loaded, over all runners: isolates at least.
    pub isolates: usize,
    /// Invocations running in runners.
    pub invocations: usize,
    /// Entries of the memory cache.
    pub cache_entries: u64,
    /// Their bytes.
    pub cache_bytes: u64,
    /// The cache's disk tier.
    pub disk: DiskUsage,
    /// Background tasks.
    pub tasks: usize,
    /// Connections to upstreams.
    pub upstream_connections: usize,
    /// How each server of the routes' upstreams does.
    pub upstream_servers: Vec<ServerReading>,
    /// Requests that asked a further server.
    pub upstream_retries: u64,
    /// Patterns that this node routes.
    pub routes: usize,
    /// What was counted of each.
    pub by_route: Vec<Arc<RouteCounters>>,
    /// The sequence number of the registry's log that is applied; 0 before the first snapshot.
    pub registry_seq: u64,
    /// The registry's feed is up.
    pub registry_connected: bool,
    /// Workers whose wanted version this node refuses.
    pub workers_refused: usize,
    /// What the supervisor has counted: a closed list of names.
    pub supervisor: Vec<(&'static str, u64)>,
}

impl Metrics {
    /// Prometheus text format 0.0.4.
    pub fn render(&self, readings: &Readings) -> String {
        let mut page = Page::default();
        self.render_requests(&mut page);
        page.counter("selvedge_received_bytes_total", "Body bytes that clients sent.", self.received_bytes.get());
        page.counter("selvedge_sent_bytes_total", "Body bytes that were sent to clients.", self.sent_bytes.get());
        page.head("selvedge_connections_total", "counter", "Client connections.");
        for (protocol, counters) in PROTOCOLS.iter().zip(&self.connections) {
            page.line("selvedge_connections_total", &[("protocol", protocol.name())], counters.opened.load(Relaxed));
        }
        page.head("selvedge_connections_open", "gauge", "Client connections that are open.");
        for (protocol, counters) in PROTOCOLS.iter().zip(&self.connections) {
            page.line("selvedge_connections_open", &[("protocol", protocol.name())], counters.open.load(Relaxed).max(0) as u64);
        }
        page.head("selvedge_connections_refused_total", "counter", "Connections that were not taken.");
        for (why, count) in ConnectionRefusal::ALL.iter().zip(&self.refusals) {
            page.line("selvedge_connections_refused_total", &[("reason", why.name())], count.load(Relaxed));
        }
        page.head("selvedge_invocations_total", "counter", "Invocations of workers that have ended.");
        for (outcome, count) in OUTCOMES.iter().zip(&self.outcomes) {
            page.line("selvedge_invocations_total", &[("outcome", outcome.name())], count.load(Relaxed));
        }
        page.counter("selvedge_cold_starts_total", "Invocations whose isolate was born for them.", self.cold_starts.get());
        page.counter("selvedge_worker_cpu_microseconds_total", "Thread CPU time of invocations.", self.worker_cpu_us.get());
        page.counter("selvedge_subrequests_total", "Requests that workers made.", self.subrequests.get());
        page.counter("selvedge_upstream_requests_total", "Requests sent to upstreams.", self.upstream_requests.get());
        page.counter("selvedge_upstream_errors_total", "Requests to upstreams without a response.", self.upstream_errors.get());
        page.counter("selvedge_cache_evictions_total", "Cache entries evicted for want of room.", self.cache_evictions.get());
        let help = "Responses that a full memory did not take: nobody had asked for them before.";
        page.counter("selvedge_cache_strangers_total", help, self.cache_strangers.get());
        page.counter("selvedge_shield_answers_total", "Fetches answered by the shield of the region.", self.shield_answers.get());
        page.counter("selvedge_shield_refusals_total", "Fetches for which the shield was asked in vain.", self.shield_refusals.get());
        page.counter("selvedge_compressions_total", "Bodies compressed on the fly.", self.compressions.get());
        for (name, help, value) in self.disk.counters() {
            page.counter(name, help, value);
        }
        page.gauge("selvedge_cache_disk_failing", "1 while the cache's disk is full or fails.", self.disk.failing.get());
        render_readings(&mut page, readings);
        page.into_text()
    }

    fn render_requests(&self, page: &mut Page) {
        const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
        page.head("selvedge_requests_total", "counter", "Answered requests.");
        for (protocol, classes) in PROTOCOLS.iter().zip(&self.requests) {
            for (class, results) in CLASSES.iter().zip(classes) {
                for (result, count) in CacheResult::ALL.iter().zip(results) {
                    let labels = [("protocol", protocol.name()), ("status", *class), ("cache", result.name())];
                    page.line("selvedge_requests_total", &labels, count.load(Relaxed));
                }
            }
        }
        page.gauge(
            "selvedge_requests_running",
            "Requests that are being answered, or whose worker has more to do (waitUntil).",
            self.requests_running.get(),
        );
        let name = "selvedge_request_head_seconds";
        page.head(name, "histogram", "Time from a request's head to its response's head.");
        page.histogram(name, &[], &self.head_duration);
    }
}

fn render_readings(page: &mut Page, readings: &Readings) {
    let gauges = [
        ("selvedge_registry_seq", "Sequence number of the registry's log that is applied.", readings.registry_seq),
        ("selvedge_registry_connected", "1 while the registry's feed is up.", readings.registry_connected.into()),
        ("selvedge_routes", "Patterns that are routed.", readings.routes as u64),
        ("selvedge_workers_refused", "Workers whose wanted version is refused here.", readings.workers_refused as u64),
        ("selvedge_runners", "Runner processes.", readings.runners as u64),
        ("selvedge_runners_standby", "Runner processes without a cordon.", readings.standbys as u64),
        ("selvedge_isolates", "Versions loaded in runners.", readings.isolates as u64),
        ("selvedge_invocations_running", "Invocations running in runners.", readings.invocations as u64),
        ("selvedge_cache_entries", "Entries of the memory cache.", readings.cache_entries),
        ("selvedge_cache_bytes", "Bytes of the memory cache.", readings.cache_bytes),
        ("selvedge_cache_disk_entries", "Entries of the cache's disk.", readings.disk.entries),
        ("selvedge_cache_disk_bytes", "Bytes of the cache's files.", readings.disk.bytes),
        ("selvedge_cache_disk_waiting_bytes", "Bytes that wait to be written to the cache's disk.", readings.disk.waiting_bytes),
        ("selvedge_upstream_connections", "Connections to upstreams.", readings.upstream_connections as u64),
        ("selvedge_tasks", "Background tasks, connections among them.", readings.tasks as u64),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help, i64::try_from(value).unwrap_or(i64::MAX));
    }
    page.counter("selvedge_upstream_retries_total", "Requests that asked a further server of their upstream.", readings.upstream_retries);
    by_server::render(page, &readings.upstream_servers, METRIC_SERVERS_MAX);
    by_route::render(page, &readings.by_route, METRIC_ROUTES_MAX);
    let name = "selvedge_supervisor_events_total";
    page.head(name, "counter", "What happened to runner processes and to invocations between them.");
    for (event, count) in &readings.supervisor {
        page.line(name, &[("event", event)], *count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_counters_are_labelled_by_protocol_status_and_cache() {
        let metrics = Metrics::default();
        metrics.answered(Protocol::Http3, http::StatusCode::OK, CacheResult::Hit);
        metrics.answered(Protocol::Http3, http::StatusCode::from_u16(999).unwrap(), CacheResult::Miss);
        let page = metrics.render(&Readings::default());
        assert!(page.contains("selvedge_requests_total{protocol=\"HTTP/3\",status=\"2xx\",cache=\"hit\"} 1\n"), "{page}");
        assert!(page.contains("selvedge_requests_total{protocol=\"HTTP/3\",status=\"other\",cache=\"miss\"} 1\n"), "{page}");
    }

    #[test]
    fn outcomes_stand_at_their_numbers() {
        for (index, outcome) in OUTCOMES.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
        }
    }

    #[test]
    fn histogram_buckets_are_cumulative() {
        let metrics = Metrics::default();
        metrics.head_duration.observe(std::time::Duration::from_micros(60));
        metrics.head_duration.observe(std::time::Duration::from_secs(60));
        let page = metrics.render(&Readings::default());
        assert!(page.contains("_bucket{le=\"0.00005\"} 0\n"), "{page}");
        assert!(page.contains("_bucket{le=\"0.0001\"} 1\n"), "{page}");
        assert!(page.contains("_bucket{le=\"+Inf\"} 2\n"), "{page}");
    }
}
