//! The rules for routes: one pattern has one owner, and an owner changes only its own.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::version::{bad, check_message};
use super::{
    Before, CacheSettings, Change, CompressSettings, NodeName, Plan, Refusal, RouteOwner, RouteRecord, State, Upstream, WorkerName, pattern,
};
use crate::api::wire::SiteApply;
use crate::limits::{ROUTES_MAX, ROUTES_PER_OWNER_MAX, SITES_MAX, UPSTREAM_BYTES_OF_ALL_MAX};

/// A route as its owner declares it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// `HOST/PATH`, see [`RouteRecord::pattern`].
    pub pattern: String,
    /// The worker that answers. For a worker's own routes: that worker, which need not be said.
    #[serde(default)]
    pub worker: Option<WorkerName>,
    /// The customer's own servers.
    #[serde(default)]
    pub upstream: Option<Upstream>,
    /// Answer cleartext requests with a redirect to https.
    #[serde(default)]
    pub redirect_to_https: bool,
    /// The cache of this route.
    #[serde(default)]
    pub cache: CacheSettings,
    /// Compression of its answers on the fly.
    #[serde(default)]
    pub compress: CompressSettings,
    /// Send `103 Early Hints` made from the `Link` fields of earlier answers (RFC 8297). Default: off.
    #[serde(default)]
    pub early_hints: bool,
}

impl From<RouteRecord> for RouteSpec {
    fn from(route: RouteRecord) -> Self {
        let RouteRecord { pattern, owner: _, worker, upstream, redirect_to_https, cache, compress, early_hints } = route;
        Self { pattern, worker, upstream, redirect_to_https, cache, compress, early_hints }
    }
}

/// The difference between an owner's routes before and after.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteDiff {
    /// New routes.
    pub added: Vec<RouteRecord>,
    /// Routes that change.
    pub changed: Vec<RouteChange>,
    /// Routes that go.
    pub removed: Vec<RouteRecord>,
    /// Patterns that move here from another owner; they are in `added` too.
    pub taken_over: Vec<TakenOver>,
}

impl RouteDiff {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// A route that changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteChange {
    /// As it was.
    pub before: RouteRecord,
    /// As it is now.
    pub after: RouteRecord,
}

/// A pattern that moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakenOver {
    /// The pattern.
    pub pattern: String,
    /// Who had it.
    pub from: RouteOwner,
}

/// An owner's routes from now on, and what that changes.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteRoutes {
    pub(super) changes: Vec<Change>,
    pub(super) before: Vec<Before>,
    pub(super) routes: Vec<RouteRecord>,
    /// The difference.
    pub diff: RouteDiff,
}

/// Applies a site file: these are all its routes from now on. Answers with the difference; the changes are empty where there is none.
pub fn apply_site(state: &State, site: &NodeName, apply: &SiteApply) -> Result<Plan<RouteDiff>, Refusal> {
    check_message(apply.message.as_deref())?;
    let owner = RouteOwner::Site(site.clone());
    let routes = own(&owner, &apply.routes)?;
    let serving = |worker: &WorkerName| state.worker(worker).is_some_and(|worker| worker.deployment().is_some());
    for route in &routes {
        if let Some(worker) = route.worker.as_ref().filter(|worker| !serving(worker)) {
            return Err(Refusal::RouteWorker { pattern: route.pattern.clone(), worker: worker.clone() });
        }
    }
    if !routes.is_empty() {
        let others: BTreeSet<_> = state.routes().values().map(|route| &route.owner).filter(|other| **other != owner).collect();
        if others.iter().filter(|other| matches!(other, RouteOwner::Site(_))).count() >= SITES_MAX {
            return Err(Refusal::Limit { what: "sites".to_owned(), max: SITES_MAX });
        }
    }
    let set = set(state, &owner, routes, apply.take_over)?;
    let changes = if set.diff.is_empty() { vec![] } else { set.changes };
    Ok(Plan { changes, before: set.before, answer: set.diff })
}

/// Checks what an owner declares, and gives the records: patterns in their one spelling, each once.
pub(super) fn own(owner: &RouteOwner, specs: &[RouteSpec]) -> Result<Vec<RouteRecord>, Refusal> {
    if specs.len() > ROUTES_PER_OWNER_MAX {
        return Err(Refusal::Limit { what: format!("routes of {owner}"), max: ROUTES_PER_OWNER_MAX });
    }
    let mut patterns = BTreeSet::new();
    let mut routes = Vec::with_capacity(specs.len());
    for spec in specs {
        let route = record(owner, spec)?;
        if !patterns.insert(route.pattern.clone()) {
            return Err(Refusal::RouteTwice { pattern: route.pattern });
        }
        routes.push(route);
    }
    Ok(routes)
}

