//! The cache's part after a fetch: a task that belongs to no client asks the target, decides what may be stored, and feeds those who follow.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, COOKIE, HeaderMap, PRAGMA, RANGE, SET_COOKIE};
use http::{Method, Request, Response, StatusCode, Uri, response};
use http_body::Body as HttpBody;
use selvedge_origin::registry::CacheSettings;
use selvedge_runtime::{Body, BodyError, Outcome};
use tokio::time::Instant;

use super::RequestPath;
use super::admit::admit;
use super::compress;
use super::error::RequestError;
use super::hints::Lesson;
use super::lookup::{Question, Scope};
use super::partial::{self, Completed};
use super::pass_through;
use super::pump::{Held, Room, idle_timeout, pump};
use super::route::{Aim, Answerer};
use super::shield;
use super::trail::Trail;
use crate::cache::collapse::{Company, Duty, Obligation};
use crate::cache::control::{self, Control};
use crate::cache::entry::{Entry, StoredBody};
use crate::cache::fill::{Head, StreamHead};
use crate::cache::freshness::{Freshness, Standing};
use crate::cache::keeping::{Keeping, Welcome};
use crate::cache::part::{ContentRange, Part};
use crate::cache::policy::{self, Refusal, RequestFacts, Storable};
use crate::cache::purge::Stamp;
use crate::cache::surrogate::{CAPABILITY, SURROGATE_CAPABILITY};
use crate::cache::time::Time;
use crate::cache::vary::Variant;
use crate::cache::{Hint, deception, validate};
use crate::chance::draw;

/// What a fill needs.
pub(super) struct Order {
    facts: RequestFacts,
    /// The fields of the request that it answers, for what the response varies on.
    headers: HeaderMap,
    aim: Aim,
    /// What is stored, and for how many milliseconds it has been stale.
    stale: Option<(Arc<Entry>, u64)>,
    scope: Scope,
    begun: Instant,
    /// An answer of the key was not for the cache a moment ago, and so it is fetched alone.
    alone: bool,
}

