//! A large representation in slices of one length: each is fetched by a range, stored and found for itself. Pure.
//!
//! The first slice stands under the key of the whole, and says what the whole is: how long, and by which strong validator it is known. The others are named by that
//! validator, so that slices of two representations never meet (RFC 9110, section 15.3.7.3: parts are put together by a strong validator only).

use std::ops::Range;

use http::StatusCode;
use http::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};

use super::key::CacheKey;
use super::lines::Lines;
use super::part::{ContentRange, Part, strong_validator};

/// What slices are slices of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Its length in bytes.
    pub total: u64,
    validator: Box<[u8]>,
    coding: Option<Box<[u8]>>,
}

/// One slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    number: u64,
    /// The length of every slice but the last, in bytes.
    length: u64,
    /// Of the first one it is not known yet.
    of: Option<Whole>,
}

impl Whole {
    /// What the answer to a request for the first slice says; none where it is not that, or where nothing tells one representation from the next.
    pub fn of(status: StatusCode, headers: &HeaderMap, length: u64) -> Option<Self> {
        let range = ContentRange::of(headers).filter(|range| status == StatusCode::PARTIAL_CONTENT && range.first == 0)?;
        let total = range.total.filter(|total| range.bytes() == length.min(*total))?;
        Self::told(total, headers)
    }

    /// What the stored first slice, of so many bytes, says; none where others could not be told from those of another representation.
    pub fn of_stored(part: Option<Part>, fields: &impl Lines, length: u64) -> Option<Self> {
        let total = match part {
            None => length,
            Some(part) => part.total.filter(|_| part.first == 0)?,
        };
        Self::told(total, fields)
    }

    fn told(total: u64, fields: &impl Lines) -> Option<Self> {
        let coding = fields.first(&CONTENT_ENCODING).map(Into::into);
        Some(Self { total, validator: strong_validator(fields)?.into(), coding })
    }

    /// All slices, in order.
    pub fn slices(&self, length: u64) -> impl ExactSizeIterator<Item = Slice> {
        let count = usize::try_from(self.total.div_ceil(length.max(1))).unwrap_or(usize::MAX);
        (0..count).map(move |number| Slice { number: number as u64, length, of: Some(self.clone()) })
    }

    /// The slice with this byte.
    pub fn slice_at(&self, byte: u64, length: u64) -> Slice {
        Slice { number: byte / length.max(1), length, of: Some(self.clone()) }
    }
}

impl Slice {
    /// The first one, of what is not known yet.
    pub fn first(length: u64) -> Self {
        Self { number: 0, length, of: None }
    }

    /// Its bytes, as numbers in the whole.
    pub fn bytes(&self) -> Range<u64> {
        let start = self.number.saturating_mul(self.length);
        let end = start.saturating_add(self.length);
        start..self.of.as_ref().map_or(end, |of| end.min(of.total))
    }

    /// As `Range`.
    pub fn range(&self) -> HeaderValue {
        let Range { start, end } = self.bytes();
        HeaderValue::from_str(&format!("bytes={start}-{}", end.saturating_sub(1))).unwrap_or(HeaderValue::from_static("bytes=0-0"))
    }

    /// Under which key it is stored, where this is the key of the whole.
    pub fn key(&self, whole: CacheKey) -> CacheKey {
        match &self.of {
            Some(of) if self.number > 0 => whole.of_slice(self.number, self.length, &of.validator),
            _ => whole,
        }
    }

    /// Whether a response may be stored as this: for the first one other rules decide.
    pub fn admits(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        self.number == 0 || self.is(status, headers)
    }

