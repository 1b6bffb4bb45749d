//! Stage 2, ANSWER: the whole path of a request on one screen.

mod admit;
mod beside;
mod clock;
mod compress;
mod context;
mod error;
mod execute;
mod explain;
mod fetch;
mod fields;
mod hints;
mod invalidate;
mod lookup;
mod partial;
mod pass_through;
mod pump;
mod record;
mod reference;
mod respond;
mod route;
mod shield;
mod slices;
mod store;
mod trail;
mod wish;
mod worker_cache;

use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use ipnet::IpNet;
use selvedge_runtime::supervisor::Supervisor;
use selvedge_runtime::{Body, Strain};

use crate::cache::Cache;
use crate::cache::status::{self, Detail, StatusName};
use crate::cache::time::Time;
use crate::deployments::{Contact, Purger};
use crate::listen::{Connection, Interim, Refusal, Reply};
use crate::metrics::{CacheResult, Metrics};
use crate::peers::Peers;
use crate::routes::ActiveRoutes;
use crate::tasks::Tasks;
use crate::upstream::Upstreams;
use crate::workers::Runners;

use beside::{Beside, Judged};
use compress::{Asked, Compressors};
use context::Context;
use hints::{Hints, Lesson};
use lookup::{Fetched, Lookup, Question};
use route::{Aim, Answerer};
use trail::{Origin, Sinks, Trail};

pub use clock::Clock;
pub use context::fuzz as fuzz_names;
pub use error::RequestError;
pub(crate) use explain::fuzz as fuzz_explained;
pub(crate) use hints::fuzz as fuzz_links;
pub use record::{Observer, RequestRecord, WorkerLine, WorkerRecord};
pub(crate) use reference::fuzz as fuzz_references;
pub(crate) use respond::refusal;
pub(crate) use shield::fuzz as fuzz_standings;
pub(crate) use {
    fields::strip_hop, reference::resolve, route::Inside, trail::Trail as RequestTrail, wish::Wish, worker_cache::Asking as CacheAsking,
};

/// What a [`RequestPath`] is made of.
pub struct Parts {
    /// The node's name: in `Proxy-Status`, `Cache-Status`, `Via`, `request.cf.colo`.
    pub node: Arc<str>,
    /// The routes in use; the follower swaps them.
    pub routes: Arc<ActiveRoutes>,
    /// Stored responses.
    pub cache: Arc<Cache>,
    /// Other nodes of the region.
    pub peers: Arc<Peers>,
    /// When the registry was heard last.
    pub contact: Arc<Contact>,
    /// The way of workers' purges.
    pub purger: Purger,
    /// The way to customers' servers and to the rest of the world.
    pub upstreams: Arc<Upstreams>,
    /// Peers whose forwarding fields are believed. Empty by default.
    pub trusted_proxies: Vec<IpNet>,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
    /// How loaded the node is, and so what it refuses.
    pub strain: Arc<Strain>,
    /// Runs cache fills, which belong to no client.
    pub tasks: Tasks,
    /// Told of every complete request, in order.
    pub observers: Vec<Arc<dyn Observer>>,
    /// Tells the time to what decides about freshness.
    pub clock: Clock,
}

/// Answers requests of every listener. Built once by `node.rs`, held in an `Arc`.
pub struct RequestPath {
    node: Arc<str>,
    name: StatusName,
    via: HeaderValue,
    routes: Arc<ActiveRoutes>,
    cache: Arc<Cache>,
    peers: Arc<Peers>,
    contact: Arc<Contact>,
    purger: Purger,
    upstreams: Arc<Upstreams>,
    runners: Runners,
    trusted_proxies: Vec<IpNet>,
    strain: Arc<Strain>,
    tasks: Tasks,
    sinks: Arc<Sinks>,
    clock: Clock,
    https_port: OnceLock<u16>,
    compressors: Compressors,
    hints: Hints,
}

impl RequestPath {
    /// Puts the parts together; workers run in the runners of `supervisor`.
    pub fn new(parts: Parts, supervisor: Supervisor) -> Arc<Self> {
        Self::with_runners(parts, Runners::Supervisor(supervisor))
    }

    fn with_runners(parts: Parts, runners: Runners) -> Arc<Self> {
        Arc::new(Self {
            name: StatusName::new(&parts.node),
            via: HeaderValue::from_str(&format!("1.1 {}", parts.node)).unwrap_or(HeaderValue::from_static("1.1 selvedge")),
            node: parts.node,
            routes: parts.routes,
            cache: parts.cache,
            peers: parts.peers,
            contact: parts.contact,
            purger: parts.purger,
            upstreams: parts.upstreams,
            runners,
            trusted_proxies: parts.trusted_proxies,
            strain: parts.strain,
            tasks: parts.tasks,
            hints: Hints::default(),
            compressors: Compressors::new(parts.metrics.clone()),
            sinks: Arc::new(Sinks { metrics: parts.metrics, observers: parts.observers }),
            clock: parts.clock,
            https_port: OnceLock::new(),
        })
    }

