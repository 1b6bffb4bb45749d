//! One run of a handler.

use std::net::IpAddr;
use std::sync::Arc;

use crate::{Body, Host};

/// One run of a worker's `fetch` handler.
pub struct Invocation {
    /// The request as the worker sees it: absolute URI, hop-by-hop fields removed, forwarding fields rewritten.
    pub request: http::Request<Body>,
    /// For `request.cf`.
    pub client: ClientInfo,
    /// For logs.
    pub request_id: Arc<str>,
    /// What the worker can reach.
    pub host: Arc<dyn Host>,
}

/// What a worker learns about the client.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// The client's address, after trusted proxies.
    pub ip: IpAddr,
    /// `HTTP/1.1`, `HTTP/2` or `HTTP/3`: `request.cf.httpProtocol`.
    pub http_protocol: &'static str,
    /// `TLSv1.3` or `TLSv1.2`, where there is TLS.
    pub tls_version: Option<&'static str>,
    /// The node's name: `request.cf.colo`.
    pub colo: Arc<str>,
}
