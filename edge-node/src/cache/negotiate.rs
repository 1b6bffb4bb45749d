//! What a client prefers among a route's set: `Accept-Encoding`, `Accept` and `Accept-Language` reduced to one member (RFC 9110, sections 12.5.1, 12.5.3 and 12.5.4), and what of
//! them means the same written otherwise. Pure; takes any bytes.

use std::borrow::Cow;

use http::header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderMap, HeaderName, HeaderValue};

/// Members of a client's list that are looked at; a browser sends about ten.
const MEMBERS_MAX: usize = 64;

/// Members of a list with their weights in thousandths, lower case.
fn members(request: &HeaderMap, name: &HeaderName) -> Vec<(String, u16)> {
    let all = request.get_all(name).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    let read = |member: &[u8]| {
        let member = std::str::from_utf8(member).ok()?.trim();
        let mut pieces = member.split(';').map(str::trim);
        let value = pieces.next().filter(|value| !value.is_empty())?.to_ascii_lowercase();
        let weight = pieces
            .find_map(|parameter| parameter.strip_prefix("q=").or(parameter.strip_prefix("Q=")))
            .map_or(Some(1000), |text| weight(text.as_bytes()));
        Some((value, weight?))
    };
    all.take(MEMBERS_MAX).filter_map(read).collect()
}

/// `0.8` as 800; none where it is no weight (RFC 9110, section 12.4.2).
pub(super) fn weight(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let mut thousandths = u16::from(whole - b'0') * 1000;
    for (digit, worth) in fraction.iter().zip([100, 10, 1]) {
        thousandths += u16::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?) * worth;
    }
    (thousandths <= 1000).then_some(thousandths)
}

/// The member of `set` that the client likes best; of equals the first. None where it likes none, or says nothing.
pub fn best<'a>(request: &HeaderMap, name: &HeaderName, set: &'a [String]) -> Option<&'a str> {
    let members = members(request, name);
    let mut best: Option<(&str, u16)> = None;
    for candidate in set {
        let weight = members
            .iter()
            .filter_map(|(range, weight)| Some((fits(name, range, candidate)?, *weight)))
            .max_by_key(|(fit, _)| *fit)
            .map_or(0, |(_, weight)| weight);
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((candidate, weight));
        }
    }
    best.map(|(candidate, _)| candidate)
}

/// How specifically a range means a candidate; none: not at all.
fn fits(name: &HeaderName, range: &str, candidate: &str) -> Option<u8> {
    if range == candidate {
        return Some(9);
    }
    if *name == ACCEPT {
        let major = range.strip_suffix("/*")?;
        return if major == "*" { Some(1) } else { (candidate.split('/').next() == Some(major)).then_some(2) };
    }
    if range == "*" {
        return Some(1);
    }
    if *name == ACCEPT_LANGUAGE {
        // RFC 4647: `en` is meant by `en-GB` (look-up, section 3.4), and means `en-us` (basic filtering, section 3.3.1).
        let begins = |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('-'));
        return if begins(range, candidate) { Some(3) } else { begins(candidate, range).then_some(2) };
    }
    // RFC 9110, section 8.4.1.3: the old names mean the same.
    matches!((range, candidate), ("x-gzip", "gzip") | ("gzip", "x-gzip")).then_some(8)
}

/// Reduces a request's field to the best member of a set, or takes it off.
pub fn reduce(request: &mut HeaderMap, name: &HeaderName, set: &[String]) {
    if !request.contains_key(name) {
        return;
    }
    match best(request, name, set).and_then(|best| HeaderValue::from_str(best).ok()) {
        Some(best) => drop(request.insert(name.clone(), best)),
        None => drop(request.remove(name)),
    }
}

/// Members of one list that mean the same whatever their case and order: those of the fields that are here. `q=1` is what is meant where nothing is said.
pub fn canonical(name: &HeaderName, members: &mut Vec<Cow<'_, [u8]>>) {
    if ![ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE].contains(name) || members.len() > MEMBERS_MAX {
        return;
    }
    for member in members.iter_mut() {
        let mut plain: Vec<u8> = member.iter().filter(|b| !matches!(b, b' ' | b'\t')).map(u8::to_ascii_lowercase).collect();
        for one in [&b";q=1"[..], b";q=1.0", b";q=1.00", b";q=1.000"] {
            if plain.ends_with(one) {
                plain.truncate(plain.len() - one.len());
            }
        }
        *member = Cow::Owned(plain);
    }
    members.retain(|member| !member.is_empty());
    members.sort();
}

/// For tests/fuzz: what is chosen is one of the set.
pub fn fuzz(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let set = ["br".to_owned(), "gzip".to_owned(), "text/html".to_owned(), "en".to_owned(), "de-at".to_owned()];
    for name in [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE] {
        let mut request: HeaderMap = [(name.clone(), value.clone())].into_iter().collect();
        let chosen = best(&request, &name, &set).map(str::to_owned);
        reduce(&mut request, &name, &set);
        assert_eq!(request.get(&name).and_then(|left| left.to_str().ok()).map(str::to_owned), chosen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_a_set_is_what_the_client_weighs_most() {
        let choose = |name: HeaderName, value: &'static str, set: &[&str]| {
            let set: Vec<String> = set.iter().map(|member| (*member).to_owned()).collect();
            let request: HeaderMap = [(name.clone(), HeaderValue::from_static(value))].into_iter().collect();
            best(&request, &name, &set).map(str::to_owned)
        };
        for (value, expected) in [
            ("gzip, br", Some("br")),
            ("br;q=0.5, gzip", Some("gzip")),
            ("gzip, deflate", Some("gzip")),
            ("x-gzip", Some("gzip")),
            ("*", Some("br")),
            ("*;q=0.1, gzip;q=0.2", Some("gzip")),
            ("br;q=0, *", Some("gzip")),
            ("deflate", None),
            ("identity", None),
            ("gzip;q=0", None),
            ("gzip;q=2", None),
            ("", None),
        ] {
            assert_eq!(choose(ACCEPT_ENCODING, value, &["br", "gzip"]).as_deref(), expected, "{value}");
        }
        for (value, expected) in [
            ("de-AT, en;q=0.8", Some("de")),
            ("fr, en-GB;q=0.7", Some("en")),
            ("fr", None),
            ("*;q=0.1", Some("en")),
            ("en;q=0, *", Some("de")),
        ] {
            assert_eq!(choose(ACCEPT_LANGUAGE, value, &["en", "de"]).as_deref(), expected, "{value}");
        }
        for (value, expected) in [
            ("image/avif,image/webp,*/*;q=0.8", Some("image/avif")),
            ("image/*;q=0.5, image/webp", Some("image/webp")),
            ("text/html", None),
            ("*/*", Some("image/avif")),
        ] {
            assert_eq!(choose(ACCEPT, value, &["image/avif", "image/webp"]).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn a_field_is_reduced_or_taken_off() {
        let set = ["gzip".to_owned()];
        let mut request: HeaderMap = [(ACCEPT_ENCODING, HeaderValue::from_static("gzip, br, zstd"))].into_iter().collect();
        reduce(&mut request, &ACCEPT_ENCODING, &set);
        assert_eq!(request.get(ACCEPT_ENCODING).expect("it"), "gzip");
        request.insert(ACCEPT_ENCODING, HeaderValue::from_static("br"));
        reduce(&mut request, &ACCEPT_ENCODING, &set);
        assert!(request.get(ACCEPT_ENCODING).is_none());
    }
}
