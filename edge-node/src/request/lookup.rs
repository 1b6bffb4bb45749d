//! The cache's part before a fetch: may the request be answered from it, is there something, does somebody fetch it already.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, RANGE};
use http::{Method, Response, StatusCode};
use http_body::Body as HttpBody;
use selvedge_runtime::Body;

use super::RequestPath;
use super::compress::{self, Asked};
use super::error::RequestError;
use super::respond;
use super::route::{Aim, key};
use super::store;
use super::trail::Trail;
use crate::cache::collapse::{Company, Duty};
use crate::cache::control::Control;
use crate::cache::entry::Entry;
use crate::cache::fill::{Head, Reader};
use crate::cache::key::CacheKey;
use crate::cache::policy::{self, RequestFacts};
use crate::cache::status::Forward;
use crate::cache::time::Time;
use crate::cache::{Found, Hint, validate};
use crate::limits::COLLAPSE_ROUNDS_MAX;
use crate::metrics::CacheResult;

/// What a request asks of the cache.
pub(super) struct Question {
    pub(super) key: CacheKey,
    pub(super) control: Control,
    pub(super) facts: RequestFacts,
}

/// What the cache says.
pub(super) enum Lookup {
    /// Here it is; fresh for so many milliseconds more.
    Fresh(Arc<Entry>, u64),
    /// Here it is, stale for so many milliseconds: send it, and refresh it.
    Refreshing(Arc<Entry>, u64),
    /// Fetch it, with others, perhaps by validating what is there.
    Fetch,
    /// Fetch it without the cache.
    Bypass(Forward, &'static str),
}

impl Question {
    /// None where the route has no cache.
    pub(super) fn new(headers: &HeaderMap, aim: &Aim, trail: &Trail) -> Option<Self> {
        if !aim.cached {
            return None;
        }
        let control = Control::of(headers);
        Some(Self { key: key(aim, &trail.context), control, facts: RequestFacts::of(headers, &control) })
    }

