//! The route table: immutable, compiled from the desired state, swapped whole. Pure.
//!
//! Which route answers, when several match; the first difference decides:
//!
//! 1. the host: exact before `*.longer.suffix` before `*.suffix` before a pattern without a host;
//! 2. the path: exact before wildcard;
//! 3. of wildcards, the one with the longer text before its first `*`;
//! 4. of those, the one with more text in all;
//! 5. of those, the one whose text is first in byte order.
//!
//! A host whose patterns do not match the path passes on to the next of 1. Finding costs one hash look-up for the host and each of its parent
//! names, and a binary search for the path: it does not grow with the number of routes.

mod paths;
mod pattern;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use selvedge_origin::registry::{BadUpstream, CacheSettings, CompressSettings, RouteRecord, WorkerName};
use selvedge_runtime::WorkerSource;

use crate::cache::purge::Realm;
use crate::metrics::{ByRoute, RouteCounters};
use crate::upstream::{Group, Groups, Renewal};
use crate::workers::LogBudget;
use paths::PathTable;
pub use pattern::{HostPattern, Pattern, PatternError};
pub use selvedge_origin::registry::host_of;

/// One pattern and what answers it, ready for the request path.
#[derive(Debug, Clone)]
pub struct Route {
    /// The pattern as its owner wrote it.
    pub pattern: Arc<str>,
    /// What answers.
    pub target: Target,
    /// Base address of the customer's server, where the route has one: for `Target::Upstream`, and for a worker's `fetch()` of its own route.
    pub upstream: Option<Arc<Group>>,
    /// Answer cleartext requests with a redirect to https.
    pub redirect_to_https: bool,
    /// The cache of this route.
    pub cache: CacheSettings,
    /// Stands for all that the registry says of it: nodes whose routes have the same one mean the same.
    pub fingerprint: u64,
    /// Compression of its answers.
    pub compress: CompressSettings,
    /// Send `103 Early Hints` made from earlier answers.
    pub early_hints: bool,
    /// What is counted of it.
    pub counters: Arc<RouteCounters>,
}

impl Route {
    /// A route of the registry, with the workers that run here, the group of its upstream, and the counters of its pattern.
    pub fn from_record(
        record: &RouteRecord,
        workers: &BTreeMap<WorkerName, Arc<ActiveWorker>>,
        groups: &mut Renewal<'_>,
        by_route: &ByRoute,
    ) -> Result<Self, RouteError> {
        let pattern: Arc<str> = record.pattern.as_str().into();
        let group = record.upstream.as_ref().map(|upstream| groups.get(upstream)).transpose();
        let upstream = group.map_err(|bad| RouteError::Upstream { pattern: pattern.clone(), bad })?;
        let target = match &record.worker {
            Some(name) => {
                let absent = || Arc::new(ActiveWorker::new(name.shared(), []));
                Target::Worker(workers.get(name).cloned().unwrap_or_else(absent))
            }
            None => Target::Upstream,
        };
        Ok(Self {
            counters: by_route.of(&pattern),
            pattern,
            target,
            upstream,
            redirect_to_https: record.redirect_to_https,
            cache: record.cache.clone(),
            fingerprint: fingerprint(record),
            compress: record.compress.clone(),
            early_hints: record.early_hints,
        })
    }
}

/// 64 bits of SHA-256 of the record as JSON: one program writes the same record in the same way everywhere.
fn fingerprint(record: &RouteRecord) -> u64 {
    let text = serde_json::to_vec(record).unwrap_or_default();
    let digest = ring::digest::digest(&ring::digest::SHA256, &text);
    u64::from_be_bytes(digest.as_ref().first_chunk().copied().unwrap_or_default())
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
    /// Whose its stored responses are, when it purges.
    pub realm: Realm,
    /// Versions with their share in percent, verified and warmed.
    versions: Vec<ActiveVersion>,
    /// How much it may log.
    log: LogBudget,
}

/// A version as this node runs it.
#[derive(Debug, Clone)]
pub struct ActiveVersion {
    /// What runs.
    pub source: Arc<WorkerSource>,
    /// Its share of the worker's traffic, in percent.
    pub share: f64,
    /// Its id, ready for the `Selvedge-Version` field.
    pub id: HeaderValue,
}