/// What an upstream is asked for.
#[derive(Clone, Copy)]
enum Ask<'a> {
    /// All of it.
    All,
    /// What has changed since this.
    Since(&'a Entry),
    /// What this part lacks.
    Rest(&'a Entry),
}

impl Order {
    pub(super) fn new(facts: RequestFacts, headers: HeaderMap, aim: &Aim, stale: Option<(Arc<Entry>, u64)>, scope: Scope) -> Self {
        Self { facts, headers, aim: aim.clone(), stale, scope, begun: Instant::now(), alone: false }
    }

    /// The same, begun as this hint says.
    pub(super) fn hinted(self, hint: &Hint) -> Self {
        Self { alone: hint.alone, ..self }
    }
}

/// Starts a fill. It is a task of its own: no client's going away ends it.
pub(super) fn begin(path: &Arc<RequestPath>, obligation: Obligation, order: Order, trail: Arc<Trail>) {
    let task = fill(path.clone(), obligation, order, trail);
    path.tasks().spawn(task);
}

/// Refreshes a stale entry in the background, unless somebody does already. It is no client's fetch: what one says of its own answer is not said of it, and one whose answer
/// could not be kept brings none about.
pub(super) fn refresh(
    path: &Arc<RequestPath>,
    question: &Question,
    headers: &HeaderMap,
    aim: &Aim,
    stale: (Arc<Entry>, u64),
    trail: &Trail,
) {
    let facts = RequestFacts { no_store: false, ..question.facts };
    if policy::not_for_others(facts, &stale.0.control).is_some() {
        return;
    }
    let mut headers = headers.clone();
    [CACHE_CONTROL, PRAGMA].iter().for_each(|name| drop(headers.remove(name)));
    let (scope, range) = match stale.0.part() {
        Some(_) => (Scope::Range(None), headers.get(RANGE).cloned()),
        None => (Scope::Whole, None),
    };
    let hint = Hint { range, ..Hint::of(&stale.0.variant) };
    if let Duty::Fetch(obligation, reader) = path.cache().enter(&question.key, &hint, &headers, Company::Open, aim.realm()) {
        drop(reader);
        begin(path, obligation, Order::new(facts, headers, aim, Some(stale), scope), trail.refresh());
    }
}

async fn fill(path: Arc<RequestPath>, obligation: Obligation, order: Order, trail: Arc<Trail>) {
    let requested = path.now();
    let answer = answer(&path, &order, &trail).await;
    let received = path.now();
    let counters = &order.aim.route.counters;
    if answer.is_ok() {
        counters.fill_first_byte.observe(order.begun.elapsed());
    }
    let settings = &order.aim.route.cache;
    let stale =
        order.stale.as_ref().map(|(entry, stale_ms)| (entry, policy::stale_use(&entry.control, *stale_ms, settings.stale_if_error_s)));
    let is_fresh_yet = |entry: &Entry| order.stale.as_ref().is_some_and(|(_, stale_ms)| is_fresh_yet(entry, *stale_ms, received));
    match (answer, stale) {
        (Err(error), Some((entry, stale))) if stale.if_error && is_unreachable(&error) => obligation.tell(Head::Stale(entry.clone())),
        (Err(error), stale) => obligation.tell(Head::Failed(Arc::new(unconfirmed(error, stale.map(|(entry, _)| entry.as_ref()))))),
        // Stale beats a fresh error, and so does what is fresh yet and was to be refreshed.
        (Ok(response), Some((entry, stale))) if policy::is_upstream_error(response.status()) && (stale.if_error || is_fresh_yet(entry)) => {
            drop(response);
            obligation.tell(Head::Stale(entry.clone()));
        }
        // What is stored comes first in the place of a worker that failed, and what came after it is not the worker's.
        (Ok(response), Some((entry, stale))) if pass_through::is_passed(&response) && (stale.if_error || is_fresh_yet(entry)) => {
            drop(response);
            obligation.tell(Head::Stale(entry.clone()));
        }
        (Ok(response), Some((entry, _))) if response.status() == StatusCode::NOT_MODIFIED && !pass_through::is_passed(&response) => {
            confirm(&path, &obligation, &order, entry, response.headers(), (requested, received));
            counters.fill.observe(order.begun.elapsed());
        }
        (Ok(response), _) => match may_store(&order, &trail, &response, (requested, received)) {
            Ok(storable) => stream(&path, obligation, &order, response, storable).await,
            Err(refusal) => decline(&path, obligation, &order, response, refusal, received),
        },
    }
}

/// Whether what is stored, and was found to be stale for so long, could be used as it is, and was only to be refreshed. (What is not trusted was found to be stale.)
pub(super) fn is_fresh_yet(entry: &Entry, stale_ms: u64, now: Time) -> bool {
    stale_ms == 0 && !entry.control.no_cache && matches!(entry.standing(now), Standing::Fresh(_))
}

/// Whether the response may be stored: by the rules, and because it is what its path says.
fn may_store(order: &Order, trail: &Trail, response: &Response<Body>, (requested, received): (Time, Time)) -> Result<Storable, Refusal> {
    let settings = &order.aim.route.cache;
    if pass_through::is_passed(response) {
        return Err(Refusal::PassThrough);
    }
    // What a range makes an upstream say is no answer to who asks for all of it.
    if matches!(order.scope, Scope::Range(_)) && !matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        return Err(Refusal::Range);
    }
    let (status, headers) = (response.status(), response.headers());
    if order.aim.slice.as_ref().is_some_and(|slice| !slice.admits(status, headers)) {
        return Err(Refusal::Range);
    }
    let judged = judged(&order.aim, status, headers);
    let mut storable = policy::may_store(order.facts, status, &judged, settings, requested, received)?;
    // An upstream that says nothing of caches may have made a page for one user, and not thought of others. Nothing is guessed then.
    if order.headers.contains_key(COOKIE)
        && !storable.control.public
        && policy::is_guess(status, &judged, &storable.control, settings, received)
    {
        return Err(Refusal::NoLifetime);
    }
    if settings.deception_check && deception::differs(trail.context.target.path(), response.headers()) {
        return Err(Refusal::ContentType);
    }
    storable.freshness = jittered(storable.freshness, settings);
    Ok(storable)
}

