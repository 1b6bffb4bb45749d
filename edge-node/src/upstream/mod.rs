//! Requests to the customer's own servers, and workers' subrequests to the rest of the world: choose → resolve → check → connect → pool → forward.

pub mod limits;

mod body;
mod config;
mod connect;
mod connection;
mod forward;
mod group;
mod head;
pub(crate) mod http2;
mod interim;
mod lost;
mod manner;
mod policy;
mod pool;
mod resolve;
mod slots;
mod socket;

use std::sync::Arc;

use http::uri::PathAndQuery;
use selvedge_runtime::{Body, BodyError};

use connect::{Connector, Destination};
use pool::Pools;

pub(crate) use body::Outgoing;
pub use config::UpstreamsConfig;
pub(crate) use connect::Transport;
pub use group::{Group, Groups, Renewal, ServerReading};
pub use interim::OnInterim;

/// Which addresses a request may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// The operator named this server in a site file: any address.
    Operator,
    /// A worker named it: public addresses, and those of the node's `fetch.allow`.
    Worker,
}

/// Resolves, connects, pools, forwards. Built once by `node.rs`; cheap to clone.
#[derive(Clone)]
pub struct Upstreams {
    pools: Arc<Pools>,
}

/// Why there is no response. Each has a `Proxy-Status` error type (RFC 9209, section 2.3).
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// The name does not resolve: `dns_error`.
    #[error("{host}: name does not resolve: {reason}")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// Every address is one that this request may not reach: `destination_ip_prohibited`.
    #[error("{host}: address {address} is not allowed for a worker's fetch")]
    Prohibited {
        /// The name.
        host: String,
        /// The address.
        address: std::net::IpAddr,
    },
    /// No connection: `connection_refused`.
    #[error("{host}: {reason}")]
    Connect {
        /// The name.
        host: String,
        /// Why.
        reason: String,
    },
    /// No connection in time: `connection_timeout`.
    #[error("{host}: no connection within {ms} ms")]
    ConnectTimeout {
        /// The name.
        host: String,
        /// The bound.
        ms: u64,
    },
    /// TLS failed: `tls_certificate_error`.
    #[error("{host}: TLS: {reason}")]
    Tls {
        /// The name.
        host: String,
        /// Why.
        reason: String,
    },
    /// No response head in time: `http_response_timeout`.
    #[error("{host}: no response head within {ms} ms")]
    HeadTimeout {
        /// The name.
        host: String,
        /// The bound.
        ms: u64,
    },
    /// The answer is not HTTP: `http_protocol_error`.
    #[error("{host}: {reason}")]
    Protocol {
        /// The name.
        host: String,
        /// Why.
        reason: String,
    },
    /// The request's own body failed before the response: the client's or the worker's doing, not the upstream's.
    #[error("{host}: the request's body ended early: {error}")]
    RequestBody {
        /// The name.
        host: String,
        /// What happened to the body.
        error: BodyError,
    },
    /// The request cannot be sent at all: no absolute http or https address, or a method that has no response.
    #[error("cannot be sent: {reason}")]
    BadRequest {
        /// Why.
        reason: &'static str,
    },
    /// The connection was lost before an answer came: `connection_terminated`.
    #[error("{host}: {reason}")]
    Terminated {
        /// The name.
        host: String,
        /// Why.
        reason: String,
    },
    /// The health checks of every server say that it is down: `destination_unavailable`.
    #[error("{upstream}: every server is down")]
    AllDown {
        /// What the upstream is called.
        upstream: String,
    },
    /// Too much waits for this upstream already: `connection_limit_reached`.
    #[error("{host}: too many requests are waiting for it")]
    Overloaded {
        /// The name.
        host: String,
    },
    /// This node has too much to do to ask anybody: `connection_limit_reached`.
    #[error("not asked: the node is overloaded")]
    Shed,
}

impl UpstreamError {
    /// Whether it speaks against the server: everything of [`Self::is_of_the_server`] but bounds of this node's own.
    pub(crate) fn is_failure(&self) -> bool {
        self.is_of_the_server() && !matches!(self, Self::Overloaded { .. } | Self::AllDown { .. } | Self::Shed)
    }

    /// Whether another server may do better, or what is stored: this one is away or does not speak HTTP, or is not asked.
    pub fn is_of_the_server(&self) -> bool {
        match self {
            Self::Dns { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Tls { .. }
            | Self::HeadTimeout { .. }
            | Self::Protocol { .. }
            | Self::Terminated { .. }
            | Self::Overloaded { .. }
            | Self::AllDown { .. }
            | Self::Shed => true,
            Self::Prohibited { .. } | Self::RequestBody { .. } | Self::BadRequest { .. } => false,
        }
    }
}

/// Why upstreams cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamsConfigError {
    /// The system's resolver configuration cannot be read, and the node's file names no resolver.
    #[error("name servers of the system: {0}")]
    Resolver(String),
    /// A certificate authority cannot be used.
    #[error("certificate authority: {0}")]
    Authority(String),
}

impl Upstreams {
    /// Sets everything up; connects to nothing. Must be called inside a tokio runtime.
    pub fn new(config: UpstreamsConfig) -> Result<Self, UpstreamsConfigError> {
        let connector = Connector::new(&config)?;
        let pools = Arc::new(Pools::new(config, connector)?);
        let swept = Arc::downgrade(&pools);
        crate::tasks::spawn("upstream sweep", async move {
            let mut tick = tokio::time::interval(limits::SWEEP_INTERVAL);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            // Ends with the last clone of the upstreams.
            while let Some(pools) = swept.upgrade() {
                pools.sweep();
                drop(pools);
                tick.tick().await;
            }
        });
        Ok(Self { pools })
    }

    /// Sends a request whose URI is absolute to the host that the URI names. The Host field of `request` is sent as it is, where there is
    /// one; an [`OnInterim`] among its extensions is told of what comes before the response. Resolves at the response's head; dropping the future, or the response's body before its end, closes the
    /// connection or resets its stream.
    pub async fn send(&self, request: http::Request<Body>, reach: Reach) -> Result<http::Response<Body>, UpstreamError> {
        let to = destination(request.uri(), reach).map_err(|reason| UpstreamError::BadRequest { reason })?;
        let pool = self.pools.pool(to);
        forward::send(&self.pools, &pool, request).await.map_err(|unanswered| unanswered.error)
    }

    /// Sends a request for `target` to one of the servers of a group, and perhaps to another where that one fails. As [`Self::send`]
    /// else.
    pub async fn ask(
        &self,
        group: &Group,
        target: &PathAndQuery,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, UpstreamError> {
        group.ask(&self.pools, target, request).await
    }

    /// Begins the health checks of the groups' servers. They end with the groups, or with the last clone of the upstreams.
    pub fn watch(&self, groups: &Arc<Groups>) {
        crate::tasks::spawn("upstream health", group::health::watch(Arc::downgrade(groups), Arc::downgrade(&self.pools)));
    }

    /// Open connections, and those among them that are idle over HTTP/1.1: for metrics.
    pub fn connections(&self) -> (usize, usize) {
        (self.pools.open(), self.pools.idle())
    }
}

/// Where an address is; or why it is none.
fn destination(address: &http::Uri, reach: Reach) -> Result<Destination, &'static str> {
    let secure = match address.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("the address is neither http nor https"),
    };
    let host = address.host().filter(|host| !host.is_empty()).ok_or("the address has no host")?;
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let port = address.port_u16().unwrap_or(if secure { 443 } else { 80 });
    Ok(Destination { secure, host: host.into(), port, reach })
}