    /// Asks.
    pub(super) fn ask(
        &self,
        path: &RequestPath,
        method: &Method,
        headers: &HeaderMap,
        body: &Body,
        now: Time,
    ) -> Result<Lookup, RequestError> {
        if *method != Method::GET && *method != Method::HEAD {
            return Ok(Lookup::Bypass(Forward::Method, "method"));
        }
        // A body may decide about the answer (RFC 9110, section 9.3.1), and the key knows nothing of it.
        if !body.is_end_stream() {
            return Ok(Lookup::Bypass(Forward::Bypass, "body"));
        }
        if validate::has_precondition(headers) {
            return Ok(Lookup::Bypass(Forward::Bypass, "precondition"));
        }
        match path.cache().find(&self.key, headers, now) {
            Found::Fresh(entry, left_ms) => return Ok(Lookup::Fresh(entry, left_ms)),
            Found::Stale(entry, stale_ms, _) if policy::stale_use(&entry.control, stale_ms).while_revalidate => {
                return Ok(Lookup::Refreshing(entry, stale_ms));
            }
            Found::Stale(..) | Found::Nothing(..) => {}
        }
        if self.control.only_if_cached {
            return Err(RequestError::NotStored);
        }
        if self.facts.no_store {
            return Ok(Lookup::Bypass(Forward::Bypass, "no-store"));
        }
        // What is not here in whole is asked for as the client does; only whole responses to GET are stored.
        if *method == Method::HEAD {
            return Ok(Lookup::Bypass(Forward::Bypass, "head"));
        }
        if headers.contains_key(RANGE) {
            return Ok(Lookup::Bypass(Forward::Bypass, "range"));
        }
        Ok(Lookup::Fetch)
    }
}

/// What a fetch with others came to.
pub(super) enum Fetched {
    /// This.
    Response(Response<Body>),
    /// Nothing that is for this request: it fetches for itself.
    Alone(Forward, &'static str),
}

/// Fetches into the cache, or follows whoever does. Both read what arrives as it arrives.
pub(super) async fn fetch(
    path: &Arc<RequestPath>,
    question: &Question,
    headers: &HeaderMap,
    aim: &Aim,
    trail: &Arc<Trail>,
) -> Result<Fetched, RequestError> {
    let company = if question.facts.authorized { Company::Alone } else { Company::Open };
    let wait = Duration::from_millis(aim.route.cache.collapse_wait_ms.into());
    let mut learnt: Option<Hint> = None;
    let mut failure = None;
    let mut why = Forward::UriMiss;
    for _ in 0..COLLAPSE_ROUNDS_MAX {
        let now = path.now();
        let (stale, hint) = match path.cache().find(&question.key, headers, now) {
            Found::Fresh(entry, left_ms) => {
                trail.cached(CacheResult::Hit);
                return Ok(Fetched::Response(respond::from_entry(path, &entry, headers, trail, respond::fresh(left_ms), now)));
            }
            Found::Stale(entry, stale_ms, hint) => {
                why = Forward::Stale;
                (Some((entry, stale_ms)), hint)
            }
            Found::Nothing(reason, hint) => {
                why = reason;
                (None, hint)
            }
        };
        let hint = learnt.take().unwrap_or(hint);
        let (reader, ours) = match path.cache().enter(&question.key, &hint, headers, company, aim.realm()) {
            Duty::Refused(detail) => return Ok(Fetched::Alone(why, detail)),
            Duty::Follow(reader) => (reader, false),
            Duty::Fetch(obligation, reader) => {
                // Whoever fetched until now may have stored it between our look and our turn.
                if matches!(path.cache().find(&question.key, headers, path.now()), Found::Fresh(..)) {
                    continue;
                }
                store::begin(path, obligation, store::Order::new(question, headers, aim, stale), trail.clone());
                (reader, true)
            }
        };
        // The wait is for another's fetch; our own ends by the bounds of whom we ask.
        let head = if ours { Some(reader.head().await) } else { tokio::time::timeout(wait, reader.head()).await.ok() };
        let Some(head) = head else { return Ok(Fetched::Alone(why, "collapse-wait")) };
        match settle(path, question, (head, reader, ours), why, Asked { aim, headers, trail }).await {
            Settled::Response(response) => return Ok(Fetched::Response(response)),
            Settled::Alone(detail) => return Ok(Fetched::Alone(why, detail)),
            Settled::Failed(error) if ours => return Err(error),
            Settled::Failed(error) => failure = Some(error),
            Settled::Again(hint) => learnt = hint,
        }
    }
    failure.map_or(Ok(Fetched::Alone(why, "rounds")), Err)
}

enum Settled {
    Response(Response<Body>),
    Alone(&'static str),
    Failed(RequestError),
    Again(Option<Hint>),
}

/// What the head of a fill means for one of its readers.
async fn settle(
    path: &Arc<RequestPath>,
    question: &Question,
    (head, reader, ours): (Head, Reader, bool),
    why: Forward,
    asked: Asked<'_>,
) -> Settled {
    let Asked { headers, trail, .. } = asked;
    let fetched = if ours { CacheResult::Miss } else { CacheResult::Collapsed };
    let other_variant = |names: Option<&Arc<[http::HeaderName]>>| Settled::Again(Some(Hint { names: names.cloned(), alone: false }));
    match head {
        Head::Streaming(stream) if stream.variant.matches(headers) => {
            trail.cached(fetched);
            let status = path.name().forward(why, Some(stream.head.status), true, !ours, None);
            Settled::Response(compress::streaming(path, question, asked, &stream, reader, status).await)
        }
        Head::Streaming(stream) => other_variant(stream.variant.names()),
        Head::Confirmed(entry) | Head::Stale(entry) if !entry.variant.matches(headers) => other_variant(entry.variant.names()),
        Head::Confirmed(entry) => {
            trail.cached(if ours { CacheResult::Revalidated } else { CacheResult::Collapsed });
            let status = path.name().forward(Forward::Stale, Some(StatusCode::NOT_MODIFIED), true, !ours, None);
            Settled::Response(compress::stored(path, question, asked, &entry, respond::Say::As(status), path.now()).await)
        }
        Head::Stale(entry) => {
            trail.cached(CacheResult::Stale);
            let now = path.now();
            let ttl = respond::ttl_seconds(&entry, now);
            Settled::Response(compress::stored(path, question, asked, &entry, respond::Say::Hit(ttl), now).await)
        }
        Head::Private(refusal) => match reader.take_private() {
            Some(response) => {
                trail.cached(CacheResult::Miss);
                let status = path.name().forward(why, Some(response.status()), false, false, Some(refusal.name()));
                Settled::Response(compress::private(path, asked, respond::private(response, headers, status)))
            }
            None => Settled::Alone(refusal.name()),
        },
        Head::Failed(error) => Settled::Failed((*error).clone()),
        Head::Abandoned if ours => Settled::Alone("abandoned"),
        Head::Abandoned => Settled::Again(None),
    }
}
