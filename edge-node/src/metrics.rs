//! What the node counts: plain atomics, a few per request, with label sets that are closed or bounded (never a URL, a host or a worker).

mod by_route;
mod by_server;
mod histogram;
mod page;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use selvedge_runtime::{Outcome, Report};

use crate::cache::disk::DiskCounters;
use crate::listen::Protocol;

pub use by_route::{Asker, ByRoute, Removal, RouteCounters, Source, Waiting};
pub use histogram::Histogram;
pub use report::Readings;

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
