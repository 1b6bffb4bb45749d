//! One run of a handler.

use std::sync::Arc;

use crate::protocol::Fields;
use crate::{Body, Host};

/// One run of a worker's `fetch` handler.
pub struct Invocation {
    /// The request as the worker sees it: absolute URI, without fields of the hop and without what it says of who asks.
    pub request: http::Request<Body>,
    /// Fields of the request beside its own: who asks, as the edge knows it.
    pub written: Fields,
    /// For `request.cf`.
    pub client: ClientInfo,
    /// What the worker can reach.
    pub host: Arc<dyn Host>,
}

/// What a worker learns about the client.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// `HTTP/1.1`, `HTTP/2` or `HTTP/3`: `request.cf.httpProtocol`.
    pub http_protocol: &'static str,
    /// `TLSv1.3` or `TLSv1.2`, where there is TLS.
    pub tls_version: Option<&'static str>,
    /// The node's name: `request.cf.colo`.
    pub colo: Arc<str>,
}
