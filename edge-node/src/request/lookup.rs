//! The cache's part before a fetch: may the request be answered from it, is there something, does somebody fetch it already.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{HeaderMap, HeaderValue, IF_RANGE, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use selvedge_origin::registry::{CacheSettings, RequestDirectives};
use selvedge_runtime::Body;

use super::RequestPath;
use super::compress::{self, Asked};
use super::context::Context;
use super::error::RequestError;
use super::respond;
use super::route::{Aim, key};
use super::store;
use super::trail::Trail;
use crate::cache::collapse::{Company, Duty};
use crate::cache::control::Control;
use crate::cache::entry::Entry;
use crate::cache::fill::{Head, Reader};
use crate::cache::keeping::Keeping;
use crate::cache::key::CacheKey;
use crate::cache::policy::{self, RequestFacts};
use crate::cache::status::{Detail, Forward};
use crate::cache::time::Time;
use crate::cache::vary::Variant;
use crate::cache::{Found, Hint, query, range, validate, vary};
use crate::chance::draw;
use crate::limits::COLLAPSE_ROUNDS_MAX;
use crate::metrics::{CacheResult, Source};

/// What a request asks of the cache.
pub(super) struct Question {
    pub(super) key: CacheKey,
    pub(super) control: Control,
    pub(super) facts: RequestFacts,
    max_disconnected_s: u32,
    /// What the disk had, once it was asked.
    recalled: Option<Option<Arc<Entry>>>,
}

/// What the cache says.
pub(super) enum Lookup {
    /// Here it is; fresh for so many milliseconds more.
    Fresh(Arc<Entry>, u64),
    /// Here it is: send it, and refresh it, because of this.
    Refreshing(Arc<Entry>, u64, Detail),
    /// Here it is, stale, for a client that takes it.
    Stale(Arc<Entry>),
    /// Memory has nothing, and the disk may have it: [`Question::recall`] it, and ask again.
    Recall,
    /// Fetch it, with others, perhaps by validating what is there.
    Fetch,
    /// Fetch it without the cache.
    Bypass(Forward, Detail),
}

/// What a fetch is to bring.
#[derive(Debug, Clone)]
pub(super) enum Scope {
    /// All of it.
    Whole,
    /// The range that the client asks for; perhaps it joins the part that is stored.
    Range(Option<Arc<Entry>>),
    /// What this stored part lacks.
    Rest(Arc<Entry>),
}

impl Question {
    /// None where the route has no cache.
    pub(super) fn new(headers: &HeaderMap, aim: &Aim, context: &Context) -> Option<Self> {
        if !aim.cached {
            return None;
        }
        let control = Control::of(headers);
        let facts = RequestFacts::of(headers, &control, aim.route.cache.request_directives);
        let max_disconnected_s = aim.route.cache.max_disconnected_s;
        Some(Self { key: key(aim, context), control, facts, max_disconnected_s, recalled: None })
    }

    /// Asks the disk.
    pub(super) async fn recall(&mut self, path: &RequestPath, headers: &HeaderMap, aim: &Aim, trail: &Trail) {
        let recalled = path.cache().recall(&self.key, headers, Some(&aim.route.counters)).await;
        if recalled.is_some() {
            trail.recalled();
        }
        self.recalled = Some(recalled);
    }

    /// What is stored: in memory, or on disk once it was asked.
    pub(super) fn find(&self, path: &RequestPath, headers: &HeaderMap, now: Time) -> Found {
        let cache = path.cache();
        let found = match (cache.find(&self.key, headers, now), &self.recalled) {
            (Found::Nothing(why, hint), Some(Some(entry))) if entry.variant.matches(headers) => {
                cache.recalled(entry, &self.key, headers, now).unwrap_or(Found::Nothing(why, hint))
            }
            (found, _) => found,
        };
        self.trusted(path, found)
    }

    /// What is found, as far as it is trusted while the registry is not heard.
    pub(super) fn trusted(&self, path: &RequestPath, found: Found) -> Found {
        trusted(path, self.max_disconnected_s, found)
    }

