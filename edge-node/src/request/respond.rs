//! Stage 2, last: responses. The only file that chooses an HTTP status for an error, by one table (RFC 9209 recommends a status for each type).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderMap, HeaderName, HeaderValue,
    LAST_MODIFIED, LOCATION, RANGE, RETRY_AFTER, VARY,
};
use http::{Method, Response, StatusCode};
use selvedge_runtime::{Body, BodyError, Outcome, RunError};

use super::RequestPath;
use super::compress::Asked;
use super::context::Context;
use super::error::RequestError;
use super::fields::X_REQUEST_ID;
use super::shield::SELVEDGE_PEER;
use super::trail::Trail;
use crate::cache::entry::Entry;
use crate::cache::fill::{Reader, StreamHead};
use crate::cache::freshness::Standing;
use crate::cache::part::Part;
use crate::cache::range::{Selected, multipart, select};
use crate::cache::ready::Ready;
use crate::cache::status::{self, Detail, StatusName};
use crate::cache::tags::{SELVEDGE_TAGS, Tags};
use crate::cache::time::Time;
use crate::cache::validate::{client_has, range_applies};
use crate::chance::draw;
use crate::limits::RETRY_AFTER_PASSING;
use crate::listen::Refusal;
use crate::metrics::Source;
use crate::upstream::UpstreamError;

/// RFC 9209.
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// What `Cache-Status` says of a stored response.
pub(super) enum Say {
    /// A hit; seconds of freshness that are left, negative for a stale one.
    Hit(i64),
    /// A hit for a reason that the client is told.
    Because(i64, Detail),
    /// This.
    As(HeaderValue),
}

impl Say {
    /// The same for a response whose bytes came from the disk.
    pub(super) fn of_disk(self) -> Self {
        if let Self::Hit(ttl) = self { Self::Because(ttl, Detail::Disk) } else { self }
    }

    /// As it stands in the field.
    pub(super) fn value(self, name: &StatusName) -> HeaderValue {
        match self {
            Self::Hit(ttl) => name.hit(ttl),
            Self::Because(ttl, detail) => name.hit_because(ttl, detail),
            Self::As(value) => value,
        }
    }
}

/// A hit that is fresh for so many milliseconds more.
pub(super) fn fresh(left_ms: u64) -> Say {
    Say::Hit(seconds(left_ms))
}

/// A hit of an entry, fresh or stale, for a reason that the client is told.
pub(super) fn because(entry: &Entry, reason: Detail, now: Time) -> Say {
    let ttl = match entry.standing(now) {
        Standing::Fresh(ms) => seconds(ms),
        Standing::Stale(ms) => -seconds(ms),
    };
    Say::Because(ttl, reason)
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).unwrap_or(i64::MAX)
}

