//! What may be stored, and what a stored response may be used for: RFC 9111, sections 3 and 4. Pure.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, LAST_MODIFIED, PRAGMA, SET_COOKIE};
use http::{Method, StatusCode};
use selvedge_origin::registry::{CacheSettings, RequestDirectives, VaryRule};

use super::control::{self, Control, Seconds};
use super::freshness::{self, Freshness, Source};
use super::part::ContentRange;
use super::time::Time;
use super::vary::{self, Vary};

/// What of a request decides about storing its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFacts {
    /// It says `no-store`.
    pub no_store: bool,
    /// It carries `Authorization`.
    pub authorized: bool,
}

impl RequestFacts {
    /// Of a request. Its `no-store` counts where the route follows it.
    pub fn of(headers: &HeaderMap, control: &Control, directives: RequestDirectives) -> Self {
        let no_store = control.no_store && directives != RequestDirectives::None;
        Self { no_store, authorized: headers.contains_key(AUTHORIZATION) }
    }
}

/// Why a response is not stored: a closed list, shown in `Cache-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// `304`, `416`, interim, or one that `must-understand` keeps from who does not know it.
    Status,
    /// Partial content that does not say which one range of bytes it is, or has others than it says.
    Range,
    /// The request or the response says `no-store`.
    NoStore,
    /// The response is `private`.
    Private,
    /// The request was authorized and the response does not say that others may have it.
    Authorization,
    /// The response sets cookies and the route does not store such.
    SetCookie,
    /// The response varies on anything, or on what is another thing for each request.
    Vary,
    /// It varies on a field that the route's `vary` bypasses.
    VaryBypass,
    /// It has another type than its path says: web cache deception.
    ContentType,
    /// The response does not say how long it is fresh.
    NoLifetime,
    /// It is stale at once, and has nothing to be validated by.
    Useless,
    /// It is larger than the route or this node stores.
    TooLarge,
    /// It stands in the place of a worker's that failed, and is not the worker's.
    PassThrough,
    /// Nobody asked for it before, memory is full, and no disk takes it.
    Admission,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Status,
        Self::Range,
        Self::NoStore,
        Self::Private,
        Self::Authorization,
        Self::SetCookie,
        Self::Vary,
        Self::VaryBypass,
        Self::ContentType,
        Self::NoLifetime,
        Self::Useless,
        Self::TooLarge,
        Self::PassThrough,
        Self::Admission,
    ];

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Range => "range",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::Vary => "vary",
            Self::VaryBypass => "vary-bypass",
            Self::ContentType => "content-type",
            Self::NoLifetime => "no-lifetime",
            Self::Useless => "no-validator",
            Self::TooLarge => "too-large",
            Self::PassThrough => "pass-through",
            Self::Admission => "admission",
        }
    }

    /// Whether it is the answer that forbids to keep it for others, rather than its size or the room for it.
    pub const fn is_of_the_answer(self) -> bool {
        !matches!(self, Self::TooLarge | Self::Admission)
    }

    /// Whether the next request of the same key would be refused too, so that it need not wait for this one. (One that bad ranges could bring about would let any client
    /// end the waiting.)
    pub const fn lasts(self) -> bool {
        !matches!(self, Self::Authorization | Self::Range | Self::PassThrough | Self::Admission)
    }
}

/// What storing a response needs to know of it.
#[derive(Debug, Clone)]
pub struct Storable {
    /// Its directives.
    pub control: Control,
    /// How long it is fresh.
    pub freshness: Freshness,
    /// What it varies on.
    pub vary: Vary,
}

