//! One range of bytes of a whole stored response: RFC 9110, section 14. Pure.
//!
//! A request for several ranges gets the whole response, as section 14.2 allows: assembling many small parts costs the server more than the client.

use std::ops::Range;

use http::HeaderValue;

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// All of it: no range, several, or one that is not understood.
    Whole,
    /// These bytes, by `206`.
    Part(Range<u64>),
    /// Nothing of it: `416`.
    Unsatisfiable,
}

/// Selects from a representation of `length` bytes.
pub fn select(range: Option<&HeaderValue>, length: u64) -> Selected {
    let Some(spec) = range.and_then(|value| value.to_str().ok()).and_then(|value| value.split_once('=')) else { return Selected::Whole };
    // Units are compared without case (section 14.1).
    if !spec.0.trim().eq_ignore_ascii_case("bytes") || spec.1.contains(',') {
        return Selected::Whole;
    }
    let Some((first, last)) = spec.1.trim().split_once('-') else { return Selected::Whole };
    match (position(first), position(last)) {
        (Position::At(first), Position::None) if first < length => Selected::Part(first..length),
        (Position::At(first), Position::At(last)) if last < first => Selected::Whole,
        (Position::At(first), Position::At(last)) if first < length => Selected::Part(first..last.saturating_add(1).min(length)),
        (Position::At(_), Position::None | Position::At(_)) => Selected::Unsatisfiable,
        (Position::None, Position::At(0)) => Selected::Unsatisfiable,
        (Position::None, Position::At(suffix)) if length > 0 => Selected::Part(length.saturating_sub(suffix)..length),
        (Position::None, Position::At(_)) => Selected::Unsatisfiable,
        _ => Selected::Whole,
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

/// For tests/fuzz: a part always lies inside the representation.
pub fn fuzz(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    for length in [0, 1, 10, u64::MAX] {
        if let Selected::Part(part) = select(Some(&value), length) {
            assert!(part.start < part.end && part.end <= length);
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
            ("bytes=0-1,3-4", 10, Selected::Whole),
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
