//! Conditions, both ways: those that we ask an upstream by, and those that clients ask us by. RFC 9110, section 13; RFC 9111, section 4.3. Pure.

use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, TRAILER, TRANSFER_ENCODING,
};

use super::date::parse_date;
use super::lines::Lines;
use super::time::Time;

/// Fields by which a client asks only for what it does not have. A fill asks for all of it.
const CONDITIONS: [HeaderName; 6] = [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_MATCH, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE];

/// Makes a client's fields those of a fill: without conditions and ranges.
pub fn ask_for_all(request: &mut HeaderMap) {
    for name in CONDITIONS {
        request.remove(name);
    }
}

/// Makes a client's fields those of a fill that validates a stored response with these fields.
pub fn ask_since(request: &mut HeaderMap, stored: &impl Lines) {
    ask_for_all(request);
    for (condition, validator) in [(IF_NONE_MATCH, ETAG), (IF_MODIFIED_SINCE, LAST_MODIFIED)] {
        if let Some(value) = stored.first(&validator).and_then(|value| HeaderValue::from_bytes(value).ok()) {
            request.insert(condition, value);
        }
    }
}

/// Whether a `304` to our own condition speaks of the stored response (RFC 9111, section 4.3.4): tags that both have must agree; without one it must not have been changed
/// after the stored one was. (An upstream of several servers may say an earlier date for the same bytes.)
pub fn confirms(not_modified: &HeaderMap, stored: &impl Lines) -> bool {
    if let (Some(told), Some(stored)) = (not_modified.first(&ETAG), stored.first(&ETAG)) {
        return weakly_equal(told, stored);
    }
    let modified = [not_modified.first(&LAST_MODIFIED), stored.first(&LAST_MODIFIED)].map(|date| date.and_then(parse_date));
    !matches!(modified, [Some(told), Some(stored)] if told > stored)
}

/// The stored fields with those of a `304` (RFC 9111, section 3.2): each that is there replaces all stored ones of its name, but for those that describe the stored
/// bytes.
pub fn freshen(stored: &mut HeaderMap, not_modified: &HeaderMap) {
    const KEPT: [HeaderName; 9] = [
        CONNECTION,
        TRANSFER_ENCODING,
        TRAILER,
        CONTENT_LENGTH,
        CONTENT_ENCODING,
        CONTENT_RANGE,
        ETAG,
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("content-md5"),
    ];
    for name in not_modified.keys().filter(|name| !KEPT.contains(name)) {
        let mut values = not_modified.get_all(name).iter();
        if let Some(first) = values.next() {
            stored.insert(name, first.clone());
        }
        for value in values {
            stored.append(name, value.clone());
        }
    }
}

/// Whether a GET or HEAD with these fields is answered by `304` from a response with those (RFC 9110, section 13.2.2, steps 3 and 4): whether the client has what
/// it would get.
pub fn client_has(request: &HeaderMap, stored: &impl Lines) -> bool {
    let mut tags = request.get_all(IF_NONE_MATCH).iter().peekable();
    if tags.peek().is_some() {
        let stored = stored.first(&ETAG);
        return tags.any(|line| names_tag(line.as_bytes(), stored));
    }
    let Some(since) = only_date(request, &IF_MODIFIED_SINCE) else { return false };
    modified(stored).is_some_and(|modified| modified <= since)
}

/// The date of a condition. One that is none, or is there more than once, is ignored (RFC 9110, sections 13.1.3 and 13.1.4).
fn only_date(request: &HeaderMap, name: &HeaderName) -> Option<Time> {
    let mut lines = request.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none()).and_then(parse_date)
}

/// When a stored response was last changed; one that does not say it, not after its `Date` (RFC 9111, section 4.3.2).
fn modified(stored: &impl Lines) -> Option<Time> {
    stored.first(&LAST_MODIFIED).or(stored.first(&DATE)).and_then(parse_date)
}

