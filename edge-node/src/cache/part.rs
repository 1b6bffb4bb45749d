//! A part of a representation, stored: which bytes of it there are, which requests they answer, what is missing, and how two parts become one. RFC 9111, sections 3.3
//! and 3.4; RFC 9110, section 14.4. Pure.

use std::ops::Range;

use http::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue};

use super::lines::Lines;
use super::range::{self, Selected};
use super::validate::strong_date;

/// Where the bytes of a stored part lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Number of its first byte.
    pub first: u64,
    /// Bytes of the whole representation, where that is known.
    pub total: Option<u64>,
}

/// `Content-Range` of a `206` with one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// Number of its first byte.
    pub first: u64,
    /// Number of its last byte.
    pub last: u64,
    /// Bytes of the whole, where that is known.
    pub total: Option<u64>,
}

impl ContentRange {
    /// Of a response; none where it is not exactly one range of bytes that lies inside the whole.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(CONTENT_RANGE).iter();
        let (only, None) = (lines.next()?, lines.next()) else { return None };
        let text = only.to_str().ok()?;
        let (unit, rest) = text.split_once(' ')?;
        let (range, total) = rest.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        let total = if total == "*" { None } else { Some(number(total)?) };
        let inside = first <= last && last < u64::MAX && total.is_none_or(|total| last < total);
        (unit.eq_ignore_ascii_case("bytes") && inside).then_some(Self { first, last, total })
    }

    /// Bytes that it says there are.
    pub fn bytes(&self) -> u64 {
        self.last - self.first + 1
    }
}

impl Part {
    /// Of a response whose body has `len` bytes. These are as many as `Content-Range` says (RFC 9110, section 14.4), or it was cut, and is not to be trusted. But for one
    /// that upstreams were seen to send who count one too many: the end of the whole, one byte shorter. Never where it would be all there is: that goes to everybody.
    pub fn of(range: ContentRange, len: u64) -> Option<Self> {
        let ContentRange { first, last, total } = range;
        match len {
            0 => None,
            len if len == range.bytes() => Some(Self { first, total }),
            len if first > 0 && len + 1 == range.bytes() && total == Some(last + 1) => Some(Self { first, total: Some(last) }),
            _ => None,
        }
    }

    /// Its bytes, as numbers in the whole.
    pub fn bytes(&self, len: u64) -> Range<u64> {
        self.first..self.first.saturating_add(len)
    }

    /// Whether it is all there is.
    pub fn is_whole(&self, len: u64) -> bool {
        self.first == 0 && self.total == Some(len)
    }

    /// The bytes that a request with this `Range` gets of it, as numbers in the whole. None: they are not all here.
    pub fn answers(&self, range: Option<&HeaderValue>, len: u64) -> Option<Range<u64>> {
        let here = self.bytes(len);
        let wanted = match self.total {
            Some(total) => match range::select(range, total) {
                Selected::Part(wanted) => wanted,
                _ => return None,
            },
            // Without a length only a range with both ends is known to be inside.
            None => match range::select(range, u64::MAX) {
                Selected::Part(wanted) if wanted.end < u64::MAX => wanted,
                _ => return None,
            },
        };
        (here.start <= wanted.start && wanted.end <= here.end).then_some(wanted)
    }

    /// `Range` of a request for what is missing, where one range can be it.
    pub fn missing(&self, len: u64) -> Option<Missing> {
        let here = self.bytes(len);
        match self.total {
            Some(total) if here.start == 0 && here.end < total => Some(Missing::End(here.end)),
            Some(total) if here.start > 0 && here.end == total => Some(Missing::Start(here.start)),
            _ => None,
        }
    }
}

/// What a part lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// All from this byte on.
    End(u64),
    /// All before this byte.
    Start(u64),
}

impl Missing {
    /// As `Range`.
    pub fn range(self) -> Option<HeaderValue> {
        let text = match self {
            Self::End(from) => format!("bytes={from}-"),
            Self::Start(before) => format!("bytes=0-{}", before.saturating_sub(1)),
        };
        HeaderValue::from_str(&text).ok()
    }

    /// Whether this is what the response brings, all of it.
    pub fn is(self, range: ContentRange, total: Option<u64>) -> bool {
        range.total == total
            && match self {
                Self::End(from) => range.first == from && total == Some(range.last + 1),
                Self::Start(before) => range.first == 0 && range.last + 1 == before,
            }
    }
}

/// The validator by which parts may be put together: a strong tag, or a date that is strong (RFC 9110, sections 8.8.1 and 8.8.2.2).
pub fn strong_validator(headers: &impl Lines) -> Option<&[u8]> {
    if let Some(tag) = headers.first(&ETAG) {
        return tag.starts_with(b"\"").then_some(tag);
    }
    strong_date(headers)
}

/// Whether both are of one representation (RFC 9111, section 3.4): they share a strong validator.
pub fn same_representation(one: &impl Lines, other: &impl Lines) -> bool {
    strong_validator(one).is_some_and(|validator| strong_validator(other) == Some(validator))
}

/// Whether two parts overlap or touch: there is no gap.
pub fn touch(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start <= other.end && other.start <= one.end
}