impl ActiveWorker {
    /// A worker whose versions take traffic in proportion to their shares. Shares that are not positive numbers take none.
    pub fn new(name: Arc<str>, versions: impl IntoIterator<Item = (Arc<WorkerSource>, f64)>) -> Self {
        let versions = versions.into_iter().filter(|(_, share)| share.is_finite() && *share > 0.0).map(|(source, share)| {
            let id = HeaderValue::from_str(&source.version).unwrap_or(HeaderValue::from_static("invalid"));
            ActiveVersion { source, share, id }
        });
        Self { realm: Realm::of_worker(&name), name, versions: versions.collect(), log: LogBudget::default() }
    }

    /// Versions that take traffic.
    pub fn versions(&self) -> &[ActiveVersion] {
        &self.versions
    }

    pub(crate) fn log_budget(&self) -> &LogBudget {
        &self.log
    }

    /// The version for a draw of 0 to 1 (exclusive). None where no version takes traffic.
    pub fn choose(&self, draw: f64) -> Option<&ActiveVersion> {
        if let [only] = self.versions.as_slice() {
            return Some(only);
        }
        let all: f64 = self.versions.iter().map(|version| version.share).sum();
        let mut left = draw * all;
        let chosen = self.versions.iter().find(|version| {
            left -= version.share;
            left < 0.0
        });
        chosen.or(self.versions.last())
    }
}

/// Why a table cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A pattern is not one.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Two routes mean the same.
    #[error("route pattern {pattern:?} says the same as {other:?}")]
    Twice {
        /// The later one.
        pattern: Arc<str>,
        /// The earlier one.
        other: Arc<str>,
    },
    /// An upstream breaks a rule.
    #[error("route pattern {pattern:?}: upstream: {bad}")]
    Upstream {
        /// The pattern.
        pattern: Arc<str>,
        /// Which.
        bad: BadUpstream,
    },
    /// Neither a worker nor an upstream.
    #[error("route pattern {pattern:?} has no worker and no upstream")]
    NoTarget {
        /// The pattern.
        pattern: Arc<str>,
    },
    /// Matching could cost too much.
    #[error("route pattern {pattern:?}: more than {max} patterns share the path text before their first *")]
    TooAlike {
        /// The pattern.
        pattern: Arc<str>,
        /// The bound.
        max: usize,
    },
}

/// All routes of a node.
#[derive(Debug)]
pub struct RouteTable {
    exact: HashMap<Box<str>, PathTable>,
    below: HashMap<Box<str>, PathTable>,
    any: PathTable,
    len: usize,
}

