//! Tells an operator what would happen to a request now, and why, by the rules that answer requests. Nothing happens: the cache is looked at and not used, and nobody
//! is asked.

mod ask;
mod told;
mod verdict;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::Request;
use selvedge_origin::api::wire::{Ask, ExplainAction, ExplainAsk, Explanation, Layer, SlicesTold, Told, UpstreamServers};
use selvedge_origin::registry::CacheSettings;

use super::context::Context;
use super::lookup::{self, Question};
use super::route::{self, Aim};
use super::{RequestPath, slices, worker_cache};
use crate::cache::Found;
use crate::cache::entry::Entry;
use crate::cache::key::{CacheKey, Space};
use crate::cache::peek::Sight;
use crate::cache::slice::Whole;
use crate::cache::time::Time;
use crate::deployments::Knows;
use crate::limits::{EXPLAINED_SERVERS_MAX, EXPLAINED_SLICES_MAX};
use crate::routes::Target;

pub(crate) use ask::fuzz;

impl Knows for RequestPath {
    fn tell<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Told> {
        match ask {
            Ask::Explain(ask) => self.explain(ask).boxed(),
            Ask::Upstreams {} => std::future::ready(Told::Upstreams(self.servers())).boxed(),
        }
    }
}

impl RequestPath {
    async fn explain(&self, ask: &ExplainAsk) -> Told {
        match ask::request(ask) {
            Ok((request, context)) => Told::Explained(Box::new(self.explanation(&request, &context).await)),
            Err(reason) => Told::Failed(reason),
        }
    }

    /// The way of [`RequestPath::answer`], as far as nobody is asked.
    async fn explanation(&self, request: &Request<()>, context: &Context) -> Explanation {
        let aim = match route::resolve(context, &self.routes.load()) {
            Ok(aim) => aim,
            Err(error) => return Explanation { refused: Some(error.to_string()), ..Explanation::default() },
        };
        let route = Some(told::route(&aim));
        if aim.route.redirect_to_https && !context.secure {
            let refused = Some("the route sends cleartext requests to https (redirect_to_https)".to_owned());
            return Explanation { route, refused, ..Explanation::default() };
        }
        let mut layers = vec![self.layer("route", request, context, &aim).await];
        if let Target::Worker(worker) = &aim.route.target {
            if let Some(behind) = route::upstream(&aim.route) {
                layers.push(self.layer("behind the worker", request, context, &behind).await);
            }
            layers.push(self.own_layer(&worker.name, request, context).await);
        }
        Explanation { route, refused: None, layers }
    }

    /// What the cache in front of whom a route asks would do: see [`RequestPath::fulfil`].
    async fn layer(&self, place: &str, request: &Request<()>, context: &Context, aim: &Aim) -> Layer {
        let Some(question) = Question::new(request.headers(), aim, context) else {
            let because = "the route's cache is not enabled: whoever answers is asked each time";
            return told::layer(place, &route::key(aim, context), verdict::plain(ExplainAction::Bypass, because));
        };
        let mut request = ask::whole(request);
        lookup::narrow(&mut request, aim, context);
        let now = self.now();
        let sight = self.cache.peek(&question.key, request.headers(), now).await;
        let verdict = verdict::of(self, &question, &request, aim, &sight, now);
        let slices = sight.entry.as_ref().filter(|_| slices::are_wanted(aim)).and_then(|first| self.slices(first, &question.key, aim));
        let mut layer = self.looked(told::layer(place, &question.key, verdict), &question.key, sight, &aim.route.cache, now);
        if let Some(stored) = &mut layer.stored {
            stored.slices = slices;
        }
        layer
    }

    /// How much is here of what `first` is the first slice of.
    fn slices(&self, first: &Entry, key: &CacheKey, aim: &Aim) -> Option<SlicesTold> {
        let slice_bytes = aim.route.cache.slice_bytes;
        let whole = Whole::of_stored(first.part(), first.fields(), first.body.len())?;
        let slices = whole.slices(slice_bytes.into());
        let count = slices.len() as u64;
        let looked_for = slices.take(EXPLAINED_SLICES_MAX);
        let looked = looked_for.len() as u64;
        let here = looked_for.filter(|slice| self.cache.has(&slice.key(key.clone()))).count() as u64;
        Some(SlicesTold { here, looked, count, slice_bytes })
    }

    /// What the worker keeps in its own `caches.default` for the URL: see [`RequestPath::worker_cache`].
    async fn own_layer(&self, worker: &str, request: &Request<()>, context: &Context) -> Layer {
        let space = Space::WorkerCache { worker, name: None };
        let key = CacheKey::new(space, context.scheme(), &context.authority, context.target.as_str());
        let now = self.now();
        let sight = self.cache.peek(&key, request.headers(), now).await;
        let verdict = match &sight.found {
            Found::Fresh(..) => verdict::plain(ExplainAction::Hit, "match() finds it, where the worker asks for this URL"),
            _ => verdict::plain(ExplainAction::Absent, "match() finds nothing, where the worker asks for this URL"),
        };
        self.looked(told::layer("caches.default", &key, verdict), &key, sight, worker_cache::settings(), now)
    }

    /// What is stored, and what is known beside it.
    fn looked(&self, layer: Layer, key: &CacheKey, sight: Sight, settings: &CacheSettings, now: Time) -> Layer {
        let alone = matches!(&sight.found, Found::Nothing(_, hint) | Found::Stale(_, _, hint) | Found::Incomplete(_, hint) if hint.alone);
        let stored = sight.entry.as_ref().map(|entry| {
            let verdict = self.cache().verdict(key, entry);
            told::stored(entry, &sight, (verdict, self.cache().purges().latest()), settings, now)
        });
        let refusal = self.cache().refusals().last(key.as_bytes()).filter(|_| stored.is_none());
        Layer {
            stored,
            others: sight.others.iter().map(|entry| told::variant(entry)).collect(),
            uncollapsed: alone,
            refusal: refusal.map(|refusal| told::refusal(refusal, now)),
            ..layer
        }
    }

    fn servers(&self) -> UpstreamServers {
        let (servers, _) = self.routes.groups().read();
        let more = servers.len().saturating_sub(EXPLAINED_SERVERS_MAX);
        UpstreamServers { servers: servers.iter().take(EXPLAINED_SERVERS_MAX).map(told::server).collect(), more }
    }
}
