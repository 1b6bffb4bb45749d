//! Tiers between nodes: what this node has to fetch it asks the key's shield for, the one node of the region that all agree on, and that one asks the upstream. One hop:
//! a shield never asks another.
//!
//! A shield answers only what the asker would get itself. The request says up to which entry of the registry's log purges hold at the asker, and by which route it
//! would ask; a shield that is behind, or whose route differs, says so and does nothing. So a purge that a node has acknowledged is never undone by a shield that has yet
//! to hear of it; nor does what was purged softly come from it as if it were fresh. Whatever else goes wrong with a shield, the asker goes to the upstream itself.

use std::sync::Arc;

use http::header::{EXPECT, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as HttpBody;
use selvedge_origin::feed::Position;
use selvedge_origin::registry::Epoch;
use selvedge_runtime::Body;

use super::RequestPath;
use super::context::Context;
use super::error::RequestError;
use super::lookup::{self, Fetched, Question};
use super::route::{self, Aim, Answerer};
use super::trail::{Origin, Trail};
use super::{fetch, fields};
use crate::cache::control::Control;
use crate::cache::key::{CacheKey, Space};
use crate::cache::{freshness, policy, query};
use crate::limits::{PEER_HEAD_TIMEOUT, PEER_INVALIDATION_WAIT};
use crate::listen::{Connection, Interim, Refusal, Reply};
use crate::metrics::Source;

/// Between nodes only: in a request, what the asker stands at; in a response, why there is no answer.
pub(super) const SELVEDGE_PEER: HeaderName = HeaderName::from_static("selvedge-peer");

/// What the asker stands at: `EPOCH SEQ ROUTE`.
struct Standing {
    epoch: Epoch,
    seq: u64,
    /// See [`crate::routes::Route::fingerprint`].
    route: u64,
}

impl Standing {
    fn value(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&format!("{} {} {:016x}", self.epoch, self.seq, self.route)).ok()
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let mut parts = value.to_str().ok()?.split(' ');
        let (epoch, seq, route) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || route.len() != 16 {
            return None;
        }
        Some(Self { epoch: epoch.parse().ok()?, seq: seq.parse().ok()?, route: u64::from_str_radix(route, 16).ok()? })
    }

    /// Why a node at `here`, whose route has this fingerprint, cannot answer for the asker.
    fn objection(&self, here: Option<&Position>, route: u64) -> Option<&'static str> {
        let applied = here.is_some_and(|here| here.epoch == self.epoch && here.seq >= self.seq);
        match (applied, route == self.route) {
            (false, _) => Some("behind"),
            (true, false) => Some("route"),
            (true, true) => None,
        }
    }
}

/// The answer of the key's shield to the GET with these fields that this node would send to the upstream. None: the upstream is to be asked.
pub(super) async fn ask(path: &RequestPath, request: &HeaderMap, aim: &Aim, trail: &Trail) -> Option<Response<Body>> {
    let Answerer::Upstream(upstream) = &aim.answerer else { return None };
    let eligible = aim.route.cache.shield && aim.wish.is_none() && !trail.is_peers();
    if !eligible {
        return None;
    }
    // All slices of a whole have one shield: the one that forgets it.
    let whole = route::whole_key(aim, &trail.context);
    let peer = path.peers().shield(whole.as_bytes())?;
    let here = path.peers().asks_at()?;
    let standing = Standing { epoch: here.epoch.clone(), seq: here.seq, route: aim.route.fingerprint };
    let mut asked = outgoing(path, request, trail, trail.context.asked(), &standing)?;
    fetch::hear_interim(&mut asked, trail);
    let answer = path.peers().ask(&peer, asked, PEER_HEAD_TIMEOUT + upstream.patience()).await;
    let metrics = &path.sinks.metrics;
    match answer {
        Ok(mut response) if !response.headers().contains_key(SELVEDGE_PEER) => {
            metrics.shield_answers.add(1);
            trail.served_from(Source::Shield);
            fields::clean(response.headers_mut());
            return Some(response);
        }
        Ok(response) => tracing::debug!(peer = %peer.name(), why = ?response.headers().get(SELVEDGE_PEER), "the shield does not answer"),
        Err(error) => tracing::warn!(peer = %peer.name(), %error, "the shield gives no answer: asking the upstream"),
    }
    metrics.shield_refusals.add(1);
    None
}