    /// Asks.
    pub(super) fn ask(&self, path: &RequestPath, request: &Request<Body>, aim: &Aim, now: Time) -> Result<Lookup, RequestError> {
        match past(request) {
            Some(Lookup::Bypass(Forward::Bypass, _)) if self.only_if_cached(&aim.route.cache) => return Err(RequestError::NotStored),
            Some(past) => return Ok(past),
            None => {}
        }
        let found = self.find(path, request.headers(), now);
        if matches!(found, Found::Nothing(..)) && self.recalled.is_none() && path.cache().may_recall(&self.key) {
            return Ok(Lookup::Recall);
        }
        self.decide(&found, request, &aim.route.cache, now)
    }

    /// What comes of what is stored.
    pub(super) fn decide(
        &self,
        found: &Found,
        request: &Request<Body>,
        settings: &CacheSettings,
        now: Time,
    ) -> Result<Lookup, RequestError> {
        let (method, headers) = (request.method(), request.headers());
        let conditional = validate::has_precondition(headers);
        if let Found::Fresh(entry, _) | Found::Stale(entry, ..) = found {
            let fits = entry.part().is_none() || (*method == Method::GET && validate::range_applies(headers, entry.fields()));
            let usable = fits && (!conditional || validate::fulfils(headers, entry.fields()));
            if usable && let Some(lookup) = self.use_stored(found, headers, settings, now) {
                return Ok(lookup);
            }
        }
        if self.only_if_cached(settings) {
            return Err(RequestError::NotStored);
        }
        if conditional {
            return Ok(Lookup::Bypass(Forward::Bypass, Detail::Precondition));
        }
        if self.facts.no_store {
            return Ok(Lookup::Bypass(Forward::Bypass, Detail::RequestNoStore));
        }
        // What is not here in whole is asked for as the client does; only responses to GET are stored.
        if *method == Method::HEAD {
            return Ok(Lookup::Bypass(Forward::Bypass, Detail::Head));
        }
        let whole_is_stored = matches!(found, Found::Fresh(entry, _) | Found::Stale(entry, ..) if entry.part().is_none());
        let in_slices = settings.slice_bytes > 0 && headers.get(RANGE).is_some_and(range::is_single);
        if headers.contains_key(RANGE) && !whole_is_stored && single_range(headers).is_none() && !in_slices {
            return Ok(Lookup::Bypass(Forward::Bypass, Detail::RequestRange));
        }
        Ok(Lookup::Fetch)
    }

    /// Whether it wants no answer that would have to be fetched, and the route follows it.
    fn only_if_cached(&self, settings: &CacheSettings) -> bool {
        self.control.only_if_cached && settings.request_directives != RequestDirectives::None
    }

    /// Whether what is stored is used as it is.
    fn use_stored(&self, found: &Found, headers: &HeaderMap, settings: &CacheSettings, now: Time) -> Option<Lookup> {
        match found {
            Found::Fresh(entry, left_ms) if self.is_met(entry, *left_ms, headers, settings, now) => {
                let percent = settings.early_refresh_percent;
                if percent > 0 && entry.freshness.refreshes_early(*left_ms, percent, draw()) {
                    return Some(Lookup::Refreshing(entry.clone(), 0, Detail::EarlyRefresh));
                }
                Some(Lookup::Fresh(entry.clone(), *left_ms))
            }
            Found::Stale(entry, stale_ms, _) => {
                let allowed = policy::stale_use(&entry.control, *stale_ms, settings.stale_if_error_s);
                if allowed.while_revalidate && self.is_met(entry, 0, headers, settings, now) {
                    return Some(Lookup::Refreshing(entry.clone(), *stale_ms, Detail::WhileRevalidate));
                }
                let taken = allowed.if_asked && policy::takes_stale(&self.control, settings.request_directives, *stale_ms);
                taken.then(|| Lookup::Stale(entry.clone()))
            }
            _ => None,
        }
    }

    /// Whether a stored response is what the request wants, as far as the route follows it.
    fn is_met(&self, entry: &Entry, left_ms: u64, headers: &HeaderMap, settings: &CacheSettings, now: Time) -> bool {
        policy::meets(&self.control, headers, settings.request_directives, entry.freshness.age_ms(now), left_ms)
    }