/// The fields that decide about storing a response: its own, unless a worker wishes otherwise.
fn judged<'a>(aim: &Aim, status: StatusCode, headers: &'a HeaderMap) -> Cow<'a, HeaderMap> {
    aim.wish.as_ref().map_or(Cow::Borrowed(headers), |wish| wish.judged(status, headers))
}

fn jittered(freshness: Freshness, settings: &CacheSettings) -> Freshness {
    match settings.ttl_jitter_percent {
        0 => freshness,
        percent => freshness.jittered(percent, draw()),
    }
}

/// The upstream's answer: to a condition, for the rest of a part, or for all.
async fn answer(path: &Arc<RequestPath>, order: &Order, trail: &Arc<Trail>) -> Result<Response<Body>, RequestError> {
    if let Scope::Rest(part) = &order.scope {
        let response = ask(path, order, Ask::Rest(part), trail).await?;
        return match partial::completed(part, response) {
            Completed::Whole(response) => Ok(response),
            // Not the rest of what is stored: all of it is asked for.
            Completed::Other => ask(path, order, Ask::All, trail).await,
        };
    }
    let Some((stored, _)) = &order.stale else { return ask(path, order, Ask::All, trail).await };
    let response = ask(path, order, Ask::Since(stored), trail).await?;
    // A 304 that speaks of another response than ours: ask again for all of it (RFC 9111, section 4.3.4).
    if response.status() == StatusCode::NOT_MODIFIED && !validate::confirms(response.headers(), stored.fields()) {
        return ask(path, order, Ask::All, trail).await;
    }
    Ok(response)
}

/// Asks the key's shield, or else the target.
async fn ask(path: &Arc<RequestPath>, order: &Order, what: Ask<'_>, trail: &Arc<Trail>) -> Result<Response<Body>, RequestError> {
    admit(path, &order.aim, trail)?;
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.headers_mut() = order.headers.clone();
    match what {
        Ask::Since(entry) => validate::ask_since(request.headers_mut(), entry.fields()),
        _ => validate::ask_for_all(request.headers_mut()),
    }
    control::forbid_stale(request.headers_mut());
    match (what, &order.scope) {
        (Ask::Rest(part), _) => partial::ask_for_rest(request.headers_mut(), part),
        (Ask::All | Ask::Since(_), Scope::Range(_)) => {
            if let Some(range) = order.headers.get(RANGE) {
                request.headers_mut().insert(RANGE, range.clone());
            }
        }
        _ => {}
    }
    if matches!(order.aim.answerer, Answerer::Upstream(_)) {
        request.headers_mut().insert(SURROGATE_CAPABILITY, CAPABILITY);
    }
    *request.uri_mut() = Uri::from(trail.context.asked().clone());
    let lesson = Lesson::begin(path, &request, &order.aim, trail);
    match shield::ask(path, request.headers(), &order.aim, trail).await {
        Some(response) => {
            if let Some(lesson) = lesson {
                lesson.learn(path, &response);
            }
            Ok(response)
        }
        None => path.send_on(request, &order.aim, trail).await,
    }
}

/// Whether the error is of an upstream that is away, or of a want of room for whoever would answer, rather than of this node or the client.
pub(super) fn is_unreachable(error: &RequestError) -> bool {
    match error {
        RequestError::Upstream(error) => error.is_of_the_server(),
        RequestError::Run { error, .. } => error.outcome == Outcome::LoadShed,
        _ => false,
    }
}

/// The error where what is stored had to be confirmed by an upstream that is away (RFC 9111, section 5.2.2.2): a gateway's that waited in vain.
pub(super) fn unconfirmed(error: RequestError, stored: Option<&Entry>) -> RequestError {
    let revalidates = |control: &Control| control.must_revalidate || control.proxy_revalidate || control.s_maxage.is_some();
    match error {
        RequestError::Upstream(away) if away.is_of_the_server() && stored.is_some_and(|entry| revalidates(&entry.control)) => {
            RequestError::Unconfirmed(away)
        }
        error => error,
    }
}

