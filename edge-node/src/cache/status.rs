//! `Cache-Status` of this node: RFC 9211.

use std::fmt::Write;

use bytes::BufMut;
use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};

/// The field.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request went forward: section 2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// The request is not for the cache.
    Bypass,
    /// Its method is not.
    Method,
    /// Nothing is stored for its URI.
    UriMiss,
    /// Something is, but for requests that differ in what the response varies on.
    VaryMiss,
    /// What is stored is stale.
    Stale,
    /// What is stored is a part without what is asked for.
    Partial,
    /// What is stored is fresh, but not fresh enough for the request.
    Request,
}

impl Forward {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Bypass, Self::Method, Self::UriMiss, Self::VaryMiss, Self::Stale, Self::Partial, Self::Request];

    /// Its name in RFC 9211.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale => "stale",
            Self::Partial => "partial",
            Self::Request => "request",
        }
    }
}

/// What a hit or a fetch says beside the parameters that RFC 9211 names, where it is no [`super::policy::Refusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The method has no part in the cache.
    Method,
    /// The request has a body, which may decide about its answer.
    Body,
    /// The request says `no-store`.
    RequestNoStore,
    /// A HEAD that nothing stored answers: it is passed on.
    Head,
    /// Several ranges, or one with `If-Range`, that nothing stored answers: passed on.
    RequestRange,
    /// `If-Match` or `If-Unmodified-Since` that nothing stored fulfils: passed on.
    Precondition,
    /// A stale response, while it is refreshed.
    WhileRevalidate,
    /// A fresh response that is refreshed before it ends.
    EarlyRefresh,
    /// A stale response in the place of an upstream that fails.
    IfError,
    /// A stale response for a client that takes one.
    MaxStale,
    /// The wait for another request's fetch has become too long.
    CollapseWait,
    /// Other requests' fetches have come to nothing for this one, again and again.
    Rounds,
    /// As many fetches run as may.
    Fills,
    /// As many requests follow the fetch as may.
    Waiters,
    /// The fetch went away without an answer.
    Abandoned,
    /// A response whose bytes came from this node's disk.
    Disk,
    /// A stored response in the place of a worker that failed and passes through.
    PassThrough,
    /// A response that is stored unless it proves too large: nobody knows when its head goes out.
    UnknownLength,
}

impl Detail {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Method,
        Self::Body,
        Self::RequestNoStore,
        Self::Head,
        Self::RequestRange,
        Self::Precondition,
        Self::WhileRevalidate,
        Self::EarlyRefresh,
        Self::IfError,
        Self::MaxStale,
        Self::CollapseWait,
        Self::Rounds,
        Self::Fills,
        Self::Waiters,
        Self::Abandoned,
        Self::Disk,
        Self::PassThrough,
        Self::UnknownLength,
    ];

    /// The stable name: a token.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Body => "body",
            Self::RequestNoStore => "request-no-store",
            Self::Head => "head",
            Self::RequestRange => "request-range",
            Self::Precondition => "precondition",
            Self::WhileRevalidate => "stale-while-revalidate",
            Self::EarlyRefresh => "early-refresh",
            Self::IfError => "stale-if-error",
            Self::MaxStale => "max-stale",
            Self::CollapseWait => "collapse-wait",
            Self::Rounds => "rounds",
            Self::Fills => "fills",
            Self::Waiters => "waiters",
            Self::Abandoned => "abandoned",
            Self::Disk => "disk",
            Self::PassThrough => "pass-through",
            Self::UnknownLength => "unknown-length",
        }
    }
}

/// The node's name as a member of the list: a token where it is one, else a string.
#[derive(Debug, Clone)]
pub struct StatusName(Box<str>);

