//! The route table: immutable, compiled from the desired state, swapped whole.

use std::sync::Arc;

use selvedge_origin::registry::CacheSettings;
use selvedge_runtime::WorkerSource;

/// One pattern and what answers it, ready for the request path.
#[derive(Debug, Clone)]
pub struct Route {
    /// The pattern as its owner wrote it.
    pub pattern: Arc<str>,
    /// What answers.
    pub target: Target,
    /// Base address of the customer's server, where the route has one: for `Target::Upstream`, and for a worker's `fetch()` of its own route.
    pub upstream: Option<Arc<http::Uri>>,
    /// Answer cleartext requests with a redirect to https.
    pub redirect_to_https: bool,
    /// The cache of this route.
    pub cache: CacheSettings,
}

/// What answers a route.
#[derive(Debug, Clone)]
pub enum Target {
    /// A worker; versions share its traffic.
    Worker(Arc<ActiveWorker>),
    /// The route's upstream.
    Upstream,
}

/// A worker as this node runs it.
#[derive(Debug)]
pub struct ActiveWorker {
    /// Its name.
    pub name: Arc<str>,
    /// Versions with their share in percent, verified and warmed.
    pub versions: Vec<(Arc<WorkerSource>, f64)>,
}