/// Whether the response to a GET may be stored, by RFC 9111, section 3, and by the route's settings.
pub fn may_store(
    facts: RequestFacts,
    status: StatusCode,
    headers: &HeaderMap,
    settings: &CacheSettings,
    requested: Time,
    received: Time,
) -> Result<Storable, Refusal> {
    // A `304` answers the client's own condition, a `416` its range: neither is a response to others.
    if status.is_informational() || matches!(status, StatusCode::NOT_MODIFIED | StatusCode::RANGE_NOT_SATISFIABLE) {
        return Err(Refusal::Status);
    }
    if status == StatusCode::PARTIAL_CONTENT && ContentRange::of(headers).is_none() {
        return Err(Refusal::Range);
    }
    let control = Control::of_response(headers);
    // Section 5.2.2.3: with must-understand, no-store says nothing to a cache that understands the status; others are not stored at all.
    let understood = is_understood(status);
    if control.must_understand && !understood {
        return Err(Refusal::Status);
    }
    not_for_others(facts, &control).map_or(Ok(()), Err)?;
    if headers.contains_key(SET_COOKIE) && !settings.store_set_cookie && !control::withheld(headers).contains(&SET_COOKIE) {
        return Err(Refusal::SetCookie);
    }
    let vary = Vary::of(headers);
    unknowable(&vary, settings).map_or(Ok(()), Err)?;
    let freshness = freshness(status, headers, &control, settings, requested, received).ok_or(Refusal::NoLifetime)?;
    let lives = freshness.lifetime_ms > freshness.initial_age_ms && !control.no_cache;
    let validates = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
    let stale_use = [control.stale_while_revalidate, control.stale_if_error].into_iter().flatten().any(|seconds| seconds.get() > 0);
    if !(lives || validates || stale_use) {
        return Err(Refusal::Useless);
    }
    if stated_length(headers).is_some_and(|length| length > settings.entry_bytes_max) {
        return Err(Refusal::TooLarge);
    }
    Ok(Storable { control, freshness, vary })
}

/// Why a response is not kept for others, by what it and its request say of that.
pub fn not_for_others(facts: RequestFacts, control: &Control) -> Option<Refusal> {
    if facts.no_store || (control.no_store && !control.must_understand) {
        return Some(Refusal::NoStore);
    }
    if control.private {
        return Some(Refusal::Private);
    }
    // Section 3.5.
    let shared = control.public || control.must_revalidate || control.s_maxage.is_some();
    (facts.authorized && !shared).then_some(Refusal::Authorization)
}

/// Why it is not kept for requests like this one, by what it varies on.
pub fn unknowable(vary: &Vary, settings: &CacheSettings) -> Option<Refusal> {
    match vary {
        Vary::Anything => Some(Refusal::Vary),
        Vary::On(names) if names.iter().any(vary::is_of_one_request) => Some(Refusal::Vary),
        Vary::On(names) if names.iter().any(|name| settings.vary.get(name.as_str()) == Some(&VaryRule::Bypass)) => {
            Some(Refusal::VaryBypass)
        }
        Vary::On(_) | Vary::Nothing => None,
    }
}

/// The length that a message says it has, in bytes; none where it says none, or what is not one number, in digits only (RFC 9112, section 6.3).
pub fn stated_length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let digits = lengths.next().filter(|_| lengths.next().is_none())?.as_bytes();
    // 18 digits are below 2^63.
    let is_number = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// How long a response is fresh: as it says; else as the route says of its status; else by a guess, where one is allowed. None: there is no default lifetime.
pub fn freshness(
    status: StatusCode,
    headers: &HeaderMap,
    control: &Control,
    settings: &CacheSettings,
    requested: Time,
    received: Time,
) -> Option<Freshness> {
    let (lifetime_ms, _) = lifetime(status, headers, control, settings, received)?;
    Some(Freshness::lasting(headers, lifetime_ms, requested, received))
}

/// How long a response is fresh, in milliseconds, and what says so.
pub fn lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    control: &Control,
    settings: &CacheSettings,
    received: Time,
) -> Option<(u64, Source)> {
    let by_status = || settings.status_ttl_s.get(&status.as_u16()).map(|seconds| (u64::from(*seconds) * 1000, Source::RouteStatus));
    let max_ms = u64::from(settings.heuristic_s_max) * 1000;
    let guess = || freshness::heuristic_ms(headers, status, control, received, max_ms).map(|ms| (ms, Source::Heuristic));
    freshness::explicit_ms(headers, control, received).or_else(by_status).or_else(guess)
}

/// Whether the lifetime of a response is a guess: neither it nor the route says one.
pub fn is_guess(status: StatusCode, headers: &HeaderMap, control: &Control, settings: &CacheSettings, received: Time) -> bool {
    matches!(lifetime(status, headers, control, settings, received), None | Some((_, Source::Heuristic)))
}

/// Status codes whose meaning for caches this file knows (RFC 9110, section 15).
fn is_understood(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 302 | 303 | 307 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// What a stale response may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleUse {
    /// Answer now, validate in the background (RFC 5861, section 3).
    pub while_revalidate: bool,
    /// Answer in the place of an upstream that cannot be reached, or gives 500, 502, 503 or 504 (RFC 5861, section 4; RFC 9111, section 4.3.3: a cache may act on such an
    /// answer as if there had been none).
    pub if_error: bool,
    /// Answer a client that says `max-stale` (RFC 9111, section 5.2.1.2).
    pub if_asked: bool,
}