/// Has the shields forget what an unsafe method made invalid here, before its answer goes out: whoever asks this node next would get it back from them. Gives up after
/// [`PEER_INVALIDATION_WAIT`].
pub(super) async fn invalidate(path: &RequestPath, aim: &Aim, targets: &[String], trail: &Trail) {
    if !aim.route.cache.shield || aim.route.upstream.is_none() {
        return;
    }
    let asks = targets.iter().filter_map(|target| {
        let target: PathAndQuery = target.parse().ok()?;
        let named = query::name(&aim.route.cache.query, target.as_str());
        let key = CacheKey::new(Space::Upstream, trail.context.scheme(), &trail.context.authority, &named);
        let (peer, here) = (path.peers().shield(key.as_bytes())?, path.peers().asks_at()?);
        let standing = Standing { epoch: here.epoch.clone(), seq: here.seq, route: aim.route.fingerprint };
        let mut asked = outgoing(path, &HeaderMap::new(), trail, &target, &standing)?;
        *asked.method_mut() = Method::DELETE;
        Some(async move {
            match tokio::time::timeout(PEER_INVALIDATION_WAIT, path.peers().ask(&peer, asked, PEER_INVALIDATION_WAIT)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(peer = %peer.name(), %error, "the shield may still have what was made invalid"),
                Err(_) => tracing::warn!(peer = %peer.name(), "the shield is late: it may still have what was made invalid"),
            }
        })
    });
    futures::future::join_all(asks).await;
}

fn outgoing(path: &RequestPath, request: &HeaderMap, trail: &Trail, target: &PathAndQuery, standing: &Standing) -> Option<Request<()>> {
    let context = &trail.context;
    let mut asked = Request::new(());
    // It goes over TLS; how the client asked is in its field.
    let address = Uri::builder().scheme("https").authority(context.authority.as_ref()).path_and_query(target.clone());
    *asked.uri_mut() = address.build().ok()?;
    let headers = asked.headers_mut();
    *headers = request.clone();
    fields::identify(headers, context);
    fields::mark_passage(headers, context, path.via());
    // The address says it.
    headers.remove(HOST);
    headers.remove(EXPECT);
    headers.insert(SELVEDGE_PEER, standing.value()?);
    Some(asked)
}

impl RequestPath {
    /// Answers another node, for which this one is the shield: from the cache, or from the route's upstream through it. Never fails; what is no answer for the asker
    /// says so in `Selvedge-Peer`.
    pub async fn serve_peer(self: &Arc<Self>, request: Request<Body>, connection: &Arc<Connection>, interim: Interim) -> Response<Body> {
        let context = Context::of_peer(&request, connection);
        let trail = Trail::new(context, Origin::Peer, self.sinks.clone(), interim);
        let reply = match self.answer_peer(request, connection, &trail).await {
            Ok(reply) => reply,
            Err(error) => super::respond::error(&error, &trail, self).into(),
        };
        trail.answered(reply).into_response()
    }

    /// What the listener for peers sends for what is no request.
    pub fn refuse_peer(&self, refusal: Refusal) -> Response<Body> {
        let mut response = self.refuse(refusal);
        response.headers_mut().insert(SELVEDGE_PEER, HeaderValue::from_static("malformed"));
        response
    }