    /// What there is to begin a fetch with: what is stored and for how long it has been stale, what is to be fetched, and why. Or what needs no fetch.
    pub(super) fn begin(
        &self,
        found: Found,
        headers: &HeaderMap,
        settings: &CacheSettings,
        now: Time,
    ) -> Result<Beginning, (Arc<Entry>, u64)> {
        let range = single_range(headers);
        let of_part = |entry: &Arc<Entry>| if entry.part().is_some() { Scope::Range(None) } else { Scope::Whole };
        let from_nothing = || if range.is_some() { Scope::Range(None) } else { Scope::Whole };
        let (why, stale, scope, mut hint) = match found {
            Found::Fresh(entry, left_ms) if self.is_met(&entry, left_ms, headers, settings, now) => return Err((entry, left_ms)),
            Found::Fresh(entry, _) => (Forward::Request, Some((entry.clone(), 0)), of_part(&entry), Hint::of(&entry.variant)),
            Found::Stale(entry, stale_ms, hint) => (Forward::Stale, Some((entry.clone(), stale_ms)), of_part(&entry), hint),
            Found::Incomplete(entry, hint) if range.is_some() => (Forward::Partial, None, Scope::Range(Some(entry)), hint),
            Found::Incomplete(entry, hint) => {
                let rest = entry.part().and_then(|part| part.missing(entry.body.len())).is_some();
                (Forward::Partial, None, if rest { Scope::Rest(entry) } else { Scope::Whole }, hint)
            }
            Found::Nothing(why, hint) => (why, None, from_nothing(), hint),
        };
        hint.range = if matches!(scope, Scope::Range(_)) { range.cloned() } else { None };
        Ok(Beginning { why, stale, scope, hint })
    }
}

/// What is found, as far as it is trusted for so many seconds without the registry's word; 0: for ever.
pub(super) fn trusted(path: &RequestPath, max_disconnected_s: u32, found: Found) -> Found {
    let longest = Duration::from_secs(max_disconnected_s.into());
    if max_disconnected_s > 0 && path.contact().is_lost_for(longest, Instant::now()) { found.distrusted() } else { found }
}

/// Leaves out of a request what the route's settings say has no part in its answer: of the query, and of the fields that responses vary on. Whoever answers sees what
/// remains, and only that: what is not in the key must not decide what everybody gets.
pub(super) fn narrow(request: &mut Request<Body>, aim: &Aim, context: &Context) {
    let settings = &aim.route.cache;
    if (*request.method() != Method::GET && *request.method() != Method::HEAD) || !request.body().is_end_stream() {
        return;
    }
    vary::normalise(request.headers_mut(), &settings.vary);
    if let Some(target) = query::narrowed(&settings.query, &context.target) {
        context.narrow(target);
    }
}

/// A request that goes past the cache whatever is stored.
pub(super) fn past(request: &Request<Body>) -> Option<Lookup> {
    if *request.method() != Method::GET && *request.method() != Method::HEAD {
        return Some(Lookup::Bypass(Forward::Method, Detail::Method));
    }
    // A body may decide about the answer (RFC 9110, section 9.3.1), and the key knows nothing of it.
    (!request.body().is_end_stream()).then_some(Lookup::Bypass(Forward::Bypass, Detail::Body))
}

/// What a fetch begins with.
pub(super) struct Beginning {
    pub(super) why: Forward,
    pub(super) stale: Option<(Arc<Entry>, u64)>,
    scope: Scope,
    hint: Hint,
}