/// A `304`: the stored bytes with its fields, from now on.
fn confirm(
    path: &RequestPath,
    obligation: &Obligation,
    order: &Order,
    entry: &Entry,
    not_modified: &HeaderMap,
    (requested, received): (Time, Time),
) {
    let mut confirmed = freshened(&order.aim, entry, not_modified, (requested, received), obligation.stamp());
    // What the 304 says now may forbid to keep it, or make it an answer to requests like this one only (RFC 9111, section 4.1).
    let vary = entry.variant.changed_by(not_modified);
    let unknowable = vary.as_ref().and_then(|vary| policy::unknowable(vary, &order.aim.route.cache));
    let refusal = policy::not_for_others(order.facts, &confirmed.control).or(unknowable);
    if let Some(vary) = vary {
        confirmed = confirmed.for_requests(vary.variant(&order.headers));
    }
    let confirmed = Arc::new(confirmed);
    let keeping = match refusal {
        Some(refusal) => Keeping::Not(Some(refusal)),
        None => {
            // Its bytes are where they were.
            let welcome = path.cache().welcome(obligation, Some(confirmed.body.len()), u64::MAX, u64::MAX);
            path.cache().fulfil(obligation, confirmed.clone(), welcome)
        }
    };
    note(path, obligation, keeping, received);
    obligation.tell(Head::Confirmed(confirmed, keeping));
}

/// Remembers why something is not stored, for whoever asks.
fn note(path: &RequestPath, obligation: &Obligation, keeping: Keeping, now: Time) {
    if let Keeping::Not(Some(refusal)) = keeping {
        path.cache().refusals().note(obligation.key(), refusal, now);
    }
}

/// A stored response with the fields of a `304`, or of a `200` to HEAD, from now on.
pub(super) fn freshened(aim: &Aim, entry: &Entry, by: &HeaderMap, (requested, received): (Time, Time), stamp: Stamp) -> Entry {
    let settings = &aim.route.cache;
    let mut fields = entry.fields().to_map(by.len());
    validate::freshen(&mut fields, by);
    if !settings.store_set_cookie {
        // Of who asked, and nobody else's.
        fields.remove(SET_COOKIE);
    }
    compress::prepare(aim, entry.status, &mut fields, Some(entry.body.len()));
    let judged = judged(aim, entry.status, &fields);
    let control = Control::of_response(&judged);
    let ended = Freshness { lifetime_ms: 0, initial_age_ms: 0, received };
    let freshness = policy::freshness(entry.status, &judged, &control, settings, requested, received).unwrap_or(ended);
    drop(judged);
    let withheld = control::withheld(&fields);
    entry.freshened(fields, control, jittered(freshness, settings), stamp).without(&withheld)
}

/// Not for the cache: to whoever ordered it. Others that wait already show that it is asked for often: the next ones shall not wait. While they do not, and the answers stay
/// what they are, nobody could wait: that they go alone is enough then.
fn decline(path: &RequestPath, obligation: Obligation, order: &Order, response: Response<Body>, refusal: Refusal, now: Time) {
    path.cache().refusals().note(obligation.key(), refusal, now);
    if (obligation.has_company() || order.alone) && refusal.lasts() {
        path.cache().mark_uncollapsed(obligation.key(), now);
    }
    obligation.give(response, refusal);
}

