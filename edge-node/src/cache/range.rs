//! Ranges of bytes of a stored representation: RFC 9110, section 14. Pure.
//!
//! One range gives `206` with those bytes; several give `multipart/byteranges`. A request for more than [`RANGES_MAX`], or for ranges that overlap, gets the whole
//! response, as section 14.2 allows: assembling it would cost the server far more than asking costs a client (CVE-2011-3192).

use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;
use selvedge_runtime::Body;

use super::chain::chain;
use crate::limits::RANGES_MAX;

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// All of it: no range, too many, overlapping ones, or one that is not understood.
    Whole,
    /// These bytes, by `206`.
    Part(Range<u64>),
    /// These, by `206` with `multipart/byteranges`, in the order in which they were asked for.
    Parts(Vec<Range<u64>>),
    /// Nothing of it: `416`.
    Unsatisfiable,
}

/// Selects from a representation of `length` bytes.
pub fn select(range: Option<&HeaderValue>, length: u64) -> Selected {
    let Some(set) = range.and_then(bytes_of) else { return Selected::Whole };
    if !set.contains(',') {
        return match one(set.trim(), length) {
            One::Bytes(bytes) => Selected::Part(bytes),
            One::Outside => Selected::Unsatisfiable,
            One::Bad => Selected::Whole,
        };
    }
    let mut parts: Vec<Range<u64>> = Vec::new();
    for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        match one(spec, length) {
            One::Bad => return Selected::Whole,
            One::Outside => {}
            One::Bytes(bytes) => {
                let overlaps = |other: &Range<u64>| bytes.start < other.end && other.start < bytes.end;
                if parts.len() == RANGES_MAX || parts.iter().any(overlaps) {
                    return Selected::Whole;
                }
                parts.push(bytes);
            }
        }
    }
    match parts.as_slice() {
        [] => Selected::Unsatisfiable,
        [only] => Selected::Part(only.clone()),
        _ => Selected::Parts(parts),
    }
}

/// Whether it asks for one range of bytes: such a request is passed on as it is, and its answer stored as a part.
pub fn is_single(range: &HeaderValue) -> bool {
    bytes_of(range).is_some_and(|set| !set.contains(',') && !matches!(one(set.trim(), u64::MAX), One::Bad))
}

/// The set after `bytes=`. Units are compared without case (section 14.1).
fn bytes_of(range: &HeaderValue) -> Option<&str> {
    let (unit, set) = range.to_str().ok()?.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(set)
}

enum One {
    Bytes(Range<u64>),
    Outside,
    Bad,
}

fn one(spec: &str, length: u64) -> One {
    let Some((first, last)) = spec.split_once('-') else { return One::Bad };
    match (position(first), position(last)) {
        (Position::At(first), Position::None) if first < length => One::Bytes(first..length),
        (Position::At(first), Position::At(last)) if last < first => One::Bad,
        (Position::At(first), Position::At(last)) if first < length => One::Bytes(first..last.saturating_add(1).min(length)),
        (Position::At(_), Position::None | Position::At(_)) => One::Outside,
        (Position::None, Position::At(0)) => One::Outside,
        (Position::None, Position::At(suffix)) if length > 0 => One::Bytes(length.saturating_sub(suffix)..length),
        (Position::None, Position::At(_)) => One::Outside,
        _ => One::Bad,
    }
}

enum Position {
    None,
    At(u64),
    Bad,
}

fn position(text: &str) -> Position {
    if text.is_empty() {
        return Position::None;
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Position::Bad;
    }
    // Too large for a number is beyond every end.
    Position::At(text.parse().unwrap_or(u64::MAX))
}