/// What a response that is stale for `stale_ms` may be used for. `undirected_s` is the route's `stale_if_error_s`.
///
/// `must-revalidate`, `proxy-revalidate` and `no-cache` forbid all of it. `s-maxage` forbids it too (RFC 9111, section 5.2.2.10), unless the same response
/// says `stale-while-revalidate` or `stale-if-error`: whoever writes both means both.
pub fn stale_use(control: &Control, stale_ms: u64, undirected_s: u32) -> StaleUse {
    // Beyond any age: a purge says that it must be confirmed first.
    if control.must_revalidate || control.proxy_revalidate || control.no_cache || stale_ms == u64::MAX {
        return StaleUse { while_revalidate: false, if_error: false, if_asked: false };
    }
    let within = |seconds: Option<Seconds>| seconds.is_some_and(|seconds| stale_ms < seconds.ms());
    let undirected = control.s_maxage.is_none() && control.stale_if_error.is_none() && stale_ms < u64::from(undirected_s) * 1000;
    StaleUse {
        while_revalidate: within(control.stale_while_revalidate),
        if_error: within(control.stale_if_error) || undirected,
        if_asked: control.s_maxage.is_none(),
    }
}

/// Whether a fresh response is what a request with these fields wants, as far as the route follows it (RFC 9111, section 5.2.1); else it is to be validated first:
/// `no-cache`, older than `max-age`, or ending before `min-fresh`. RFC 8246 changes nothing here: `immutable` tells clients not to ask, and one that asks all the same
/// means it.
pub fn meets(request: &Control, headers: &HeaderMap, directives: RequestDirectives, age_ms: u64, left_ms: u64) -> bool {
    if directives != RequestDirectives::All {
        return true;
    }
    // Section 5.4: Pragma counts where there is no Cache-Control; a request with both says no-cache in both.
    let pragma_no_cache = headers.get(PRAGMA).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"no-cache"));
    let older = request.max_age.is_some_and(|seconds| age_ms > seconds.ms());
    let ends = request.min_fresh.is_some_and(|seconds| left_ms < seconds.ms());
    !(request.no_cache || pragma_no_cache || older || ends)
}

/// Whether a client takes a response that is stale for `stale_ms`.
pub fn takes_stale(request: &Control, directives: RequestDirectives, stale_ms: u64) -> bool {
    directives != RequestDirectives::None && request.max_stale.is_some_and(|seconds| stale_ms <= seconds.ms())
}

