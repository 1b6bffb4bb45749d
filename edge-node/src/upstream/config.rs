//! What upstream connections are made with: from the node's file, or a test.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use rustls_pki_types::CertificateDer;

use super::limits;

/// Everything that [`super::Upstreams`] needs to know. `Default` is a node that nobody configured.
#[derive(Debug, Clone)]
pub struct UpstreamsConfig {
    /// Name servers (`resolver = ["ADDR:PORT"]`); empty: those of the system.
    pub resolvers: Vec<SocketAddr>,
    /// Addresses outside the public range that workers may reach (`fetch.allow`).
    pub fetch_allow: Vec<IpNet>,
    /// Addresses that this node listens on: never reachable for a worker's fetch, whatever `fetch_allow` says. An unspecified address stands for
    /// every address of the machine.
    pub own_listeners: Vec<SocketAddr>,
    /// Certificate authorities that are trusted beside the public ones.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Time for a connection: name, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Time to the response head, counted from the last progress of the request's body.
    pub head_timeout: Duration,
    /// Time without a byte of a response body.
    pub body_idle_timeout: Duration,
    /// Time that a connection is kept without a request.
    pub idle_timeout: Duration,
    /// Requests in flight to one upstream.
    pub requests_per_upstream_max: usize,
    /// Requests that wait for one upstream beyond those in flight.
    pub queue_per_upstream_max: usize,
    /// Time that a request waits in that queue.
    pub queue_wait: Duration,
}

impl Default for UpstreamsConfig {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            fetch_allow: Vec::new(),
            own_listeners: Vec::new(),
            authorities: Vec::new(),
            connect_timeout: limits::CONNECT_TIMEOUT,
            head_timeout: limits::HEAD_TIMEOUT,
            body_idle_timeout: limits::BODY_IDLE_TIMEOUT,
            idle_timeout: limits::IDLE_TIMEOUT,
            requests_per_upstream_max: limits::REQUESTS_PER_UPSTREAM_MAX,
            queue_per_upstream_max: limits::QUEUE_PER_UPSTREAM_MAX,
            queue_wait: limits::QUEUE_WAIT,
        }
    }
}