    /// Where https is served, once that is known: for redirects from cleartext. Without it they go to the default port.
    pub fn announce_https(&self, port: u16) {
        let _ = self.https_port.set(port);
    }

    /// Answers one request; never fails: errors become responses here. The URI is absolute or origin-form with a Host field, as the listener
    /// got it. Interim responses go to `interim` until the response is there. Dropping the future cancels the work.
    pub async fn serve(self: &Arc<Self>, request: Request<Body>, connection: &Arc<Connection>, interim: Interim) -> Reply {
        let context = Context::of_client(&request, connection, &self.trusted_proxies);
        let trail = Trail::new(context, Origin::Client, self.sinks.clone(), interim);
        self.reply(request, &trail).await
    }

    /// The answer of a listener to what is no request.
    pub fn refuse(&self, refusal: Refusal) -> Response<Body> {
        respond::refusal(refusal, self.name.as_str())
    }

    /// The answer or the error's response, noted in the trail.
    async fn reply(self: &Arc<Self>, request: Request<Body>, trail: &Arc<Trail>) -> Reply {
        let reply = match self.answer(request, trail).await {
            Ok(reply) => reply,
            Err(error) => respond::error(&error, trail, self).into(),
        };
        trail.answered(reply)
    }

    /// Answers one request: which route, then [`Self::fulfil`].
    async fn answer(self: &Arc<Self>, request: Request<Body>, trail: &Arc<Trail>) -> Result<Reply, RequestError> {
        let aim = route::resolve(&trail.context, &self.routes.load())?;
        trail.routed(&aim.route);
        if aim.route.redirect_to_https && !trail.context.secure {
            return Ok(respond::to_https(&trail.context, self.https_port.get().copied()).into());
        }
        self.fulfil(request, &aim, trail).await
    }

    /// The whole path behind a route, in order, and every branch of it.
    async fn fulfil(self: &Arc<Self>, mut request: Request<Body>, aim: &Aim, trail: &Arc<Trail>) -> Result<Reply, RequestError> {
        fields::arrive(request.headers_mut());
        let Some(mut question) = Question::new(request.headers(), aim, &trail.context) else {
            let asked = Asked { aim, headers: request.headers(), trail };
            hints::send(self, asked);
            let coding = asked.wanted();
            let mut response = self.forward(request, aim, trail).await?;
            respond::strip_tags(response.headers_mut());
            return Ok(compress::one(self, aim, coding, trail, response).into());
        };
        lookup::narrow(&mut request, aim, &trail.context);
        let asked = Asked { aim, headers: request.headers(), trail };
        let now = self.now();
        let mut lookup = question.ask(self, &request, aim, now)?;
        if matches!(lookup, Lookup::Recall) {
            Box::pin(question.recall(self, request.headers(), aim, trail)).await;
            lookup = question.ask(self, &request, aim, now)?;
        }
        let (why, detail) = match lookup {
            Lookup::Fresh(entry, left_ms) => {
                trail.cached(CacheResult::Hit);
                return Ok(compress::fresh(self, &question, asked, &entry, left_ms, now).await);
            }
            Lookup::Refreshing(entry, stale_ms, because) => {
                trail.cached(if stale_ms == 0 { CacheResult::Hit } else { CacheResult::Stale });
                store::refresh(self, &question, request.headers(), aim, (entry.clone(), stale_ms), trail);
                let say = respond::because(&entry, because, now);
                return Ok(compress::stored(self, &question, asked, &entry, say, now).await.into());
            }
            Lookup::Stale(entry) => {
                trail.cached(CacheResult::Stale);
                let say = respond::because(&entry, Detail::MaxStale, now);
                return Ok(compress::stored(self, &question, asked, &entry, say, now).await.into());
            }
            Lookup::Fetch | Lookup::Recall => {
                hints::send(self, asked);
                if slices::are_wanted(aim)
                    && let Some(response) = slices::fetch(self, asked, trail).await?
                {
                    return Ok(compress::one(self, aim, asked.wanted(), trail, response).into());
                }
                match Box::pin(lookup::fetch(self, &question, request.headers(), aim, trail)).await? {
                    Fetched::Response(response) => return Ok(response.into()),
                    Fetched::Alone(why, detail) => (why, detail),
                }
            }
            Lookup::Bypass(why, detail) => {
                hints::send(self, asked);
                (why, detail.name())
            }
        };
        trail.cached(CacheResult::Bypass);
        let coding = asked.wanted();
        let beside = Beside::begin(self, &request, aim);
        let answer = self.forward(request, aim, trail).await;
        let response = match beside.judge(self, &question, aim, trail, answer)? {
            Judged::Stale(stale) => return Ok(stale.into()),
            Judged::Answer(response) => response,
        };
        let invalid = invalidate::invalidate(self, aim, &trail.context, &response);
        shield::invalidate(self, aim, &invalid, trail).await;
        let mut response = beside.take(self, &question, aim, &trail.context, response);
        respond::strip_tags(response.headers_mut());
        let ours = self.name.forward(why, Some(response.status()), false, false, Some(detail));
        status::add(response.headers_mut(), ours);
        Ok(compress::one(self, aim, coding, trail, response).into())
    }