/// Whether RFC 5861, section 4 counts the status as an error that a stale response may stand in for.
pub fn is_upstream_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// Whether a response to this method makes what is stored for its URI invalid: section 4.4, methods that are not known to be safe.
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
        // RFC 5323, RFC 4918 and the QUERY draft: safe by their registration.
        || matches!(method.as_str(), "SEARCH" | "PROPFIND" | "REPORT" | "QUERY");
    !safe && (status.is_success() || status.is_redirection())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::HeaderName;

    const NOW: Time = Time(784_111_777_000);
    const PLAIN: RequestFacts = RequestFacts { no_store: false, authorized: false };

    fn verdict(
        facts: RequestFacts,
        status: u16,
        fields: &[(&'static str, &'static str)],
        settings: &CacheSettings,
    ) -> Result<u64, Refusal> {
        let headers: HeaderMap =
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
        let status = StatusCode::from_u16(status).expect("a status");
        may_store(facts, status, &headers, settings, NOW, NOW).map(|storable| storable.freshness.lifetime_ms / 1000)
    }

    #[test]
    fn responses_are_stored_or_refused_for_a_named_reason() {
        const MAX_AGE: (&str, &str) = ("cache-control", "max-age=60");
        let cc = |value| ("cache-control", value);
        let default = CacheSettings::default();
        #[allow(clippy::type_complexity, reason = "the columns of a table")]
        let cases: &[(u16, &[(&'static str, &'static str)], Result<u64, Refusal>)] = &[
            (200, &[MAX_AGE], Ok(60)),
            (404, &[MAX_AGE], Ok(60)),
            (500, &[MAX_AGE], Ok(60)),
            (299, &[MAX_AGE], Ok(60)),
            (999, &[MAX_AGE], Ok(60)),
            (200, &[], Err(Refusal::NoLifetime)),
            (200, &[("etag", "\"a\"")], Err(Refusal::NoLifetime)),
            (404, &[], Err(Refusal::NoLifetime)),
            (206, &[MAX_AGE], Err(Refusal::Range)),
            (206, &[MAX_AGE, ("content-range", "bytes 0-4/10")], Ok(60)),
            (304, &[MAX_AGE], Err(Refusal::Status)),
            (416, &[MAX_AGE], Err(Refusal::Status)),
            (200, &[cc("no-store, max-age=60")], Err(Refusal::NoStore)),
            (200, &[cc("private, max-age=60")], Err(Refusal::Private)),
            (200, &[cc("max-age=60, private=\"x\"")], Ok(60)),
            (200, &[cc("max-age=60, private=\"set-cookie\""), ("set-cookie", "a=b")], Ok(60)),
            (200, &[cc("max-age=60, private=\"\"")], Err(Refusal::Private)),
            (404, &[("last-modified", "Sun, 06 Nov 1994 08:49:27 GMT")], Ok(1)),
            (403, &[("last-modified", "Sun, 06 Nov 1994 08:49:27 GMT")], Err(Refusal::NoLifetime)),
            (200, &[cc("no-store, must-understand, max-age=60")], Ok(60)),
            (299, &[cc("no-store, must-understand, max-age=60")], Err(Refusal::Status)),
            (200, &[cc("max-age=0")], Err(Refusal::Useless)),
            (200, &[cc("no-cache")], Err(Refusal::Useless)),
            (200, &[cc("no-cache"), ("etag", "\"a\"")], Ok(0)),
            (200, &[cc("max-age=0"), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")], Ok(0)),
            (200, &[cc("max-age=0, stale-while-revalidate=9")], Ok(0)),
            (200, &[MAX_AGE, ("age", "60")], Err(Refusal::Useless)),
            (200, &[MAX_AGE, ("set-cookie", "a=b")], Err(Refusal::SetCookie)),
            (200, &[MAX_AGE, ("vary", "*")], Err(Refusal::Vary)),
            (200, &[MAX_AGE, ("content-length", "99999999999")], Err(Refusal::TooLarge)),
        ];
        for (status, fields, expected) in cases {
            assert_eq!(verdict(PLAIN, *status, fields, &default), *expected, "{status} {fields:?}");
        }
        let negative = CacheSettings { status_ttl_s: [(404, 5), (503, 1)].into(), ..CacheSettings::default() };
        assert_eq!(verdict(PLAIN, 404, &[], &negative), Ok(5));
        assert_eq!(verdict(PLAIN, 503, &[], &negative), Ok(1));
        assert_eq!(verdict(PLAIN, 404, &[MAX_AGE], &negative), Ok(60), "what it says itself comes first");
        assert_eq!(verdict(PLAIN, 404, &[cc("no-store")], &negative), Err(Refusal::NoStore));
        assert_eq!(verdict(PLAIN, 500, &[], &negative), Err(Refusal::NoLifetime));
        let vary = CacheSettings { vary: [("cookie".into(), VaryRule::Bypass)].into(), ..CacheSettings::default() };
        assert_eq!(verdict(PLAIN, 200, &[MAX_AGE, ("vary", "accept, Cookie")], &vary), Err(Refusal::VaryBypass));
        assert_eq!(verdict(PLAIN, 200, &[MAX_AGE, ("vary", "accept")], &vary), Ok(60));
        let cookies = CacheSettings { store_set_cookie: true, ..CacheSettings::default() };
        assert_eq!(verdict(PLAIN, 200, &[MAX_AGE, ("set-cookie", "a=b")], &cookies), Ok(60));
    }

    #[test]
    fn answers_to_authorized_requests_are_stored_only_where_others_may_have_them() {
        let authorized = RequestFacts { authorized: true, no_store: false };
        let stored = |value| verdict(authorized, 200, &[("cache-control", value)], &CacheSettings::default());
        assert_eq!(stored("max-age=60"), Err(Refusal::Authorization));
        assert_eq!(stored("max-age=60, public"), Ok(60));
        assert_eq!(stored("max-age=60, must-revalidate"), Ok(60));
        assert_eq!(stored("s-maxage=60"), Ok(60));
        assert_eq!(
            verdict(RequestFacts { no_store: true, ..PLAIN }, 200, &[("cache-control", "max-age=60")], &CacheSettings::default()),
            Err(Refusal::NoStore)
        );
    }

    #[test]
    fn stale_is_used_only_where_nothing_forbids_it() {
        const DAY_S: u32 = 86_400;
        let read = |line: &'static str, stale_ms| {
            let mut headers = HeaderMap::new();
            headers.insert("cache-control", HeaderValue::from_static(line));
            let allowed = stale_use(&Control::of(&headers), stale_ms, DAY_S);
            (allowed.while_revalidate, allowed.if_error, allowed.if_asked)
        };
        assert_eq!(read("max-age=1", 5_000), (false, true, true));
        assert_eq!(read("max-age=1", u64::from(DAY_S) * 1000), (false, false, true));
        assert_eq!(read("max-age=1, stale-while-revalidate=10", 9_999), (true, true, true));
        assert_eq!(read("max-age=1, stale-while-revalidate=10", 10_000), (false, true, true));
        assert_eq!(read("max-age=1, stale-if-error=10", 9_000), (false, true, true));
        assert_eq!(read("max-age=1, stale-if-error=10", 11_000), (false, false, true));
        assert_eq!(read("s-maxage=1", 5_000), (false, false, false));
        assert_eq!(read("s-maxage=1, stale-while-revalidate=10, stale-if-error=10", 5_000), (true, true, false));
        assert_eq!(read("max-age=1, stale-while-revalidate=10", u64::MAX), (false, false, false), "a purge wants it confirmed");
        assert!(!stale_use(&Control::default(), 0, 0).if_error, "the route serves no stale responses");
        for forbidding in ["must-revalidate", "proxy-revalidate", "no-cache"] {
            let line: &'static str =
                Box::leak(format!("max-age=1, stale-while-revalidate=10, stale-if-error=10, {forbidding}").into_boxed_str());
            assert_eq!(read(line, 0), (false, false, false), "{forbidding}");
        }
    }

    #[test]
    fn requests_are_followed_as_far_as_the_route_says() {
        use RequestDirectives::{All, None as Not, Safe};
        let request =
            |line: &'static str| Control::of(&HeaderMap::from_iter([(http::header::CACHE_CONTROL, HeaderValue::from_static(line))]));
        let newer = |line, directives| !meets(&request(line), &HeaderMap::new(), directives, 5_000, 10_000);
        for line in ["no-cache", "max-age=4", "max-age=0", "min-fresh=11"] {
            assert!(newer(line, All), "{line}");
            assert!(!newer(line, Safe) && !newer(line, Not), "{line} would let any client have the upstream asked");
        }
        assert!(!newer("max-age=5", All) && !newer("min-fresh=10", All) && !newer("", All));
        let pragma = [(PRAGMA, HeaderValue::from_static("No-Cache"))].into_iter().collect();
        assert!(!meets(&request(""), &pragma, All, 0, 1) && meets(&request(""), &pragma, Safe, 0, 1));
        assert!(takes_stale(&request("max-stale=5"), Safe, 5_000) && !takes_stale(&request("max-stale=5"), Safe, 5_001));
        assert!(takes_stale(&request("max-stale"), Safe, 1 << 40));
        assert!(!takes_stale(&request("max-stale"), Not, 1) && !takes_stale(&request(""), All, 1));
    }

    #[test]
    fn reasons_have_names_of_their_own() {
        let names: std::collections::BTreeSet<&str> = Refusal::ALL.iter().map(|refusal| refusal.name()).collect();
        assert_eq!(names.len(), Refusal::ALL.len());
    }

    #[test]
    fn unsafe_methods_invalidate_unless_they_failed() {
        let status = |code| StatusCode::from_u16(code).expect("a status");
        let method = |name: &str| name.parse::<Method>().expect("a method");
        for name in ["POST", "PUT", "DELETE", "PATCH", "MKCOL", "M-SEARCH"] {
            assert!(invalidates(&method(name), status(204)), "{name}");
            assert!(invalidates(&method(name), status(303)), "{name}");
            assert!(!invalidates(&method(name), status(404)), "{name}");
            assert!(!invalidates(&method(name), status(500)), "{name}");
        }
        for name in ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND"] {
            assert!(!invalidates(&method(name), status(200)), "{name}");
        }
    }
}