impl RouteTable {
    /// A table without routes.
    pub fn empty() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new(), any: PathTable::default(), len: 0 }
    }

    /// Compiles all routes, or says which one is wrong.
    pub fn compile(routes: impl IntoIterator<Item = Route>) -> Result<Self, RouteError> {
        let mut table = Self::empty();
        for route in routes {
            table.add(route)?;
        }
        table.seal();
        Ok(table)
    }

    /// Compiles the registry's records with the workers that run here. A record that makes no route is left out and named: one bad record must not
    /// take the others down. A route whose worker is not here keeps its place, and answers that it is not.
    pub fn from_records<'a>(
        records: impl Iterator<Item = &'a RouteRecord> + Clone,
        workers: &BTreeMap<WorkerName, Arc<ActiveWorker>>,
        groups: &Groups,
        by_route: &ByRoute,
    ) -> (Self, Vec<RouteError>) {
        let mut table = Self::empty();
        let mut refused = Vec::new();
        let mut groups = groups.renew(records.clone().filter_map(|record| record.upstream.as_ref()));
        for record in records {
            if let Err(error) = Route::from_record(record, workers, &mut groups, by_route).and_then(|route| table.add(route)) {
                refused.push(error);
            }
        }
        table.seal();
        (table, refused)
    }

    fn add(&mut self, route: Route) -> Result<(), RouteError> {
        let pattern = Pattern::parse(&route.pattern)?;
        if matches!(route.target, Target::Upstream) && route.upstream.is_none() {
            return Err(RouteError::NoTarget { pattern: route.pattern });
        }
        let paths = match pattern.host {
            HostPattern::Exact(host) => self.exact.entry(host.as_ref().into()).or_default(),
            HostPattern::Below(host) => self.below.entry(host.as_ref().into()).or_default(),
            HostPattern::Any => &mut self.any,
        };
        paths.add(&pattern.path, Arc::new(route))?;
        self.len += 1;
        Ok(())
    }

    fn seal(&mut self) {
        self.exact.values_mut().chain(self.below.values_mut()).for_each(PathTable::seal);
        self.any.seal();
    }

    /// The route that answers: `host` in lower case and without port (see [`host_of`]), `path` as received, without query.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.find_by_host(host, path).or_else(|| self.any.find(path))
    }

    /// As [`Self::find`], but only routes whose pattern names a host.
    pub fn find_by_host(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        if let Some(route) = self.exact.get(host).and_then(|paths| paths.find(path)) {
            return Some(route);
        }
        if self.below.is_empty() {
            return None;
        }
        // At most 127 rounds: a host has at most 253 bytes, and a label at least one.
        let mut name = host;
        while let Some((_, parent)) = name.split_once('.') {
            if let Some(route) = self.below.get(parent).and_then(|paths| paths.find(path)) {
                return Some(route);
            }
            name = parent;
        }
        None
    }

    /// Whether a pattern names this host (lower case, without port). Patterns without a host do not count: for certificates.
    pub fn names_host(&self, host: &str) -> bool {
        self.exact.contains_key(host)
            || std::iter::successors(host.split_once('.'), |(_, parent)| parent.split_once('.'))
                .any(|(_, parent)| self.below.contains_key(parent))
    }

    /// What was counted of each route.
    pub fn counters(&self) -> impl Iterator<Item = &Arc<RouteCounters>> {
        let hosts = self.exact.values().chain(self.below.values()).chain([&self.any]);
        hosts.flat_map(PathTable::routes).map(|route| &route.counters)
    }

    /// How many routes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The table in use. Reading it costs a few nanoseconds and takes no lock; a request keeps the table that it began with.
#[derive(Debug)]
pub struct ActiveRoutes {
    table: ArcSwap<RouteTable>,
    groups: Arc<Groups>,
    by_route: ByRoute,
}

impl Default for ActiveRoutes {
    fn default() -> Self {
        Self { table: ArcSwap::from_pointee(RouteTable::empty()), groups: Arc::default(), by_route: ByRoute::default() }
    }
}

impl ActiveRoutes {
    /// The table in use now.
    pub fn load(&self) -> arc_swap::Guard<Arc<RouteTable>> {
        self.table.load()
    }

    /// From now on this table.
    pub fn swap(&self, table: RouteTable) {
        self.table.store(Arc::new(table));
        self.by_route.tidy();
    }

    /// The upstreams that its tables name.
    pub fn groups(&self) -> &Arc<Groups> {
        &self.groups
    }

    /// What is counted of the patterns that its tables have.
    pub fn by_route(&self) -> &ByRoute {
        &self.by_route
    }
}

/// For tests/fuzz: any text as a pattern; one that is taken matches nothing that its own rule does not.
pub fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(pattern) = Pattern::parse(text) else { return };
    let route = Route {
        pattern: text.into(),
        target: Target::Worker(Arc::new(ActiveWorker::new("fuzz".into(), []))),
        upstream: Group::new(&text.into()).ok().map(Arc::new),
        redirect_to_https: false,
        fingerprint: 0,
        compress: Default::default(),
        early_hints: false,
        counters: Arc::default(),
        cache: CacheSettings::default(),
    };
    let Ok(table) = RouteTable::compile([route]) else { return };
    for path in ["/", "/a", &*pattern.path, text] {
        let found = table.find("a.example.org", path).is_some();
        assert!(!found || pattern::glob(&pattern.path, path), "{text:?} {path:?}");
    }
}

#[cfg(test)]
mod tests;