/// Whether a client asks on a condition that only the upstream can find unfulfilled: what is stored may be older than what is there.
pub fn has_precondition(request: &HeaderMap) -> bool {
    request.contains_key(IF_MATCH) || request.contains_key(IF_UNMODIFIED_SINCE)
}

/// Whether a stored response fulfils `If-Match` and `If-Unmodified-Since` (RFC 9110, section 13.2.2, steps 1 and 2). Where it does not, the upstream is asked: it may have
/// what the client means.
pub fn fulfils(request: &HeaderMap, stored: &impl Lines) -> bool {
    let mut tags = request.get_all(IF_MATCH).iter().peekable();
    if tags.peek().is_some() {
        let strong = stored.first(&ETAG).filter(|tag| tag.starts_with(b"\""));
        return tags.any(|line| line.as_bytes().trim_ascii() == b"*" || strong.is_some_and(|strong| names_strong(line.as_bytes(), strong)));
    }
    let Some(unless) = only_date(request, &IF_UNMODIFIED_SINCE) else { return true };
    stored.first(&LAST_MODIFIED).and_then(parse_date).is_some_and(|modified| modified <= unless)
}

/// Whether a `200` to HEAD speaks of the stored response to GET (RFC 9111, section 4.3.5): what both say of the bytes is the same.
pub fn head_confirms(head: &HeaderMap, stored: &impl Lines) -> bool {
    [ETAG, LAST_MODIFIED, CONTENT_LENGTH, CONTENT_ENCODING].iter().all(|name| match (head.first(name), stored.first(name)) {
        (Some(head), Some(stored)) => head == stored,
        // A tag or a length that only one of them has says nothing; a coding does.
        (None, None) => true,
        _ => *name != CONTENT_ENCODING,
    })
}

/// Whether `If-Range` lets a range of the response be sent (RFC 9110, section 13.1.5): a strong tag, or the exact date of a response that is not weaker than it.
pub fn range_applies(request: &HeaderMap, stored: &impl Lines) -> bool {
    let Some(condition) = request.get(IF_RANGE).map(HeaderValue::as_bytes) else { return true };
    if condition.starts_with(b"\"") {
        return stored.first(&ETAG).is_some_and(|tag| tag == condition);
    }
    if condition.starts_with(b"W/") {
        return false;
    }
    strong_date(stored).is_some_and(|modified| modified == condition)
}

/// `Last-Modified` where it is strong: at least a second before the response's own date (section 8.8.2.2).
pub(super) fn strong_date(headers: &impl Lines) -> Option<&[u8]> {
    let modified = headers.first(&LAST_MODIFIED)?;
    let date = headers.first(&DATE).and_then(parse_date)?;
    (date.ms_since(parse_date(modified)?) >= 1000).then_some(modified)
}

/// Whether a line of `If-Match` names the tag (strong comparison, section 8.8.3.2).
fn names_strong(line: &[u8], stored: &[u8]) -> bool {
    tags(line).any(|tag| tag == stored)
}

/// Whether a line of `If-None-Match` names the tag (weak comparison), or is `*`.
fn names_tag(line: &[u8], stored: Option<&[u8]>) -> bool {
    line.trim_ascii() == b"*" || stored.is_some_and(|stored| tags(line).any(|tag| weakly_equal(tag, stored)))
}

/// The entity tags of a list, up to the first that is none.
fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line.trim_ascii();
    std::iter::from_fn(move || {
        let weak = if rest.starts_with(b"W/") { 2 } else { 0 };
        let opened = rest.get(weak..)?.strip_prefix(b"\"")?;
        let close = opened.iter().position(|b| *b == b'"')?;
        let (tag, after) = rest.split_at_checked(weak + close + 2)?;
        let after = after.trim_ascii_start();
        rest = after.strip_prefix(b",").unwrap_or_default().trim_ascii_start();
        Some(tag)
    })
}