    async fn answer_peer(
        self: &Arc<Self>,
        mut request: Request<Body>,
        connection: &Connection,
        trail: &Arc<Trail>,
    ) -> Result<Reply, RequestError> {
        let key = connection.tls.as_ref().and_then(|tls| tls.node);
        // It may have been removed since it connected.
        if key.and_then(|key| self.peers().named(&key)).is_none() {
            return Err(RequestError::NotForPeers("unknown"));
        }
        trail.context.check()?;
        let standing = request.headers_mut().remove(SELVEDGE_PEER).as_ref().and_then(Standing::parse);
        let standing = standing.ok_or(RequestError::NotForPeers("malformed"))?;
        let route = route::find(&trail.context, &self.routes.load())?;
        if *request.method() == Method::DELETE {
            // Between nodes it means: forget.
            if let Some(aim) = route::upstream(&route) {
                self.cache().invalidate(&route::key(&aim, &trail.context));
            }
            return Ok(Response::new(Body::empty()).into());
        }
        if *request.method() != Method::GET || !request.body().is_end_stream() {
            return Err(RequestError::NotForPeers("method"));
        }
        if let Some(objection) = standing.objection(self.peers().answers_at().as_deref(), route.fingerprint) {
            return Err(RequestError::NotForPeers(objection));
        }
        let aim = route::upstream(&route).filter(|aim| aim.cached && route.cache.shield).ok_or(RequestError::NotForPeers("route"))?;
        trail.routed(&aim.route);
        let headers = request.headers().clone();
        let reply = self.fulfil(request, &aim, trail).await?;
        match &reply {
            Reply::Made(response) if self.passes_for_fresh(response, &aim, trail) => {}
            _ => return Ok(reply),
        }
        drop(reply);
        // It is being fetched anew, and that is what the asker waits for.
        let question = Question::new(&headers, &aim, &trail.context).ok_or(RequestError::NotForPeers("stale"))?;
        match Box::pin(lookup::fetch(self, &question, &headers, &aim, trail)).await? {
            Fetched::Response(response) if !self.passes_for_fresh(&response, &aim, trail) => Ok(response.into()),
            _ => Err(RequestError::NotForPeers("stale")),
        }
    }

    /// Whether an answer is stale here, but not to who reads its fields: it was purged softly, and the asker would store it as fresh again.
    fn passes_for_fresh(&self, response: &Response<Body>, aim: &Aim, trail: &Trail) -> bool {
        let (headers, now) = (response.headers(), self.now());
        let status = if response.status() == StatusCode::NOT_MODIFIED { StatusCode::OK } else { response.status() };
        let freshness = policy::freshness(status, headers, &Control::of_response(headers), &aim.route.cache, now, now);
        trail.is_stale() && freshness.is_some_and(|freshness| matches!(freshness.standing(now), freshness::Standing::Fresh(_)))
    }
}

/// For tests/fuzz: any bytes as what an asker says of itself; what is understood survives its text.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let Some(standing) = Standing::parse(&value) else { return };
    let again = standing.value().as_ref().and_then(Standing::parse);
    assert!(again.is_some_and(|again| (again.epoch, again.seq, again.route) == (standing.epoch, standing.seq, standing.route)));
}

#[cfg(test)]
mod tests {
    use selvedge_origin::registry::Digest;

    use super::*;

    #[test]
    fn only_a_node_that_is_as_far_and_has_the_same_route_answers() {
        let epoch = Epoch::generate();
        let at = |seq| Position { epoch: epoch.clone(), seq, chain: Digest::zero() };
        let asker = Standing { epoch: epoch.clone(), seq: 7, route: 1 };
        assert_eq!(asker.objection(Some(&at(7)), 1), None);
        assert_eq!(asker.objection(Some(&at(8)), 1), None);
        assert_eq!(asker.objection(Some(&at(6)), 1), Some("behind"));
        assert_eq!(asker.objection(None, 1), Some("behind"));
        assert_eq!(asker.objection(Some(&Position { epoch: Epoch::generate(), ..at(9) }), 1), Some("behind"));
        assert_eq!(asker.objection(Some(&at(7)), 2), Some("route"));
    }

    #[test]
    fn what_an_asker_says_survives_its_text_and_nothing_else_is_understood() {
        let standing = Standing { epoch: Epoch::generate(), seq: u64::MAX, route: 0xabc };
        fuzz(standing.value().expect("a value").as_bytes());
        for bad in ["", "x 1 0000000000000abc", &format!("{} -1 0000000000000abc", standing.epoch), &format!("{} 1 abc", standing.epoch)] {
            assert!(Standing::parse(&HeaderValue::from_str(bad).expect("a value")).is_none(), "{bad}");
        }
    }
}
