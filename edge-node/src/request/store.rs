//! The cache's part after a fetch: a task that belongs to no client asks the target, decides what may be stored, and feeds those who follow.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_LOCATION, HeaderMap, LOCATION};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, response};
use http_body::Body as HttpBody;
use selvedge_runtime::{Body, BodyError};

use super::RequestPath;
use super::compress;
use super::context::Context;
use super::error::RequestError;
use super::lookup::Question;
use super::route::Aim;
use super::trail::Trail;
use crate::cache::collapse::{Company, Duty, Obligation};
use crate::cache::entry::{Entry, StoredBody};
use crate::cache::fill::{Head, StreamHead};
use crate::cache::freshness::Freshness;
use crate::cache::key::{CacheKey, Space};
use crate::cache::policy::{self, Refusal, RequestFacts, Storable};
use crate::cache::time::Time;
use crate::cache::vary::{Variant, Vary};
use crate::cache::{Filling, Hint, validate};
use crate::limits::FILL_IDLE_TIMEOUT;

/// What a fill needs.
pub(super) struct Order {
    facts: RequestFacts,
    /// The fields of the request that it answers, for what the response varies on.
    headers: HeaderMap,
    aim: Aim,
    /// What is stored, and for how many milliseconds it has been stale.
    stale: Option<(Arc<Entry>, u64)>,
}

impl Order {
    pub(super) fn new(question: &Question, headers: &HeaderMap, aim: &Aim, stale: Option<(Arc<Entry>, u64)>) -> Self {
        Self { facts: question.facts, headers: headers.clone(), aim: aim.clone(), stale }
    }
}

/// Starts a fill. It is a task of its own: no client's going away ends it.
pub(super) fn begin(path: &Arc<RequestPath>, obligation: Obligation, order: Order, trail: Arc<Trail>) {
    let task = fill(path.clone(), obligation, order, trail);
    path.tasks().spawn(task);
}

/// Refreshes a stale entry in the background, unless somebody does already.
pub(super) fn refresh(
    path: &Arc<RequestPath>,
    question: &Question,
    headers: &HeaderMap,
    aim: &Aim,
    stale: (Arc<Entry>, u64),
    trail: &Trail,
) {
    let hint = Hint { names: stale.0.variant.names().cloned(), alone: false };
    if let Duty::Fetch(obligation, reader) = path.cache().enter(&question.key, &hint, headers, Company::Open, aim.realm()) {
        drop(reader);
        begin(path, obligation, Order::new(question, headers, aim, Some(stale)), trail.refresh());
    }
}

async fn fill(path: Arc<RequestPath>, obligation: Obligation, order: Order, trail: Arc<Trail>) {
    let requested = path.now();
    let stored = order.stale.as_ref().map(|(entry, _)| entry.as_ref());
    let mut answer = ask(&path, &order, stored, &trail).await;
    // A 304 that speaks of another response than ours: ask again for all of it (RFC 9111, section 4.3.4).
    let misses = |response: &Response<Body>| stored.is_some_and(|stored| !validate::confirms(response.headers(), stored.fields()));
    if matches!(&answer, Ok(response) if response.status() == StatusCode::NOT_MODIFIED && misses(response)) {
        answer = ask(&path, &order, None, &trail).await;
    }
    let received = path.now();
    let stale = order.stale.as_ref().map(|(entry, stale_ms)| (entry, policy::stale_use(&entry.control, *stale_ms)));
    match (answer, stale) {
        (Err(error), Some((entry, stale))) if stale.if_unreachable && is_unreachable(&error) => obligation.tell(Head::Stale(entry.clone())),
        (Err(error), _) => obligation.tell(Head::Failed(Arc::new(error))),
        (Ok(response), Some((entry, stale))) if stale.if_error && policy::is_upstream_error(response.status()) => {
            drop(response);
            obligation.tell(Head::Stale(entry.clone()));
        }
        (Ok(response), Some((entry, _))) if response.status() == StatusCode::NOT_MODIFIED => {
            confirm(&path, &obligation, &order.aim, entry, response.headers(), (requested, received));
        }
        (Ok(response), _) => {
            let verdict =
                policy::may_store(order.facts, response.status(), response.headers(), &order.aim.route.cache, requested, received);
            match verdict {
                Ok(storable) => stream(&path, obligation, &order, response, storable).await,
                Err(refusal) => decline(&path, obligation, response, refusal, received),
            }
        }
    }
}