fn number(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.bytes().all(|b| b.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// For tests/fuzz: what is answered lies inside of what is there.
pub fn fuzz(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let headers: HeaderMap = [(CONTENT_RANGE, value)].into_iter().collect();
    let Some(range) = ContentRange::of(&headers) else { return };
    assert!(range.first <= range.last && range.total.is_none_or(|total| range.last < total));
    for len in [1, range.bytes() / 2, range.bytes()] {
        let Some(part) = Part::of(range, len) else { continue };
        for asked in ["bytes=0-", "bytes=-1", "bytes=5-9", "bytes=1-1"] {
            if let Some(wanted) = part.answers(Some(&HeaderValue::from_static(asked)), len) {
                assert!(part.first <= wanted.start && wanted.start < wanted.end && wanted.end <= part.first + len);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::headers;

    fn read(text: &'static str) -> Option<ContentRange> {
        ContentRange::of(&headers(&[("content-range", text)]))
    }

    #[test]
    fn content_range_is_one_range_inside_the_whole() {
        assert_eq!(read("bytes 2-4/10"), Some(ContentRange { first: 2, last: 4, total: Some(10) }));
        assert_eq!(read("Bytes 0-0/*"), Some(ContentRange { first: 0, last: 0, total: None }));
        for bad in [
            "bytes 4-2/10",
            "bytes 2-10/10",
            "bytes */10",
            "lines 1-2/3",
            "bytes=1-2/3",
            "bytes 1-2",
            "bytes -1-2/3",
            "bytes 0-99999999999999999999/*",
            "",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let mut twice = headers(&[("content-range", "bytes 0-1/3")]);
        twice.append(CONTENT_RANGE, HeaderValue::from_static("bytes 0-1/3"));
        assert_eq!(ContentRange::of(&twice), None);
    }

    #[test]
    fn a_part_is_what_has_come_not_what_was_said() {
        let of = |text, len| read(text).and_then(|range| Part::of(range, len));
        assert_eq!(of("bytes 4-8/10", 5), Some(Part { first: 4, total: Some(10) }));
        assert_eq!(of("bytes 4-9/10", 5), Some(Part { first: 4, total: Some(9) }), "the end was one too many");
        assert_eq!(of("bytes 4-9/10", 4), None, "the end was cut");
        assert_eq!(of("bytes 0-999/1000", 500), None, "half of it is not the whole");
        assert_eq!(of("bytes 0-999/1000", 999), None, "nor is all but one");
        assert_eq!(of("bytes 4-8/10", 4), None, "cut in the middle");
        assert_eq!(of("bytes 4-8/10", 6), None, "more than said");
        assert_eq!(of("bytes 4-8/*", 4), None);
    }

    #[test]
    fn a_part_answers_ranges_inside_it() {
        let part = Part { first: 4, total: Some(9) };
        let answers = |text| part.answers(Some(&HeaderValue::from_static(text)), 5);
        assert_eq!(answers("bytes=-5"), Some(4..9));
        assert_eq!(answers("bytes=6-8"), Some(6..9));
        assert_eq!(answers("bytes=6-"), Some(6..9));
        assert_eq!(answers("bytes=-1"), Some(8..9));
        for outside in ["bytes=3-5", "bytes=0-", "bytes=-6", "bytes=9-", "bytes=4-5,7-8"] {
            assert_eq!(answers(outside), None, "{outside}");
        }
        assert_eq!(part.answers(None, 5), None);
        let open = Part { first: 4, total: None };
        assert_eq!(open.answers(Some(&HeaderValue::from_static("bytes=5-6")), 5), Some(5..7));
        assert_eq!(open.answers(Some(&HeaderValue::from_static("bytes=5-")), 5), None);
        assert_eq!(open.answers(Some(&HeaderValue::from_static("bytes=-1")), 5), None);
    }

    #[test]
    fn what_is_missing_is_asked_for_by_one_range() {
        let missing = |first, total, len| Part { first, total }.missing(len).and_then(Missing::range);
        assert_eq!(missing(0, Some(10), 5), Some(HeaderValue::from_static("bytes=5-")));
        assert_eq!(missing(5, Some(10), 5), Some(HeaderValue::from_static("bytes=0-4")));
        assert_eq!(missing(3, Some(10), 5), None, "two gaps");
        assert_eq!(missing(0, None, 5), None);
        assert!(Missing::End(5).is(ContentRange { first: 5, last: 9, total: Some(10) }, Some(10)));
        assert!(!Missing::End(5).is(ContentRange { first: 5, last: 8, total: Some(10) }, Some(10)), "not all of it");
        assert!(!Missing::End(5).is(ContentRange { first: 5, last: 10, total: Some(11) }, Some(10)), "of another length");
        assert!(Missing::Start(5).is(ContentRange { first: 0, last: 4, total: Some(10) }, Some(10)));
    }

    #[test]
    fn parts_are_put_together_only_by_a_strong_validator() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let tagged = headers(&[("etag", "\"a\"")]);
        assert!(same_representation(&tagged, &headers(&[("etag", "\"a\""), date])));
        assert!(!same_representation(&tagged, &headers(&[("etag", "\"b\"")])));
        assert!(!same_representation(&headers(&[("etag", "W/\"a\"")]), &headers(&[("etag", "W/\"a\"")])));
        assert!(!same_representation(&headers(&[]), &headers(&[])));
        let dated = headers(&[("last-modified", "Sun, 06 Nov 1994 08:49:36 GMT"), date]);
        assert!(same_representation(&dated, &dated));
        let fresh = headers(&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), date]);
        assert!(!same_representation(&fresh, &fresh), "changed in the second of the response");
        assert!(touch(&(0..5), &(5..9)) && touch(&(0..5), &(3..9)) && touch(&(3..5), &(0..9)));
        assert!(!touch(&(0..5), &(6..9)) && !touch(&(6..9), &(0..5)));
    }
}