/// What a listener sends for what is no request.
pub(crate) fn refusal(refusal: Refusal, node: &str) -> Response<Body> {
    let status = match refusal {
        Refusal::BadHead
        | Refusal::BadHost
        | Refusal::HostMismatch
        | Refusal::BadTarget
        | Refusal::BadFraming
        | Refusal::ConnectionFields => StatusCode::BAD_REQUEST,
        Refusal::SlowHead => StatusCode::REQUEST_TIMEOUT,
        Refusal::VersionNotSupported => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        Refusal::TargetTooLong => StatusCode::URI_TOO_LONG,
        Refusal::FieldsTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Refusal::MethodNotSupported => StatusCode::NOT_IMPLEMENTED,
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // RFC 9209, section 2.3.19.
    insert(&mut headers, PROXY_STATUS, &format!("{node}; error=http_request_error; details=\"{}\"", refusal.name()));
    with(status, headers, Body::full(format!("{status}\n{refusal}\n")))
}

/// A stored response as it is, where nothing of the request makes a difference: the usual hit of a client, which needs no head of its own.
pub(super) fn ready(path: &RequestPath, entry: &Arc<Entry>, asked: Asked<'_>, left_ms: u64, now: Time) -> Option<Ready> {
    let Asked { headers: request, trail, .. } = asked;
    let plain = trail.is_clients() && !trail.is_recalled() && !request.contains_key(RANGE) && !client_has(request, entry.fields());
    if !plain {
        return None;
    }
    let ready = Ready::new(entry, now, path.name().hit(seconds(left_ms)))?;
    trail.served_from(Source::Memory);
    Some(if trail.context.method == Method::HEAD { ready.without_body() } else { ready })
}

/// A response from what is stored: conditions, then a range, then all of it (RFC 9110, section 13.2.2).
pub(super) fn from_entry(path: &RequestPath, entry: &Entry, request: &HeaderMap, trail: &Trail, say: Say, now: Time) -> Response<Body> {
    let from_disk = trail.is_recalled() || entry.body.on_disk().is_some();
    trail.served_from(if from_disk { Source::Disk } else { Source::Memory });
    let say = if from_disk { say.of_disk() } else { say };
    let mut headers = entry.fields_now(now, say.value(path.name()));
    tell_tags(&mut headers, &entry.purgeable.tags, trail);
    if entry.status == StatusCode::OK {
        if client_has(request, entry.fields()) {
            return not_modified(headers);
        }
        if let Some(range) = request.get(RANGE).filter(|_| trail.context.method == Method::GET && range_applies(request, entry.fields())) {
            match select(Some(range), entry.body.len()) {
                Selected::Whole => {}
                Selected::Part(part) => return ranged(headers, part, entry.body.len(), |part| entry.body.part(part)),
                Selected::Parts(parts) => return several(headers, entry, &parts),
                Selected::Unsatisfiable => return unsatisfiable(headers, entry.body.len()),
            }
        }
    }
    if let Some(part) = entry.part() {
        return of_part(headers, entry, part, request);
    }
    let body = if trail.context.method == Method::HEAD { Body::empty() } else { entry.body.whole() };
    with(entry.status, headers, body)
}

/// The bytes of a stored part that the request asks for. (That they are all there is known; a part is not given to others.)
fn of_part(mut headers: HeaderMap, entry: &Entry, part: Part, request: &HeaderMap) -> Response<Body> {
    if client_has(request, entry.fields()) {
        return not_modified(headers);
    }
    let here = part.bytes(entry.body.len());
    let wanted = part.answers(request.get(RANGE), entry.body.len()).unwrap_or(here.clone());
    let total = part.total.map_or_else(|| "*".to_owned(), |total| total.to_string());
    insert(&mut headers, CONTENT_RANGE, &format!("bytes {}-{}/{total}", wanted.start, wanted.end.saturating_sub(1)));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(wanted.end - wanted.start));
    with(StatusCode::PARTIAL_CONTENT, headers, entry.body.part(wanted.start - here.start..wanted.end - here.start))
}

/// Several ranges of a stored response (RFC 9110, section 14.6).
fn several(mut headers: HeaderMap, entry: &Entry, parts: &[std::ops::Range<u64>]) -> Response<Body> {
    // Nobody can have put it into the bytes.
    let boundary = format!("{:016x}{:016x}", (draw() * 2f64.powi(53)) as u64, (draw() * 2f64.powi(53)) as u64);
    let kind = headers.get(CONTENT_TYPE).cloned();
    let (body, length) = multipart(parts, entry.body.len(), kind.as_ref(), &boundary, |range| entry.body.part(range));
    insert(&mut headers, CONTENT_TYPE, &format!("multipart/byteranges; boundary={boundary}"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    with(StatusCode::PARTIAL_CONTENT, headers, body)
}

/// A response from slices: conditions, then a range, then all of it. `body` has the bytes that these come to.
pub(super) fn of_slices(mut headers: HeaderMap, total: u64, request: &HeaderMap, body: Body) -> Response<Body> {
    if client_has(request, &headers) {
        return not_modified(headers);
    }
    headers.remove(CONTENT_RANGE);
    let range = request.get(RANGE).filter(|_| range_applies(request, &headers));
    match select(range, total) {
        Selected::Part(part) => ranged(headers, part, total, |_| body),
        Selected::Unsatisfiable => unsatisfiable(headers, total),
        // Several ranges were not asked for.
        Selected::Whole | Selected::Parts(_) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(total));
            with(StatusCode::OK, headers, body)
        }
    }
}

/// These bytes of a whole.
fn ranged(mut headers: HeaderMap, part: Range<u64>, total: u64, body: impl FnOnce(Range<u64>) -> Body) -> Response<Body> {
    insert(&mut headers, CONTENT_RANGE, &format!("bytes {}-{}/{total}", part.start, part.end.saturating_sub(1)));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(part.end.saturating_sub(part.start)));
    with(StatusCode::PARTIAL_CONTENT, headers, body(part))
}