/// The body of `multipart/byteranges` (section 14.6), and its length. `boundary` is one that nobody can foresee; `part` gives the bytes of a range.
pub fn multipart(
    parts: &[Range<u64>],
    length: u64,
    kind: Option<&HeaderValue>,
    boundary: &str,
    part: impl Fn(Range<u64>) -> Body,
) -> (Body, u64) {
    let mut bodies = Vec::with_capacity(parts.len() * 2 + 1);
    let mut all = 0;
    for (number, range) in parts.iter().enumerate() {
        let mut head = format!("{}--{boundary}\r\n", if number == 0 { "" } else { "\r\n" }).into_bytes();
        if let Some(kind) = kind {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(kind.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(format!("Content-Range: bytes {}-{}/{length}\r\n\r\n", range.start, range.end.saturating_sub(1)).as_bytes());
        all += head.len() as u64 + (range.end - range.start);
        bodies.push(Body::full(Bytes::from(head)));
        bodies.push(part(range.clone()));
    }
    let end = format!("\r\n--{boundary}--\r\n");
    all += end.len() as u64;
    bodies.push(Body::full(end));
    (chain(bodies), all)
}

/// For tests/fuzz: a part always lies inside the representation.
pub fn fuzz(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    for length in [0, 1, 10, u64::MAX] {
        let parts = match select(Some(&value), length) {
            Selected::Part(part) => vec![part],
            Selected::Parts(parts) => parts,
            Selected::Whole | Selected::Unsatisfiable => Vec::new(),
        };
        assert!(parts.len() <= RANGES_MAX);
        for (number, part) in parts.iter().enumerate() {
            assert!(part.start < part.end && part.end <= length);
            assert!(parts.iter().take(number).all(|other| other.end <= part.start || part.end <= other.start));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_select_what_lies_inside() {
        for (text, length, expected) in [
            ("bytes=0-0", 10, Selected::Part(0..1)),
            ("bytes=2-5", 10, Selected::Part(2..6)),
            ("Bytes=2-5", 10, Selected::Part(2..6)),
            ("bytes=5-", 10, Selected::Part(5..10)),
            ("bytes=5-99", 10, Selected::Part(5..10)),
            ("bytes=-3", 10, Selected::Part(7..10)),
            ("bytes=-30", 10, Selected::Part(0..10)),
            ("bytes=10-", 10, Selected::Unsatisfiable),
            ("bytes=10-12", 10, Selected::Unsatisfiable),
            ("bytes=-0", 10, Selected::Unsatisfiable),
            ("bytes=-1", 0, Selected::Unsatisfiable),
            ("bytes=0-", 0, Selected::Unsatisfiable),
            ("bytes=99999999999999999999-", 10, Selected::Unsatisfiable),
            ("bytes=0-99999999999999999999", 10, Selected::Part(0..10)),
            ("bytes=5-2", 10, Selected::Whole),
            ("bytes=0-1,3-4", 10, Selected::Parts(vec![0..2, 3..5])),
            ("bytes=8-, 0-1 ,-1", 10, Selected::Whole),
            ("bytes=9-, 0-1", 10, Selected::Parts(vec![9..10, 0..2])),
            ("bytes=0-1,20-", 10, Selected::Part(0..2)),
            ("bytes=20-,30-", 10, Selected::Unsatisfiable),
            ("bytes=0-1,x", 10, Selected::Whole),
            ("bytes=0-1,1-2", 10, Selected::Whole),
            ("bytes=a-b", 10, Selected::Whole),
            ("bytes=-", 10, Selected::Whole),
            ("bytes=+1-2", 10, Selected::Whole),
            ("lines=0-1", 10, Selected::Whole),
            ("bytes", 10, Selected::Whole),
        ] {
            assert_eq!(select(Some(&HeaderValue::from_static(text)), length), expected, "{text}");
        }
        assert_eq!(select(None, 10), Selected::Whole);
    }

    #[test]
    fn many_ranges_and_overlapping_ones_get_the_whole() {
        let ask = |count: u64| {
            let set: Vec<String> = (0..count).map(|number| format!("{}-{}", number * 2, number * 2)).collect();
            select(Some(&HeaderValue::from_str(&format!("bytes={}", set.join(","))).expect("a value")), 1 << 20)
        };
        assert!(matches!(ask(RANGES_MAX as u64), Selected::Parts(parts) if parts.len() == RANGES_MAX));
        assert_eq!(ask(RANGES_MAX as u64 + 1), Selected::Whole);
        assert_eq!(select(Some(&HeaderValue::from_static("bytes=0-,0-,0-")), 10), Selected::Whole);
    }

    #[test]
    fn several_parts_are_one_body_of_a_known_length() {
        let whole = Bytes::from_static(b"0123456789");
        let part = |range: Range<u64>| Body::full(whole.slice(range.start as usize..range.end as usize));
        let (body, length) = multipart(&[0..2, 9..10], 10, Some(&HeaderValue::from_static("text/plain")), "B", part);
        let text = futures::executor::block_on(body.collect(999)).expect("whole");
        let expected = "--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n--B\r\nContent-Type: text/plain\r\n\
                        Content-Range: bytes 9-9/10\r\n\r\n9\r\n--B--\r\n";
        assert_eq!(text, expected);
        assert_eq!(length, expected.len() as u64);
    }

    #[test]
    fn only_one_range_of_bytes_is_passed_on() {
        let single = |text| is_single(&HeaderValue::from_static(text));
        assert!(single("bytes=0-1") && single("bytes=-5") && single("bytes=5-"));
        assert!(!single("bytes=0-1,2-3") && !single("bytes=a-b") && !single("lines=0-1") && !single("bytes=-"));
    }

    #[test]
    fn arbitrary_bytes_select_nothing_outside() {
        let alphabet = b"bytes=-0123456789, \xff";
        let mut seed = 7u64;
        for _ in 0..20_000 {
            let mut bytes = b"bytes=".to_vec();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.push(alphabet[(seed >> 33) as usize % alphabet.len()]);
            }
            fuzz(&bytes);
        }
    }
}
