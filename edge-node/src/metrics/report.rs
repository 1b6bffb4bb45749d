//! What the admin listener shows of all that is counted, and of what other parts keep.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use selvedge_runtime::Strain;

use super::page::Page;
use super::{CacheResult, ConnectionRefusal, Metrics, OUTCOMES, PROTOCOLS, RouteCounters, by_route, by_server};
use crate::cache::disk::DiskUsage;
use crate::limits::{METRIC_ROUTES_MAX, METRIC_SERVERS_MAX};
use crate::upstream::ServerReading;

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
    /// What the node refuses for its load, and has refused.
    pub strain: Arc<Strain>,
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
        (
            "selvedge_cache_entries",
            "Entries of the memory cache: responses, and blocks of large ones that are on disk.",
            readings.cache_entries,
        ),
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
    let help = "How loaded the node is: 1: refuses cold starts, 2: and requests for workers, 3: and misses.";
    page.gauge("selvedge_overload_level", help, readings.strain.level().into());
    let name = "selvedge_shed_total";
    page.head(name, "counter", "Requests refused for the load of the node, by what they needed.");
    for (work, _, shed) in readings.strain.read() {
        page.line(name, &[("work", work.name())], shed);
    }
    let name = "selvedge_supervisor_events_total";
    page.head(name, "counter", "What happened to runner processes and to invocations between them.");
    for (event, count) in &readings.supervisor {
        page.line(name, &[("event", event)], *count);
    }
}