    /// Whether a response is this slice, of this whole.
    pub fn is(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let Some(of) = &self.of else { return false };
        let (bytes, range) = (self.bytes(), ContentRange::of(headers));
        status == StatusCode::PARTIAL_CONTENT
            && range.is_some_and(|range| {
                range.first == bytes.start && range.last.saturating_add(1) == bytes.end && range.total == Some(of.total)
            })
            && strong_validator(headers) == Some(&*of.validator)
            && headers.first(&CONTENT_ENCODING) == of.coding.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::Space;
    use crate::cache::tests::headers;

    fn fields(range: &'static str, tag: &'static str) -> HeaderMap {
        headers(&[("content-range", range), ("etag", tag)])
    }

    fn whole() -> Whole {
        Whole::of(StatusCode::PARTIAL_CONTENT, &fields("bytes 0-9/25", "\"a\""), 10).expect("a whole")
    }

    #[test]
    fn the_first_slice_says_what_the_whole_is() {
        let of = |status, range, tag| Whole::of(status, &fields(range, tag), 10).map(|whole| whole.total);
        assert_eq!(of(StatusCode::PARTIAL_CONTENT, "bytes 0-9/25", "\"a\""), Some(25));
        assert_eq!(of(StatusCode::PARTIAL_CONTENT, "bytes 0-4/5", "\"a\""), Some(5), "there is only one");
        for (range, tag) in [("bytes 0-9/*", "\"a\""), ("bytes 0-8/25", "\"a\""), ("bytes 1-10/25", "\"a\""), ("bytes 0-9/25", "W/\"a\"")] {
            assert_eq!(of(StatusCode::PARTIAL_CONTENT, range, tag), None, "{range} {tag}");
        }
        assert_eq!(of(StatusCode::OK, "bytes 0-9/25", "\"a\""), None);
    }

    #[test]
    fn a_stored_first_slice_names_all_the_others() {
        let fields = fields("", "\"a\"");
        let whole = Whole::of_stored(Some(Part { first: 0, total: Some(25) }), &fields, 10).expect("a whole");
        let slices: Vec<Slice> = whole.slices(10).collect();
        assert_eq!(slices, [0, 10, 20].map(|byte| whole.slice_at(byte, 10)));
        assert_eq!(Whole::of_stored(None, &fields, 7).expect("a whole").slices(10).len(), 1, "there is only one");
        for part in [Part { first: 0, total: None }, Part { first: 10, total: Some(25) }] {
            assert_eq!(Whole::of_stored(Some(part), &fields, 10), None);
        }
    }

    #[test]
    fn slices_have_one_length_but_for_the_last() {
        let (whole, range) = (whole(), |slice: Slice| slice.range().to_str().expect("text").to_owned());
        assert_eq!(range(Slice::first(10)), "bytes=0-9");
        assert_eq!(range(whole.slice_at(19, 10)), "bytes=10-19");
        assert_eq!(range(whole.slice_at(20, 10)), "bytes=20-24");
    }

    #[test]
    fn only_the_very_bytes_of_the_very_representation_are_a_slice() {
        let last = whole().slice_at(24, 10);
        assert!(last.is(StatusCode::PARTIAL_CONTENT, &fields("bytes 20-24/25", "\"a\"")));
        for (range, tag) in [
            ("bytes 20-24/25", "\"b\""),
            ("bytes 20-24/26", "\"a\""),
            ("bytes 20-23/25", "\"a\""),
            ("bytes 19-24/25", "\"a\""),
            ("bytes 20-24/25", "W/\"a\""),
        ] {
            assert!(!last.is(StatusCode::PARTIAL_CONTENT, &fields(range, tag)), "{range} {tag}");
        }
        assert!(!last.is(StatusCode::OK, &fields("bytes 20-24/25", "\"a\"")));
        let mut coded = fields("bytes 20-24/25", "\"a\"");
        coded.insert("content-encoding", HeaderValue::from_static("gzip"));
        assert!(!last.is(StatusCode::PARTIAL_CONTENT, &coded));
    }

    #[test]
    fn slices_of_different_wholes_have_different_keys_and_the_same_address() {
        let base = CacheKey::new(Space::Upstream, "https", "a.org", "/film");
        let other = Whole { validator: b"\"b\"".as_slice().into(), ..whole() };
        assert_eq!(Slice::first(10).key(base.clone()), base);
        assert_eq!(whole().slice_at(0, 10).key(base.clone()), base, "the first is the whole's");
        let keys = [
            base.clone(),
            whole().slice_at(10, 10).key(base.clone()),
            whole().slice_at(20, 10).key(base.clone()),
            whole().slice_at(20, 20).key(base.clone()),
            other.slice_at(10, 10).key(base.clone()),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys.get(..at).expect("before").contains(key), "{at}");
            assert_eq!(crate::cache::key::address(key.as_bytes()), (&b"a.org"[..], &b"/film"[..]));
        }
    }
}