/// Asks the target, on condition that it has changed where something is stored.
async fn ask(path: &Arc<RequestPath>, order: &Order, stored: Option<&Entry>, trail: &Arc<Trail>) -> Result<Response<Body>, RequestError> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.headers_mut() = order.headers.clone();
    validate::ask(request.headers_mut(), stored.map(Entry::fields));
    *request.uri_mut() = Uri::from(trail.context.target.clone());
    path.forward(request, &order.aim, trail).await
}

/// Whether the error is of an upstream that is away, rather than of this node or the client.
fn is_unreachable(error: &RequestError) -> bool {
    use crate::upstream::UpstreamError as E;
    matches!(
        error,
        RequestError::Upstream(
            E::Dns { .. } | E::Connect { .. } | E::ConnectTimeout { .. } | E::Tls { .. } | E::HeadTimeout { .. } | E::Protocol { .. }
        )
    )
}

/// A `304`: the stored bytes with its fields, from now on.
fn confirm(
    path: &RequestPath,
    obligation: &Obligation,
    aim: &Aim,
    entry: &Entry,
    not_modified: &HeaderMap,
    (requested, received): (Time, Time),
) {
    use crate::cache::control::Control;
    let mut fields = entry.fields().clone();
    validate::freshen(&mut fields, not_modified);
    // The stored Age was for the response before; this one's is in the 304 or is nothing.
    fields.remove(http::header::AGE);
    if let Some(age) = not_modified.get(http::header::AGE) {
        fields.insert(http::header::AGE, age.clone());
    }
    compress::prepare(aim, entry.status, &mut fields, Some(entry.body.len()));
    let control = Control::of_response(&fields);
    let freshness =
        Freshness::of(&fields, &control, requested, received).unwrap_or(Freshness { lifetime_ms: 0, initial_age_ms: 0, received });
    let confirmed = Arc::new(entry.freshened(fields, control, freshness, obligation.stamp()));
    // What the 304 says now may forbid to keep it.
    if !(obligation.is_discarded() || control.no_store || control.private) {
        path.cache().store(obligation.key(), confirmed.clone());
    }
    obligation.tell(Head::Confirmed(confirmed));
}

/// Not for the cache: to whoever ordered it. Others that wait already show that it is asked for often: the next ones shall not wait.
fn decline(path: &RequestPath, obligation: Obligation, response: Response<Body>, refusal: Refusal, now: Time) {
    if obligation.has_company() && refusal.lasts() {
        path.cache().mark_uncollapsed(obligation.key(), now);
    }
    obligation.give(response, refusal);
}

/// Feeds the readers while the body arrives, and stores it when it is whole.
async fn stream(path: &RequestPath, obligation: Obligation, order: &Order, response: Response<Body>, storable: Storable) {
    let (mut head, body) = response.into_parts();
    let variant = match &storable.vary {
        Vary::On(names) => Variant::new(names, &order.headers),
        Vary::Nothing | Vary::Anything => Variant::default(),
    };
    let length = stated_length(&head.headers).or_else(|| body.size_hint().exact());
    compress::prepare(&order.aim, head.status, &mut head.headers, length);
    let stream = Arc::new(StreamHead { head: head.clone(), variant: variant.clone(), length });
    let bytes_max = order.aim.route.cache.entry_bytes_max;
    let mut filling = path.cache().filling();
    // A body that is here already is stored before anyone is told, so that its readers get it whole.
    if let Some(whole) = body.as_whole() {
        if length.is_some_and(|length| length != whole.len() as u64) {
            obligation.tell(Head::Streaming(stream));
            obligation.end(Err(wrong_length()));
            return;
        }
        if whole.len() as u64 > bytes_max {
            return decline(path, obligation, Response::from_parts(head, body), Refusal::TooLarge, storable.freshness.received);
        }
        obligation.push(Bytes::copy_from_slice(&whole));
        keep(path, &obligation, head, variant, storable);
        obligation.finish(Head::Streaming(stream));
        return;
    }
    obligation.tell(Head::Streaming(stream));
    let (read, stored) = pump(&obligation, body, &mut filling, bytes_max).await;
    let end = match read {
        Ok(read) if length.is_some_and(|length| length != read) => Err(wrong_length()),
        Ok(_) => {
            if stored {
                keep(path, &obligation, head, variant, storable);
            }
            Ok(())
        }
        Err(error) => Err(error),
    };
    obligation.end(end);
}

