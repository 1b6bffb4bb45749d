//! Which route answers, and what of it: the first decision about a request.

use std::sync::Arc;

use http::Method;

use super::context::Context;
use super::error::RequestError;
use super::wish::{self, Wish};
use crate::cache::key::{CacheKey, Space};
use crate::cache::purge::Realm;
use crate::cache::query;
use crate::cache::slice::Slice;
use crate::chance::draw;
use crate::routes::{ActiveVersion, ActiveWorker, Route, RouteTable, Target};
use crate::upstream::Group;

/// What will answer a request.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    pub(crate) route: Arc<Route>,
    pub(crate) answerer: Answerer,
    /// The cache has a part in it.
    pub(crate) cached: bool,
    /// What a worker wishes of the cache.
    pub(crate) wish: Option<Arc<Wish>>,
    /// The slice of the whole that is asked for.
    pub(crate) slice: Option<Slice>,
}

impl Aim {
    /// Whose responses come of it: its worker's, also those of the upstream behind it.
    pub(crate) fn realm(&self) -> Realm {
        if let Some(wish) = &self.wish {
            return wish.realm;
        }
        match &self.route.target {
            Target::Worker(worker) => worker.realm,
            Target::Upstream => Realm::NONE,
        }
    }
}

/// Who.
#[derive(Debug, Clone)]
pub(crate) enum Answerer {
    /// This version of this worker.
    Worker(Arc<ActiveWorker>, ActiveVersion),
    /// The customer's servers.
    Upstream(Arc<Group>),
    /// The rest of the world, which a worker asks.
    Outside,
}

/// The route for a client's request, or a worker's request of another route.
pub(crate) fn resolve(context: &Context, table: &RouteTable) -> Result<Aim, RequestError> {
    context.check()?;
    // A tunnel is no request to a route (RFC 9110, section 9.3.6), and TRACE would show a client the fields that proxies add (section 9.3.8).
    if context.method == Method::CONNECT || context.method == Method::TRACE {
        return Err(RequestError::Method(context.method.clone()));
    }
    aim(&find(context, table)?)
}

/// The route for a request.
pub(crate) fn find(context: &Context, table: &RouteTable) -> Result<Arc<Route>, RequestError> {
    let path = context.target.path();
    table.find(context.host(), path).cloned().ok_or_else(|| {
        let path: String = path.chars().take(200).collect();
        RequestError::NoRoute { authority: context.authority.clone(), path: path.into() }
    })
}

fn aim(route: &Arc<Route>) -> Result<Aim, RequestError> {
    let answerer = match &route.target {
        Target::Worker(worker) => {
            let draw = if worker.versions().len() > 1 { draw() } else { 0.0 };
            let version = worker.choose(draw).ok_or_else(|| RequestError::NotActive { worker: worker.name.clone() })?;
            Answerer::Worker(worker.clone(), version.clone())
        }
        Target::Upstream => match &route.upstream {
            Some(upstream) => Answerer::Upstream(upstream.clone()),
            None => return Err(RequestError::NoRoute { authority: "".into(), path: route.pattern.as_ref().into() }),
        },
    };
    let cached = route.cache.enabled.unwrap_or(matches!(answerer, Answerer::Upstream(_)));
    Ok(Aim { route: route.clone(), answerer, cached, wish: None, slice: None })
}

/// What is behind a worker's own route: its upstream, through the cache unless the route turns it off; never the worker.
pub(crate) fn behind(route: &Arc<Route>, worker: &Arc<str>) -> Result<Aim, RequestError> {
    let Some(upstream) = &route.upstream else {
        return Err(RequestError::NoUpstream { pattern: route.pattern.clone(), worker: worker.clone() });
    };
    Ok(to(route, upstream))
}

/// The route's upstream, also where a worker stands before it: what a shield asks for another node.
pub(crate) fn upstream(route: &Arc<Route>) -> Option<Aim> {
    route.upstream.as_ref().map(|upstream| to(route, upstream))
}

fn to(route: &Arc<Route>, upstream: &Arc<Group>) -> Aim {
    let cached = route.cache.enabled.unwrap_or(true);
    Aim { route: route.clone(), answerer: Answerer::Upstream(upstream.clone()), cached, wish: None, slice: None }
}

/// The rest of the world, through what the worker keeps of it.
pub(crate) fn outside(wish: Arc<Wish>) -> Aim {
    Aim { route: wish::outside(), answerer: Answerer::Outside, cached: true, wish: Some(wish), slice: None }
}

/// Where a worker's `fetch()` of an address goes.
pub(crate) enum Inside {
    /// To the upstream of the worker's own route.
    Behind(Arc<Route>),
    /// To another route.
    Other,
    /// Out of the node.
    Outside,
}

/// Whether a worker's request is for a route of this node. `own` is the authority that the worker was asked by: routes without a host are this node's only under that
/// name (they match every name, and a worker must be able to reach the rest of the world), and a port is this node's only where it is the scheme's or that
/// one's.
pub(crate) fn inside(table: &RouteTable, asked: &Context, own: &Context, worker: &str) -> Inside {
    let port = |context: &Context| context.authority.get(context.host().len()..).unwrap_or_default().to_owned();
    let own_name = asked.authority == own.authority || (asked.host() == own.host() && port(asked) == port(own));
    if !own_name && !port(asked).is_empty() && port(asked) != port(own) {
        return Inside::Outside;
    }
    let path = asked.target.path();
    let route = if own_name { table.find(asked.host(), path) } else { table.find_by_host(asked.host(), path) };
    match route {
        None => Inside::Outside,
        Some(route) => match &route.target {
            Target::Worker(target) if &*target.name == worker => Inside::Behind(route.clone()),
            _ => Inside::Other,
        },
    }
}

/// The key of what answers.
pub(crate) fn key(aim: &Aim, context: &Context) -> CacheKey {
    let whole = whole_key(aim, context);
    match &aim.slice {
        Some(slice) => slice.key(whole),
        None => whole,
    }
}

/// The same of the whole, where a slice of it is asked for.
pub(super) fn whole_key(aim: &Aim, context: &Context) -> CacheKey {
    if let Some(wish) = &aim.wish {
        return wish.key(context, &aim.route.cache);
    }
    let space = match &aim.answerer {
        Answerer::Worker(worker, _) if aim.route.cache.cross_version => Space::AnyVersion(&worker.name),
        Answerer::Worker(_, version) => Space::Worker(&version.source.version),
        Answerer::Upstream(_) | Answerer::Outside => Space::Upstream,
    };
    CacheKey::new(space, context.scheme(), &context.authority, &query::name(&aim.route.cache.query, context.target.as_str()))
}