impl StatusName {
    /// Of a node. What cannot be in a structured string becomes `_`.
    pub fn new(node: &str) -> Self {
        let token = node.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if token && node.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Self(node.into());
        }
        let safe: String = node.chars().map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '_' }).collect();
        Self(format!("\"{safe}\"").into())
    }

    /// As it stands in the field, also in `Proxy-Status`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `node; hit; ttl=N`; the seconds are negative for a stale response.
    pub fn hit(&self, ttl_seconds: i64) -> HeaderValue {
        // The one that is made for every hit: no formatter's detours.
        let mut bytes = bytes::BytesMut::with_capacity(self.0.len() + 32);
        bytes.extend_from_slice(self.0.as_bytes());
        bytes.extend_from_slice(b"; hit; ttl=");
        if ttl_seconds < 0 {
            bytes.put_u8(b'-');
        }
        push_decimal(&mut bytes, ttl_seconds.unsigned_abs());
        HeaderValue::from_maybe_shared(bytes.freeze()).unwrap_or(HeaderValue::from_static("hit"))
    }

    /// `node; hit; ttl=N; detail=...`
    pub fn hit_because(&self, ttl_seconds: i64, detail: Detail) -> HeaderValue {
        let text = format!("{}; hit; ttl={ttl_seconds}; detail={}", self.0, detail.name());
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("hit"))
    }

    /// `node; fwd=WHY; fwd-status=N; stored; collapsed; detail="..."`
    pub fn forward(
        &self,
        why: Forward,
        status: Option<http::StatusCode>,
        stored: bool,
        collapsed: bool,
        detail: Option<&str>,
    ) -> HeaderValue {
        let mut text = String::with_capacity(self.0.len() + 64);
        let _ = write!(text, "{}; fwd={}", self.0, why.name());
        if let Some(status) = status {
            let _ = write!(text, "; fwd-status={}", status.as_u16());
        }
        if stored {
            text.push_str("; stored");
        }
        if collapsed {
            text.push_str("; collapsed");
        }
        if let Some(detail) = detail {
            let _ = write!(text, "; detail={detail}");
        }
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("fwd"))
    }
}

/// Writes a number as it is read.
pub(super) fn push_decimal(out: &mut impl BufMut, number: u64) {
    let (mut digits, mut at, mut rest) = ([0_u8; 20], 20, number);
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + (rest % 10) as u8;
        }
        rest /= 10;
        if rest == 0 || at == 0 {
            return out.put_slice(digits.get(at..).unwrap_or_default());
        }
    }
}

/// Puts our member after those of caches nearer to the upstream (section 2).
pub fn add(headers: &mut HeaderMap, ours: HeaderValue) {
    headers.append(CACHE_STATUS, ours);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_structured_fields() {
        let node = StatusName::new("edge-1");
        assert_eq!(node.hit(60), "edge-1; hit; ttl=60");
        assert_eq!(node.hit(-5), "edge-1; hit; ttl=-5");
        assert_eq!(node.hit(0), "edge-1; hit; ttl=0");
        let full = node.forward(Forward::Stale, Some(http::StatusCode::NOT_MODIFIED), true, true, Some("late"));
        assert_eq!(full, "edge-1; fwd=stale; fwd-status=304; stored; collapsed; detail=late");
        for name in ["edge-1", "1-edge", "a \"b\"", ""] {
            let value = StatusName::new(name).hit(1);
            assert!(sfv::Parser::new(value.as_bytes()).parse::<sfv::List>().is_ok(), "{value:?}");
        }
    }

    #[test]
    fn details_are_tokens_of_their_own() {
        let names: std::collections::BTreeSet<&str> = Detail::ALL.iter().map(|detail| detail.name()).collect();
        assert_eq!(names.len(), Detail::ALL.len());
        for detail in Detail::ALL {
            let value = StatusName::new("n").hit_because(-1, detail);
            assert_eq!(value, format!("n; hit; ttl=-1; detail={}", detail.name()));
            assert!(sfv::Parser::new(value.as_bytes()).parse::<sfv::List>().is_ok(), "{value:?}");
        }
    }

    #[test]
    fn ours_comes_after_those_of_nearer_caches() {
        let mut headers = HeaderMap::new();
        add(&mut headers, HeaderValue::from_static("a; hit"));
        add(&mut headers, HeaderValue::from_static("b; hit"));
        assert_eq!(headers.get_all(CACHE_STATUS).iter().collect::<Vec<_>>(), ["a; hit", "b; hit"]);
    }
}