/// Moves the body to the readers. Gives its length, and whether all of it is held to be stored.
pub(super) async fn pump(obligation: &Obligation, mut body: Body, filling: &mut Filling, bytes_max: u64) -> (Result<u64, BodyError>, bool) {
    let mut read = 0;
    let mut storing = true;
    loop {
        if !storing && !obligation.room().await {
            return (Err(BodyError::Aborted("nobody reads any more".into())), false);
        }
        let frame = tokio::time::timeout(FILL_IDLE_TIMEOUT, std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).await;
        let data = match frame {
            Err(_) => return (Err(BodyError::Stalled { ms: FILL_IDLE_TIMEOUT.as_millis() as u64 }), false),
            Ok(None) => return (Ok(read), storing),
            Ok(Some(Err(error))) => return (Err(error), false),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => data,
                // Trailers are of this transfer, not of the response (RFC 9110, section 6.5.1: they may be dropped).
                Err(_) => continue,
            },
        };
        read += data.len() as u64;
        // A copy, so that what is kept does not pin the connection's larger buffer.
        let held = obligation.push(Bytes::copy_from_slice(&data));
        if storing && (!filling.hold(held) || held > bytes_max || obligation.is_discarded()) {
            storing = false;
            filling.hold(0);
            obligation.pace();
        }
    }
}

fn wrong_length() -> BodyError {
    BodyError::Aborted("the body is not as long as it said".into())
}

fn keep(path: &RequestPath, obligation: &Obligation, head: response::Parts, variant: Variant, storable: Storable) {
    if !obligation.is_discarded() {
        let body = StoredBody::new(&obligation.all_chunks());
        let entry = Arc::new(Entry::new(head, body, storable.control, storable.freshness, variant, obligation.stamp()));
        path.cache().store(obligation.key(), entry.clone());
        obligation.became(entry);
    }
}

fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// After an answer that did not come through a fill: an unsafe method makes what is stored for its URI, and for the `Location` and `Content-Location` of the same
/// authority, invalid (RFC 9111, section 4.4).
pub(super) fn invalidate(path: &RequestPath, aim: &Aim, context: &Context, response: &Response<Body>) {
    if !policy::invalidates(&context.method, response.status()) {
        return;
    }
    let mut targets = vec![context.target.as_str().to_owned()];
    let named = |name| response.headers().get(name).and_then(|value: &HeaderValue| same_authority(value, context));
    targets.extend([LOCATION, CONTENT_LOCATION].into_iter().filter_map(named));
    for target in targets {
        path.cache().invalidate(&CacheKey::new(Space::Upstream, context.scheme(), &context.authority, &target));
        if let super::route::Answerer::Worker(worker, _) = &aim.answerer {
            for version in worker.versions() {
                let space = Space::Worker(&version.source.version);
                path.cache().invalidate(&CacheKey::new(space, context.scheme(), &context.authority, &target));
            }
        }
    }
}

/// Path and query of a reference to the same scheme and authority; none of others, and none of relative paths (nobody sends them, and a wrong guess would only
/// keep something).
fn same_authority(reference: &HeaderValue, context: &Context) -> Option<String> {
    let uri: Uri = reference.to_str().ok()?.parse().ok()?;
    let target = uri.path_and_query()?.as_str();
    let same = match uri.authority() {
        None => target.starts_with('/'),
        Some(authority) => {
            uri.scheme_str() == Some(context.scheme())
                && super::context::normalise(authority.as_str(), context.secure).ok()? == context.authority
        }
    };
    same.then(|| target.to_owned())
}