    /// Asks whoever answers, without the cache, where the node has room for that.
    fn forward<'a>(
        self: &'a Arc<Self>,
        request: Request<Body>,
        aim: &'a Aim,
        trail: &'a Arc<Trail>,
    ) -> BoxFuture<'a, Result<Response<Body>, RequestError>> {
        match admit::admit(self, aim, trail) {
            Ok(()) => self.send_on(request, aim, trail),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Asks whoever answers. Boxed, and each way by itself: what is answered from the cache shall not carry the room for it, nor a
    /// worker's run that of an upstream's exchange.
    fn send_on<'a>(
        self: &'a Arc<Self>,
        request: Request<Body>,
        aim: &'a Aim,
        trail: &'a Arc<Trail>,
    ) -> BoxFuture<'a, Result<Response<Body>, RequestError>> {
        let lesson = Lesson::begin(self, &request, aim, trail);
        match &aim.answerer {
            Answerer::Worker(worker, version) => {
                let run = execute::run(self, request, aim, (worker, version), trail);
                Box::pin(async move { Ok(self.heard(run?.await?, aim, lesson)) })
            }
            Answerer::Upstream(upstream) => {
                Box::pin(async move { Ok(self.heard(fetch::get(self, request, upstream, trail).await?, aim, lesson)) })
            }
            Answerer::Outside => Box::pin(async move { Ok(self.heard(fetch::outside(self, request, trail).await?, aim, lesson)) }),
        }
    }

    /// What follows from an answer of another.
    fn heard(&self, mut response: Response<Body>, aim: &Aim, lesson: Option<Box<Lesson>>) -> Response<Body> {
        if let Some(wish) = &aim.wish {
            wish.tag(response.headers_mut());
        }
        if let Some(lesson) = lesson
            && !pass_through::is_passed(&response)
        {
            lesson.learn(self, &response);
        }
        response
    }

    /// Answers a worker's request of another route of this node, on behalf of its client.
    pub(crate) async fn serve_nested(self: &Arc<Self>, request: Request<Body>, context: Context, asking: &Trail) -> Response<Body> {
        let trail = Trail::new(context, Origin::Worker, asking.sinks().clone(), Interim::none());
        self.reply(request, &trail).await.into_response()
    }

    /// Answers a worker's request of its own route: from the route's upstream, through the cache.
    pub(crate) async fn serve_behind(
        self: &Arc<Self>,
        request: Request<Body>,
        context: Context,
        route: &Arc<crate::routes::Route>,
        worker: &Arc<str>,
        wish: Option<Arc<Wish>>,
        asking: &Trail,
    ) -> Result<Response<Body>, RequestError> {
        context.check()?;
        let mut aim = route::behind(route, worker)?;
        if wish.is_some() {
            // Whatever the route says: whoever writes a wish wants the cache.
            (aim.wish, aim.cached) = (wish, true);
        }
        let trail = Trail::new(context, Origin::Worker, asking.sinks().clone(), Interim::none());
        trail.routed(&aim.route);
        let reply = self.fulfil(request, &aim, &trail).await.inspect_err(|error| trail.failed("behind", error.to_string()))?;
        Ok(trail.answered(reply).into_response())
    }

    /// Answers a worker's request of the rest of the world: through the cache, for this worker only.
    pub(crate) async fn serve_outside(
        self: &Arc<Self>,
        request: Request<Body>,
        context: Context,
        wish: Arc<Wish>,
        asking: &Trail,
    ) -> Result<Response<Body>, RequestError> {
        context.check()?;
        let trail = Trail::new(context, Origin::Refresh, asking.sinks().clone(), Interim::none());
        let reply = self.fulfil(request, &route::outside(wish), &trail).await?;
        Ok(trail.answered(reply).into_response())
    }

    /// Where a worker's `fetch()` goes.
    pub(crate) fn inside(&self, asked: &Context, own: &Context, worker: &str) -> Inside {
        route::inside(&self.routes.load(), asked, own, worker)
    }

    pub(crate) fn node(&self) -> &Arc<str> {
        &self.node
    }

    pub(crate) fn name(&self) -> &StatusName {
        &self.name
    }

    pub(crate) fn via(&self) -> &HeaderValue {
        &self.via
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    fn contact(&self) -> &Contact {
        &self.contact
    }

    pub(crate) fn purger(&self) -> &Purger {
        &self.purger
    }

    fn peers(&self) -> &Peers {
        &self.peers
    }

    pub(crate) fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    fn hints(&self) -> &Hints {
        &self.hints
    }

    fn compressors(&self) -> &Compressors {
        &self.compressors
    }

    pub(crate) fn runners(&self) -> &Runners {
        &self.runners
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    pub(crate) fn observers(&self) -> &[Arc<dyn Observer>] {
        &self.sinks.observers
    }
}

#[cfg(test)]
mod tests;