fn record(owner: &RouteOwner, spec: &RouteSpec) -> Result<RouteRecord, Refusal> {
    let cut = || spec.pattern.chars().take(120).collect();
    let pattern = pattern::normalise(&spec.pattern).map_err(|rule| Refusal::Pattern { pattern: cut(), rule })?;
    let worker = match (owner, &spec.worker) {
        (RouteOwner::Worker(name), Some(other)) if name != other => {
            return Err(bad(&format!("route {pattern}"), format!("a route of {owner} cannot name worker {other}")));
        }
        (RouteOwner::Worker(name), _) => Some(name.clone()),
        (RouteOwner::Site(_), worker) => worker.clone(),
    };
    if let Some(upstream) = &spec.upstream {
        upstream.check().map_err(|broken| bad(&format!("route {pattern}: upstream {}", broken.key), broken.rule))?;
    }
    if worker.is_none() && spec.upstream.is_none() {
        return Err(bad(&format!("route {pattern}"), "needs a worker, an upstream or both"));
    }
    spec.cache.check().map_err(|(key, rule)| bad(&format!("route {pattern}: {key}"), rule))?;
    spec.compress.check().map_err(|(key, rule)| bad(&format!("route {pattern}: compress.{key}"), rule))?;
    Ok(RouteRecord {
        pattern,
        owner: owner.clone(),
        worker,
        upstream: spec.upstream.clone(),
        redirect_to_https: spec.redirect_to_https,
        cache: spec.cache.clone(),
        compress: spec.compress.clone(),
        early_hints: spec.early_hints,
    })
}

/// Makes `routes` all routes of `owner`. Patterns that others hold are refused, or with `take_over` taken from them.
pub(super) fn set(state: &State, owner: &RouteOwner, routes: Vec<RouteRecord>, take_over: bool) -> Result<SiteRoutes, Refusal> {
    let mine = state.routes_of(owner);
    let mut diff = RouteDiff::default();
    let mut losers = BTreeSet::new();
    for route in &routes {
        match state.routes().get(&route.pattern) {
            Some(held) if held.owner == *owner => {
                if held != route {
                    diff.changed.push(RouteChange { before: held.clone(), after: route.clone() });
                }
            }
            Some(held) if take_over => {
                losers.insert(held.owner.clone());
                diff.taken_over.push(TakenOver { pattern: route.pattern.clone(), from: held.owner.clone() });
                diff.added.push(route.clone());
            }
            Some(held) => return Err(Refusal::RouteOwned { pattern: route.pattern.clone(), owner: held.owner.clone() }),
            None => diff.added.push(route.clone()),
        }
    }
    if state.routes().len().saturating_sub(mine.len()).saturating_add(routes.len()) > ROUTES_MAX {
        return Err(Refusal::Limit { what: "routes of all owners".to_owned(), max: ROUTES_MAX });
    }
    let bytes = |route: &RouteRecord| route.upstream.as_ref().map_or(0, Upstream::weight_bytes);
    let others = state.routes().values().filter(|held| held.owner != *owner).map(bytes);
    if others.chain(routes.iter().map(bytes)).sum::<usize>() > UPSTREAM_BYTES_OF_ALL_MAX {
        return Err(Refusal::Limit { what: "bytes of the upstreams of all routes".to_owned(), max: UPSTREAM_BYTES_OF_ALL_MAX });
    }
    let declared: BTreeSet<&str> = routes.iter().map(|route| route.pattern.as_str()).collect();
    let stays = |held: &RouteRecord| declared.contains(held.pattern.as_str());
    diff.removed = mine.iter().filter(|held| !stays(held)).cloned().collect();
    let mut changes = Vec::new();
    let mut before = vec![Before::Routes { owner: owner.clone(), routes: mine }];
    for loser in losers {
        let held = state.routes_of(&loser);
        let left = held.iter().filter(|held| !stays(held)).cloned().collect();
        changes.push(Change::RoutesSet { owner: loser.clone(), routes: left });
        before.push(Before::Routes { owner: loser, routes: held });
    }
    changes.push(Change::RoutesSet { owner: owner.clone(), routes: routes.clone() });
    Ok(SiteRoutes { changes, before, routes, diff })
}