/// The one range that a request asks for on no condition: it is fetched as it is. (What `If-Range` names is the client's, so the answer may lack what we need to store.)
fn single_range(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(RANGE).filter(|range| range::is_single(range) && !headers.contains_key(IF_RANGE))
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
    let asked = Asked { aim, headers, trail };
    let company = if question.facts.authorized { Company::Alone } else { Company::Open };
    let wait = Duration::from_millis(aim.route.cache.collapse_wait_ms.into());
    let mut learnt: Option<Hint> = None;
    let mut failure = None;
    let mut why = Forward::UriMiss;
    for _ in 0..COLLAPSE_ROUNDS_MAX {
        let now = path.now();
        let found = question.find(path, headers, now);
        let beginning = match question.begin(found, headers, &aim.route.cache, now) {
            Ok(beginning) => beginning,
            Err((entry, left_ms)) => {
                trail.cached(CacheResult::Hit);
                return Ok(Fetched::Response(compress::stored(path, question, asked, &entry, respond::fresh(left_ms), now).await));
            }
        };
        why = beginning.why;
        let hint = match learnt.take() {
            Some(learnt) => Hint { range: beginning.hint.range.clone(), ..learnt },
            None => beginning.hint.clone(),
        };
        let (reader, ours) = match path.cache().enter(&question.key, &hint, headers, company, aim.realm()) {
            Duty::Refused(detail) => return Ok(Fetched::Alone(why, detail)),
            Duty::Follow(reader) => (reader, false),
            Duty::Fetch(obligation, reader) => {
                // Whoever fetched until now may have stored it between our look and our turn, and what was found may have been purged: what counts is what is there now.
                let found = question.find(path, headers, path.now());
                let Ok(beginning) = question.begin(found, headers, &aim.route.cache, path.now()) else { continue };
                if beginning.hint.range != hint.range {
                    continue;
                }
                let order = store::Order::new(question.facts, headers.clone(), aim, beginning.stale, beginning.scope).hinted(&hint);
                store::begin(path, obligation, order, trail.clone());
                (reader, true)
            }
        };
        // The wait is for another's fetch; our own ends by the bounds of whom we ask.
        let waiting = (!ours).then(|| aim.route.counters.waits());
        let head = if ours { Some(reader.head().await) } else { tokio::time::timeout(wait, reader.head()).await.ok() };
        drop(waiting);
        let Some(head) = head else { return Ok(Fetched::Alone(why, Detail::CollapseWait.name())) };
        match settle(path, question, (head, reader, ours), why, asked).await {
            Settled::Response(response) => return Ok(Fetched::Response(response)),
            Settled::Alone(detail) => return Ok(Fetched::Alone(why, detail)),
            Settled::Failed(error) if ours => {
                trail.cached(CacheResult::Miss);
                return Err(error);
            }
            Settled::Failed(error) => failure = Some(error),
            Settled::Again(hint) => learnt = hint,
        }
    }
    let Some(error) = failure else { return Ok(Fetched::Alone(why, Detail::Rounds.name())) };
    trail.cached(CacheResult::Collapsed);
    Err(error)
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
    let other_variant = |variant: &Variant| Settled::Again(Some(Hint::of(variant)));
    match head {
        Head::Streaming(stream) if stream.variant.matches(headers) => {
            trail.cached(fetched);
            if !ours {
                trail.served_from(Source::Memory);
            }
            let status = forwarded(path, why, stream.head.status, (stream.keeping, stream.length), ours);
            Settled::Response(compress::streaming(path, question, asked, &stream, reader, status).await)
        }
        Head::Streaming(stream) => other_variant(&stream.variant),
        Head::Confirmed(entry, _) | Head::Stale(entry) if !entry.variant.matches(headers) => other_variant(&entry.variant),
        // The 304 made it an answer to whoever ordered it only.
        Head::Confirmed(_, Keeping::Not(Some(refusal))) if !ours && refusal.is_of_the_answer() => Settled::Alone(refusal.name()),
        Head::Confirmed(entry, keeping) => {
            trail.cached(if ours { CacheResult::Revalidated } else { CacheResult::Collapsed });
            let status = forwarded(path, why, StatusCode::NOT_MODIFIED, (keeping, Some(entry.body.len())), ours);
            Settled::Response(compress::stored(path, question, asked, &entry, respond::Say::As(status), path.now()).await)
        }
        Head::Stale(entry) => {
            trail.cached(CacheResult::Stale);
            let now = path.now();
            let say = respond::because(&entry, Detail::IfError, now);
            Settled::Response(compress::stored(path, question, asked, &entry, say, now).await)
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
        Head::Abandoned if ours => Settled::Alone(Detail::Abandoned.name()),
        Head::Abandoned => Settled::Again(None),
    }
}

/// What is said of a fetch that fills the cache with a body of this length, to whoever ordered it or to one who follows.
fn forwarded(path: &RequestPath, why: Forward, status: StatusCode, (keeping, length): (Keeping, Option<u64>), ours: bool) -> HeaderValue {
    let (stored, detail) = if ours { keeping } else { keeping.shared() }.said(length);
    path.name().forward(why, Some(status), stored, !ours, detail)
}