fn unsatisfiable(mut headers: HeaderMap, total: u64) -> Response<Body> {
    insert(&mut headers, CONTENT_RANGE, &format!("bytes */{total}"));
    headers.remove(CONTENT_LENGTH);
    headers.remove(CONTENT_TYPE);
    with(StatusCode::RANGE_NOT_SATISFIABLE, headers, Body::empty())
}

/// A response that is being stored while it is sent.
pub(super) fn from_stream(
    stream: &Arc<StreamHead>,
    reader: Reader,
    request: &HeaderMap,
    trail: &Trail,
    cache_status: HeaderValue,
) -> Response<Body> {
    let mut headers = stream.head.headers.clone();
    if !reader.is_owner() {
        for name in &stream.withheld {
            headers.remove(name);
        }
    }
    strip_tags(&mut headers);
    if trail.is_peers() {
        tell_tags(&mut headers, &Tags::of(&stream.head.headers), trail);
    }
    status::add(&mut headers, cache_status);
    if is_conditional(stream.head.status) && client_has(request, &headers) {
        return not_modified(headers);
    }
    with(stream.head.status, headers, reader.into_body(stream.length))
}

/// A response that the cache did not want, to a request that may have been asked without its conditions.
pub(super) fn private(mut response: Response<Body>, request: &HeaderMap, cache_status: HeaderValue) -> Response<Body> {
    strip_tags(response.headers_mut());
    status::add(response.headers_mut(), cache_status);
    conditional(response, request)
}

/// A response to a request that was asked without its conditions.
pub(super) fn conditional(response: Response<Body>, request: &HeaderMap) -> Response<Body> {
    if is_conditional(response.status()) && client_has(request, response.headers()) {
        return not_modified(response.into_parts().0.headers);
    }
    response
}

/// Whether a client's conditions are about a response with this status: they come before its range (RFC 9110, section 13.2.2).
fn is_conditional(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT)
}

/// Tells another node that asks by which tags a purge reaches it.
fn tell_tags(headers: &mut HeaderMap, tags: &Tags, trail: &Trail) {
    if let Some(told) = trail.is_peers().then(|| tags.told()).flatten() {
        headers.insert(SELVEDGE_TAGS, told);
    }
}

/// Takes off the tags, which are for this node: they tell outsiders what is behind a page.
pub(super) fn strip_tags(headers: &mut HeaderMap) {
    Tags::strip(headers);
}

