//! What may be stored, and what a stored response may be used for: RFC 9111, sections 3 and 4. Pure.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, LAST_MODIFIED, SET_COOKIE};
use http::{Method, StatusCode};
use selvedge_origin::registry::CacheSettings;

use super::control::Control;
use super::freshness::Freshness;
use super::time::Time;
use super::vary::Vary;

/// What of a request decides about storing its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFacts {
    /// It says `no-store`.
    pub no_store: bool,
    /// It carries `Authorization`.
    pub authorized: bool,
}

impl RequestFacts {
    /// Of a request.
    pub fn of(headers: &HeaderMap, control: &Control) -> Self {
        Self { no_store: control.no_store, authorized: headers.contains_key(AUTHORIZATION) }
    }
}

/// Why a response is not stored: a closed list, shown in `Cache-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Partial content, `304`, interim: not a whole response.
    Status,
    /// The request or the response says `no-store`.
    NoStore,
    /// The response is `private`.
    Private,
    /// The request was authorized and the response does not say that others may have it.
    Authorization,
    /// The response sets cookies and the route does not store such.
    SetCookie,
    /// The response varies on anything.
    Vary,
    /// The response does not say how long it is fresh.
    NoLifetime,
    /// It is stale at once, and has nothing to be validated by.
    Useless,
    /// It is larger than the route stores.
    TooLarge,
}

impl Refusal {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::Vary => "vary",
            Self::NoLifetime => "no-lifetime",
            Self::Useless => "no-validator",
            Self::TooLarge => "too-large",
        }
    }

    /// Whether the next request of the same key would be refused too, so that it need not wait for this one.
    pub const fn lasts(self) -> bool {
        !matches!(self, Self::Authorization)
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
    // A `304` answers the client's own condition, `206` is a part: neither is a whole response.
    if status.is_informational() || status == StatusCode::NOT_MODIFIED || status == StatusCode::PARTIAL_CONTENT {
        return Err(Refusal::Status);
    }
    let control = Control::of_response(headers);
    // Section 5.2.2.3: with must-understand, no-store says nothing to a cache that understands the status; others are not stored at all.
    let understood = is_understood(status);
    if control.must_understand && !understood {
        return Err(Refusal::Status);
    }
    if facts.no_store || (control.no_store && !control.must_understand) {
        return Err(Refusal::NoStore);
    }
    if control.private {
        return Err(Refusal::Private);
    }
    // Section 3.5.
    if facts.authorized && !(control.public || control.must_revalidate || control.s_maxage.is_some()) {
        return Err(Refusal::Authorization);
    }
    if headers.contains_key(SET_COOKIE) && !settings.store_set_cookie {
        return Err(Refusal::SetCookie);
    }
    let vary = Vary::of(headers);
    if vary == Vary::Anything {
        return Err(Refusal::Vary);
    }
    let freshness = Freshness::of(headers, &control, requested, received).ok_or(Refusal::NoLifetime)?;
    let lives = freshness.lifetime_ms > freshness.initial_age_ms && !control.no_cache;
    let validates = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
    let stale_use = control.stale_while_revalidate.unwrap_or(0) > 0 || control.stale_if_error.unwrap_or(0) > 0;
    if !(lives || validates || stale_use) {
        return Err(Refusal::Useless);
    }
    let stated = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()).and_then(|length| length.parse::<u64>().ok());
    if stated.is_some_and(|length| length > settings.entry_bytes_max) {
        return Err(Refusal::TooLarge);
    }
    Ok(Storable { control, freshness, vary })
}

/// Status codes whose meaning for caches this file knows (RFC 9110, section 15).
fn is_understood(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 302 | 303 | 307 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// What a stale response may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleUse {
    /// Answer now, validate in the background (RFC 5861, section 3).
    pub while_revalidate: bool,
    /// Answer where the upstream gives 500, 502, 503 or 504 (RFC 5861, section 4).
    pub if_error: bool,
    /// Answer where the upstream cannot be reached (RFC 9111, section 4.2.4).
    pub if_unreachable: bool,
}

/// Without a directive that says how long, a stale response answers for an upstream that is away for at most a day.
pub const STALE_IF_UNREACHABLE_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// What a response that is stale for `stale_ms` may be used for.
///
/// `must-revalidate`, `proxy-revalidate` and `no-cache` forbid all of it. `s-maxage` forbids it too (RFC 9111, section 5.2.2.10), unless the same response
/// says `stale-while-revalidate` or `stale-if-error`: whoever writes both means both.
pub fn stale_use(control: &Control, stale_ms: u64) -> StaleUse {
    if control.must_revalidate || control.proxy_revalidate || control.no_cache {
        return StaleUse { while_revalidate: false, if_error: false, if_unreachable: false };
    }
    let within = |seconds: Option<u64>| seconds.is_some_and(|seconds| stale_ms < seconds.saturating_mul(1000));
    let if_error = within(control.stale_if_error);
    let undirected = control.s_maxage.is_none() && control.stale_if_error.is_none() && stale_ms < STALE_IF_UNREACHABLE_MS_MAX;
    StaleUse { while_revalidate: within(control.stale_while_revalidate), if_error, if_unreachable: if_error || undirected }
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
            (206, &[MAX_AGE], Err(Refusal::Status)),
            (304, &[MAX_AGE], Err(Refusal::Status)),
            (200, &[cc("no-store, max-age=60")], Err(Refusal::NoStore)),
            (200, &[cc("private, max-age=60")], Err(Refusal::Private)),
            (200, &[cc("max-age=60, private=\"x\"")], Err(Refusal::Private)),
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
        let read = |line: &'static str, stale_ms| {
            let mut headers = HeaderMap::new();
            headers.insert("cache-control", HeaderValue::from_static(line));
            let allowed = stale_use(&Control::of(&headers), stale_ms);
            (allowed.while_revalidate, allowed.if_error, allowed.if_unreachable)
        };
        assert_eq!(read("max-age=1", 5_000), (false, false, true));
        assert_eq!(read("max-age=1", STALE_IF_UNREACHABLE_MS_MAX), (false, false, false));
        assert_eq!(read("max-age=1, stale-while-revalidate=10", 9_999), (true, false, true));
        assert_eq!(read("max-age=1, stale-while-revalidate=10", 10_000), (false, false, true));
        assert_eq!(read("max-age=1, stale-if-error=10", 9_000), (false, true, true));
        assert_eq!(read("max-age=1, stale-if-error=10", 11_000), (false, false, false));
        assert_eq!(read("s-maxage=1", 5_000), (false, false, false));
        assert_eq!(read("s-maxage=1, stale-while-revalidate=10, stale-if-error=10", 5_000), (true, true, true));
        for forbidding in ["must-revalidate", "proxy-revalidate", "no-cache"] {
            let line: &'static str =
                Box::leak(format!("max-age=1, stale-while-revalidate=10, stale-if-error=10, {forbidding}").into_boxed_str());
            assert_eq!(read(line, 0), (false, false, false), "{forbidding}");
        }
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
