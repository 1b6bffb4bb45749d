//! Stage 2, ANSWER: the whole path of a request on one screen.

mod record;

use std::sync::Arc;

use ipnet::IpNet;
use selvedge_runtime::Body;
use selvedge_runtime::supervisor::Supervisor;

use crate::cache::Cache;
use crate::listen::Connection;
use crate::metrics::Metrics;
use crate::routes::ActiveRoutes;
use crate::tasks::Tasks;
use crate::upstream::Upstreams;

pub use record::{Observer, RequestRecord, WorkerLine, WorkerRecord};

/// What a [`RequestPath`] is made of.
pub struct Parts {
    /// The node's name: in `Proxy-Status`, `Cache-Status`, `Via`, `request.cf.colo`.
    pub node: Arc<str>,
    /// The routes in use; the follower swaps them.
    pub routes: Arc<ActiveRoutes>,
    /// Stored responses.
    pub cache: Arc<Cache>,
    /// The way to customers' servers and to the rest of the world.
    pub upstreams: Arc<Upstreams>,
    /// The way to runners.
    pub supervisor: Supervisor,
    /// Peers whose forwarding fields are believed. Empty by default.
    pub trusted_proxies: Vec<IpNet>,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
    /// Runs cache fills, which belong to no client.
    pub tasks: Tasks,
    /// Told of every complete request, in order.
    pub observers: Vec<Arc<dyn Observer>>,
}

/// Answers requests of every listener. Built once by `node.rs`, held in an `Arc`.
pub struct RequestPath {
    parts: Parts,
}

impl RequestPath {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self { parts })
    }

    /// Answers one request; never fails: errors become responses here. The URI is absolute or origin-form with a Host field, as the listener
    /// got it. Dropping the future cancels the work.
    pub async fn serve(self: &Arc<Self>, request: http::Request<Body>, connection: &Arc<Connection>) -> http::Response<Body> {
        let _ = (request, connection, &self.parts.node);
        http::Response::new(Body::empty())
    }
}