/// Feeds the readers while the body arrives, and stores it when it is whole.
async fn stream(path: &RequestPath, obligation: Obligation, order: &Order, response: Response<Body>, storable: Storable) {
    let (mut head, body) = response.into_parts();
    let variant = storable.vary.variant(&order.headers);
    let length = policy::stated_length(&head.headers).or_else(|| body.size_hint().exact());
    compress::prepare(&order.aim, head.status, &mut head.headers, length);
    let withheld = control::withheld(&head.headers);
    let bytes_max = order.aim.route.cache.entry_bytes_max;
    // Parts are put together in memory; slices are not.
    let is_part = head.status == StatusCode::PARTIAL_CONTENT && order.aim.slice.is_none();
    let disk = if is_part { None } else { Some(path.cache()) };
    let route = Some(&order.aim.route.counters);
    let memory_bytes_max = path.cache().memory_entry_max(bytes_max);
    let room = Room { memory_bytes_max, bytes_max, length, disk, route, idle_timeout: idle_timeout(&order.aim) };
    let welcome = path.cache().welcome(&obligation, length, room.memory_bytes_max, room.sliced_bytes_max());
    let mut stream = StreamHead { head: head.clone(), variant: variant.clone(), withheld, length, keeping: welcome.keeping };
    let arriving = Arriving { head, variant, storable, welcome };
    // A body that is here already is stored before anyone is told, so that its readers get it whole.
    if let Some(whole) = body.as_whole() {
        if length.is_some_and(|length| length != whole.len() as u64) {
            stream.keeping = Keeping::Not(None);
            obligation.tell(Head::Streaming(Arc::new(stream)));
            obligation.end(Err(wrong_length()));
            return;
        }
        if whole.len() as u64 > bytes_max {
            let (response, now) = (Response::from_parts(arriving.head, body), arriving.storable.freshness.received);
            return decline(path, obligation, order, response, Refusal::TooLarge, now);
        }
        obligation.push(Bytes::copy_from_slice(&whole));
        stream.keeping = keep(path, &obligation, order, arriving, StoredBody::new(&obligation.all_chunks()));
        obligation.finish(Head::Streaming(Arc::new(stream)));
        return;
    }
    obligation.tell(Head::Streaming(Arc::new(stream)));
    let (read, held) = pump(&obligation, body, room).await;
    let end = match read {
        Ok(read) if length.is_some_and(|length| length != read) => Err(wrong_length()),
        read => read.map(drop),
    };
    match (held, end.is_ok()) {
        (Held::InMemory, true) => {
            keep(path, &obligation, order, arriving, StoredBody::new(&obligation.all_chunks()));
            obligation.end(end);
        }
        (Held::OnDisk(spill), true) => {
            // Readers need not wait for the last slices.
            obligation.arrived();
            if let Ok(body) = spill.finish().await {
                keep(path, &obligation, order, arriving, StoredBody::sliced(body));
            }
        }
        (Held::Nowhere, true) if !obligation.is_discarded() => {
            path.cache().refusals().note(obligation.key(), Refusal::TooLarge, path.now());
            obligation.end(end);
        }
        _ => obligation.end(end),
    }
}

fn wrong_length() -> BodyError {
    BodyError::Aborted("the body is not as long as it said".into())
}

/// A response that may be stored, but for its body.
struct Arriving {
    head: response::Parts,
    variant: Variant,
    storable: Storable,
    welcome: Welcome,
}

/// Stores it with its body. Says what has become of it.
fn keep(path: &RequestPath, obligation: &Obligation, order: &Order, arriving: Arriving, body: StoredBody) -> Keeping {
    if obligation.is_discarded() {
        return Keeping::Not(None);
    }
    let Arriving { head, variant, storable, welcome } = arriving;
    let range = if head.status == StatusCode::PARTIAL_CONTENT { ContentRange::of(&head.headers) } else { None };
    let (len, received) = (body.len(), storable.freshness.received);
    let mut entry = Entry::of(head, body, storable, variant, obligation.stamp());
    let counters = &order.aim.route.counters;
    entry.count_by(counters);
    if let Some(range) = range {
        // Not the bytes that it said: the client has got them, nobody else shall.
        let Some(part) = Part::of(range, len) else { return Keeping::Not(Some(Refusal::Range)) };
        entry = partial::widened(entry.partial(part), part, &order.scope);
    }
    entry.body = path.cache().counted(entry.body);
    let entry = Arc::new(entry);
    let keeping = path.cache().fulfil(obligation, entry.clone(), welcome);
    note(path, obligation, keeping, received);
    obligation.became(entry);
    counters.fill.observe(order.begun.elapsed());
    keeping
}