/// RFC 9110, section 15.4.5: of the fields, those that a `200` would have had and that may have changed.
fn not_modified(mut headers: HeaderMap) -> Response<Body> {
    const KEPT: [HeaderName; 10] = [
        CACHE_CONTROL,
        CONTENT_LOCATION,
        DATE,
        ETAG,
        EXPIRES,
        LAST_MODIFIED,
        VARY,
        http::header::AGE,
        status::CACHE_STATUS,
        crate::cache::control::CDN_CACHE_CONTROL,
    ];
    let gone: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("content-") && !KEPT.contains(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
    with(StatusCode::NOT_MODIFIED, headers, Body::empty())
}

/// The same address over https. `308` keeps the method and the body.
pub(super) fn to_https(context: &Context, port: Option<u16>) -> Response<Body> {
    let port = port.filter(|port| *port != 443).map(|port| format!(":{port}")).unwrap_or_default();
    let mut headers = HeaderMap::new();
    insert(&mut headers, LOCATION, &format!("https://{}{port}{}", context.host(), context.target));
    with(StatusCode::PERMANENT_REDIRECT, headers, Body::empty())
}

/// One row of the table.
struct Row {
    status: StatusCode,
    /// The error type of RFC 9209, section 2.3.
    kind: &'static str,
    /// For the client: names what failed and nothing inside.
    text: String,
    retry_after: Option<Duration>,
}

/// The response for an error: short text, `Proxy-Status`, the request's id.
pub(super) fn error(error: &RequestError, trail: &Trail, path: &RequestPath) -> Response<Body> {
    let row = row(error);
    trail.served_from(Source::Node);
    trail.failed(row.kind, error.to_string());
    if let RequestError::Run { error, worker, version } = error {
        trail.ended(error.outcome);
        if error.outcome == Outcome::InternalError {
            tracing::error!(worker.name = &**worker, worker.version = &**version, request.id = &*trail.context.id(), "{error}");
        }
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let details: String =
        row.text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).filter(|c| !matches!(c, '"' | '\\')).collect();
    insert(&mut headers, PROXY_STATUS, &format!("{}; error={}; details=\"{details}\"", path.name().as_str(), row.kind));
    if trail.is_peers() {
        // The asker may do better itself.
        insert(&mut headers, SELVEDGE_PEER, &details);
    }
    let id = trail.context.id();
    insert(&mut headers, X_REQUEST_ID, &id);
    if let Some(after) = row.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    if let RequestError::Method(_) = error {
        headers.insert(http::header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    let text = format!("{}\n{}\nrequest {id}\n", row.status, row.text);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    let body = if trail.context.method == Method::HEAD { Body::empty() } else { Body::full(text) };
    with(row.status, headers, body)
}

/// Says that a response stands in the place of a worker that failed, and how it failed.
pub(super) fn tell_passed(path: &RequestPath, headers: &mut HeaderMap, worker: &str, error: &RunError) {
    let row = run_row(worker, error);
    let told = format!("{}; error={}; details=\"{}; passed through\"", path.name().as_str(), row.kind, row.text);
    if let Ok(told) = HeaderValue::from_str(&told) {
        headers.append(PROXY_STATUS, told);
    }
}

/// The table.
fn row(error: &RequestError) -> Row {
    let row = |status, kind, text: String| Row { status, kind, text, retry_after: None };
    match error {
        RequestError::Malformed(reason) => row(StatusCode::BAD_REQUEST, "http_request_error", (*reason).to_owned()),
        RequestError::Method(Method::TRACE) => row(StatusCode::METHOD_NOT_ALLOWED, "http_request_denied", "TRACE is not served".into()),
        RequestError::Method(method) => row(StatusCode::NOT_IMPLEMENTED, "http_request_denied", format!("{method} is not served")),
        RequestError::NoRoute { authority, path } => {
            row(StatusCode::NOT_FOUND, "destination_not_found", format!("no route for {authority}{path}"))
        }
        RequestError::Loop { .. } => row(StatusCode::BAD_GATEWAY, "proxy_loop_detected", "the request goes around in a loop".into()),
        RequestError::TooManyNested { .. } => {
            row(StatusCode::BAD_GATEWAY, "proxy_loop_detected", "the request causes too many others".into())
        }
        RequestError::NotActive { worker } => Row {
            retry_after: Some(RETRY_AFTER_PASSING),
            ..row(StatusCode::SERVICE_UNAVAILABLE, "destination_unavailable", format!("worker {worker} is not active here"))
        },
        RequestError::NoUpstream { .. } => row(StatusCode::BAD_GATEWAY, "destination_not_found", "the route has no upstream".into()),
        RequestError::BodyTooLarge { bytes_max } => {
            row(StatusCode::PAYLOAD_TOO_LARGE, "http_request_error", format!("the request's body is larger than {bytes_max} bytes"))
        }
        RequestError::NotForPeers(why) => row(StatusCode::MISDIRECTED_REQUEST, "destination_unavailable", (*why).to_owned()),
        RequestError::NotStored => {
            row(StatusCode::GATEWAY_TIMEOUT, "http_request_denied", "nothing is stored, and only-if-cached was asked".into())
        }
        RequestError::Upstream(error) => upstream_row(error),
        // RFC 9111, sections 5.2.2.2, 5.2.2.8 and 5.2.2.10.
        RequestError::Unconfirmed(error) => Row { status: StatusCode::GATEWAY_TIMEOUT, ..upstream_row(error) },
        RequestError::Run { worker, error, .. } => run_row(worker, error),
        RequestError::Body(error) => body_row(error),
    }
}

/// Texts here name no address: an upstream's may be private.
fn upstream_row(error: &UpstreamError) -> Row {
    use UpstreamError as E;
    let (status, kind, text) = match error {
        E::Dns { .. } => (StatusCode::BAD_GATEWAY, "dns_error", "the upstream's name does not resolve"),
        E::Prohibited { .. } => (StatusCode::BAD_GATEWAY, "destination_ip_prohibited", "the address may not be reached"),
        E::Connect { .. } => (StatusCode::BAD_GATEWAY, "connection_refused", "no connection to the upstream"),
        E::ConnectTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "connection_timeout", "no connection to the upstream in time"),
        E::Tls { .. } => (StatusCode::BAD_GATEWAY, "tls_certificate_error", "no secure connection to the upstream"),
        E::HeadTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "http_response_timeout", "no answer of the upstream in time"),
        E::Protocol { .. } => (StatusCode::BAD_GATEWAY, "http_protocol_error", "the upstream's answer is not HTTP"),
        E::RequestBody { error, .. } => return body_row(error),
        E::BadRequest { .. } => (StatusCode::BAD_REQUEST, "http_request_error", "the request cannot be sent on"),
        E::Terminated { .. } => (StatusCode::BAD_GATEWAY, "connection_terminated", "the upstream closed the connection without an answer"),
        E::AllDown { .. } => (StatusCode::SERVICE_UNAVAILABLE, "destination_unavailable", "no server of the upstream is up"),
        E::Overloaded { .. } => (StatusCode::SERVICE_UNAVAILABLE, "connection_limit_reached", "too much waits for the upstream"),
        E::Shed => (StatusCode::SERVICE_UNAVAILABLE, "connection_limit_reached", "the node is overloaded"),
    };
    let passing = matches!(error, E::Overloaded { .. } | E::Shed).then_some(RETRY_AFTER_PASSING);
    Row { status, kind, text: text.into(), retry_after: passing }
}

/// A request's body that ended early: the client's doing.
fn body_row(error: &BodyError) -> Row {
    let (status, text) = match error {
        BodyError::TooLarge { bytes_max } => {
            (StatusCode::PAYLOAD_TOO_LARGE, format!("the request's body is larger than {bytes_max} bytes"))
        }
        BodyError::Stalled { .. } => (StatusCode::REQUEST_TIMEOUT, "the request's body stopped".into()),
        BodyError::Aborted(_) | BodyError::Worker(_) => (StatusCode::BAD_REQUEST, "the request's body ended early".into()),
    };
    Row { status, kind: "http_request_error", text, retry_after: None }
}

/// Each outcome by its name; what the worker threw stays with its owner.
fn run_row(worker: &str, error: &RunError) -> Row {
    let (status, kind) = match error.outcome {
        Outcome::Ok | Outcome::InternalError => (StatusCode::INTERNAL_SERVER_ERROR, "proxy_internal_error"),
        Outcome::Exception => (StatusCode::INTERNAL_SERVER_ERROR, "http_response_incomplete"),
        Outcome::StartupFailed => (StatusCode::INTERNAL_SERVER_ERROR, "destination_unavailable"),
        Outcome::ExceededCpu | Outcome::ExceededMemory => (StatusCode::SERVICE_UNAVAILABLE, "http_response_incomplete"),
        Outcome::ExceededWallTime => (StatusCode::GATEWAY_TIMEOUT, "http_response_timeout"),
        Outcome::LoadShed => (StatusCode::SERVICE_UNAVAILABLE, "connection_limit_reached"),
        Outcome::RunnerLost => (StatusCode::SERVICE_UNAVAILABLE, "connection_terminated"),
        Outcome::Disabled => (StatusCode::SERVICE_UNAVAILABLE, "destination_unavailable"),
        Outcome::Canceled => (StatusCode::SERVICE_UNAVAILABLE, "connection_terminated"),
        Outcome::ResponseStreamDisconnected => (StatusCode::BAD_GATEWAY, "http_response_incomplete"),
    };
    let passing = matches!(error.outcome, Outcome::LoadShed | Outcome::RunnerLost | Outcome::Canceled).then_some(RETRY_AFTER_PASSING);
    Row { status, kind, text: format!("worker {worker}: {}", error.outcome), retry_after: error.retry_after.or(passing) }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

fn with(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_5xx_and_names_itself() {
        for number in 1..=11 {
            let outcome = Outcome::from_wire(number).expect("an outcome");
            let row = run_row("w", &RunError { outcome, message: "secret stack".into(), retry_after: None, request_body: None });
            assert!(row.status.is_server_error(), "{outcome}");
            assert_eq!(row.text, format!("worker w: {outcome}"));
        }
        let lost = run_row("w", &RunError { outcome: Outcome::RunnerLost, message: String::new(), retry_after: None, request_body: None });
        assert_eq!((lost.status, lost.retry_after), (StatusCode::SERVICE_UNAVAILABLE, Some(Duration::from_secs(1))));
    }

    #[test]
    fn texts_for_clients_name_no_upstream() {
        let error = UpstreamError::Connect { host: "10.0.0.7".into(), reason: "refused by 10.0.0.7:443".into() };
        assert!(!upstream_row(&error).text.contains("10."));
    }
}