fn weakly_equal(a: &[u8], b: &[u8]) -> bool {
    a.strip_prefix(b"W/").unwrap_or(a) == b.strip_prefix(b"W/").unwrap_or(b)
}

/// For tests/fuzz: any bytes as conditions.
pub fn fuzz(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut stored = HeaderMap::new();
    stored.insert(ETAG, HeaderValue::from_static("\"a\""));
    stored.insert(LAST_MODIFIED, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE, IF_MATCH, IF_UNMODIFIED_SINCE] {
        let request: HeaderMap = [(name, value.clone())].into_iter().collect();
        let _ = client_has(&request, &stored);
        let _ = fulfils(&request, &stored);
        let _ = range_applies(&request, &stored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::headers;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn a_client_has_what_its_tags_or_its_date_name() {
        #[allow(clippy::type_complexity, reason = "the columns of a table")]
        let cases: &[(&[(&'static str, &'static str)], &[(&'static str, &'static str)], bool)] = &[
            (&[("if-none-match", "\"a\"")], &[("etag", "\"a\"")], true),
            (&[("if-none-match", "W/\"a\"")], &[("etag", "\"a\"")], true),
            (&[("if-none-match", "\"a\"")], &[("etag", "W/\"a\"")], true),
            (&[("if-none-match", "\"x\", \"a\"")], &[("etag", "\"a\"")], true),
            (&[("if-none-match", "\"x\""), ("if-none-match", "\"a\"")], &[("etag", "\"a\"")], true),
            (&[("if-none-match", "\"x,\\\", \"a\"")], &[("etag", "\"a\"")], true),
            (&[("if-none-match", "\"b\"")], &[("etag", "\"a\"")], false),
            (&[("if-none-match", "a")], &[("etag", "\"a\"")], false),
            (&[("if-none-match", "*")], &[("etag", "\"a\"")], true),
            (&[("if-none-match", "*")], &[], true),
            (&[("if-none-match", "\"a\"")], &[], false),
            (&[("if-none-match", "\"b\""), ("if-modified-since", DATE)], &[("etag", "\"a\""), ("last-modified", DATE)], false),
            (&[("if-modified-since", DATE)], &[("last-modified", DATE)], true),
            (&[("if-modified-since", DATE)], &[("last-modified", "Sun, 06 Nov 1994 08:49:38 GMT")], false),
            (&[("if-modified-since", "yesterday")], &[("last-modified", DATE)], false),
            (&[("if-modified-since", DATE)], &[], false),
            (&[("if-modified-since", DATE), ("if-modified-since", DATE)], &[("last-modified", DATE)], false),
            (&[], &[("etag", "\"a\"")], false),
        ];
        for (request, stored, expected) in cases {
            assert_eq!(client_has(&headers(request), &headers(stored)), *expected, "{request:?} {stored:?}");
        }
    }

    #[test]
    fn without_last_modified_a_response_is_as_old_as_its_date() {
        let stored = headers(&[("date", DATE)]);
        assert!(client_has(&headers(&[("if-modified-since", DATE)]), &stored));
        assert!(!client_has(&headers(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")]), &stored));
    }

    #[test]
    fn preconditions_are_fulfilled_by_strong_tags_and_dates_or_left_to_the_upstream() {
        let stored = headers(&[("etag", "\"a\""), ("last-modified", DATE)]);
        let fulfilled = |name, value| fulfils(&headers(&[(name, value)]), &stored);
        assert!(fulfilled("if-match", "\"x\", \"a\"") && fulfilled("if-match", "*"));
        assert!(!fulfilled("if-match", "W/\"a\"") && !fulfilled("if-match", "\"b\""));
        assert!(fulfilled("if-unmodified-since", DATE) && !fulfilled("if-unmodified-since", "Sun, 06 Nov 1994 08:49:36 GMT"));
        assert!(fulfilled("accept", "*/*"));
        let twice = headers(&[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:36 GMT"), ("if-unmodified-since", DATE)]);
        assert!(fulfils(&twice, &stored), "of two dates neither counts");
        assert!(!fulfils(&headers(&[("if-match", "\"a\"")]), &headers(&[("etag", "W/\"a\"")])));
    }

    #[test]
    fn an_answer_to_head_speaks_of_what_is_stored_where_nothing_differs() {
        let stored = headers(&[("etag", "\"a\""), ("content-length", "5")]);
        assert!(head_confirms(&headers(&[("etag", "\"a\""), ("content-length", "5")]), &stored));
        assert!(head_confirms(&headers(&[]), &stored));
        for other in [("etag", "\"b\""), ("content-length", "6"), ("content-encoding", "gzip")] {
            assert!(!head_confirms(&headers(&[other]), &stored), "{other:?}");
        }
    }

    #[test]
    fn a_fill_asks_by_the_stored_validators_only() {
        let mut request = headers(&[("if-none-match", "\"client\""), ("range", "bytes=0-1"), ("if-match", "\"x\""), ("accept", "*/*")]);
        ask_since(&mut request, &headers(&[("etag", "\"a\""), ("last-modified", DATE)]));
        assert_eq!(request, headers(&[("if-none-match", "\"a\""), ("accept", "*/*"), ("if-modified-since", DATE)]));
        ask_for_all(&mut request);
        assert_eq!(request, headers(&[("accept", "*/*")]));
    }

    #[test]
    fn a_304_without_a_tag_confirms_and_one_with_another_does_not() {
        let stored = headers(&[("etag", "\"a\"")]);
        assert!(confirms(&headers(&[]), &stored));
        assert!(confirms(&headers(&[("etag", "W/\"a\"")]), &stored));
        assert!(!confirms(&headers(&[("etag", "\"b\"")]), &stored));
    }

    #[test]
    fn a_304_that_was_changed_later_speaks_of_another_response() {
        let stored = headers(&[("last-modified", DATE)]);
        let by = |modified| confirms(&headers(&[("last-modified", modified)]), &stored);
        assert!(by(DATE) && by("Sun, 06 Nov 1994 08:49:36 GMT") && by("yesterday") && confirms(&headers(&[]), &stored));
        assert!(!by("Sun, 06 Nov 1994 08:49:38 GMT"));
        let tagged = headers(&[("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:38 GMT")]);
        assert!(confirms(&tagged, &headers(&[("etag", "\"a\""), ("last-modified", DATE)])), "the tag is the better witness");
    }

    #[test]
    fn freshening_replaces_fields_but_not_those_of_the_bytes() {
        let mut stored = headers(&[("x-a", "1"), ("x-a", "2"), ("content-length", "9"), ("content-type", "a/b"), ("x-b", "1")]);
        freshen(
            &mut stored,
            &headers(&[("x-a", "3"), ("content-length", "0"), ("content-encoding", "gzip"), ("cache-control", "max-age=5")]),
        );
        assert_eq!(
            stored,
            headers(&[("x-a", "3"), ("content-length", "9"), ("content-type", "a/b"), ("x-b", "1"), ("cache-control", "max-age=5")])
        );
    }

    #[test]
    fn if_range_needs_a_strong_validator() {
        let stored = headers(&[("etag", "\"a\""), ("last-modified", DATE), ("date", "Sun, 06 Nov 1994 08:49:38 GMT")]);
        let applies = |value| range_applies(&headers(&[("if-range", value)]), &stored);
        assert!(applies("\"a\"") && applies(DATE));
        assert!(!applies("\"b\"") && !applies("W/\"a\"") && !applies("Sun, 06 Nov 1994 08:49:36 GMT"));
        assert!(range_applies(&headers(&[]), &stored));
        assert!(!range_applies(&headers(&[("if-range", DATE)]), &headers(&[("last-modified", DATE), ("date", DATE)])));
    }
}
