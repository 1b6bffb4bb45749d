//! Content codings: which one a client wants, which responses may be given one, and what that does to their fields. RFC 9110, sections 8.4 and 12.5.3. Pure.

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, RANGE, VARY,
};
use http::{StatusCode, response};
use selvedge_origin::registry::{Coding, CompressSettings};

use super::control::Control;
use super::lines::Lines;
use super::negotiate::weight;

/// Members of `Accept-Encoding` that are looked at. Browsers send four or five.
const MEMBERS_MAX: usize = 32;
/// A quality value in thousandths: section 12.4.2.
const QUALITY_MAX: u16 = 1000;

/// The coding that a client's request is best answered with by a route; none: as it is.
///
/// The greatest quality wins, and of equals the route's first. A client that says it likes `identity` better gets that. A request for a range is for bytes of
/// what is stored, and one that says `no-transform` does not want this.
pub fn wanted(settings: &CompressSettings, request: &HeaderMap) -> Option<Coding> {
    if !settings.enabled || !request.contains_key(ACCEPT_ENCODING) || request.contains_key(RANGE) {
        return None;
    }
    let qualities = Qualities::of(request);
    let best = settings.codings.iter().map(|coding| (qualities.of_coding(*coding), *coding));
    // `max_by_key` would give the last of equals.
    let (quality, coding) = best.fold((0, None), |best, (quality, coding)| if quality > best.0 { (quality, Some(coding)) } else { best });
    let coding = coding.filter(|_| qualities.identity.is_none_or(|identity| identity <= quality))?;
    (!Control::of(request).no_transform).then_some(coding)
}

/// What `Accept-Encoding` says of the codings that we make.
#[derive(Debug, Default, PartialEq, Eq)]
struct Qualities {
    named: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    others: Option<u16>,
}

impl Qualities {
    fn of(request: &HeaderMap) -> Self {
        let mut qualities = Self::default();
        let lines = request.get_all(ACCEPT_ENCODING).iter();
        for member in lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).take(MEMBERS_MAX) {
            let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            // A weight that is none is taken for "not acceptable": sending as it is can never be wrong.
            let quality = parts.next().map_or(QUALITY_MAX, |weight| quality(weight).unwrap_or(0));
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
            let slot = match Coding::ALL.iter().position(|coding| is(coding.name())) {
                Some(at) => qualities.named.get_mut(at),
                // Section 8.4.1.3: the older name.
                None if is("x-gzip") => qualities.named.get_mut(position(Coding::Gzip)),
                None if is("identity") => Some(&mut qualities.identity),
                None if is("*") => Some(&mut qualities.others),
                None => None,
            };
            if let Some(slot) = slot {
                *slot = Some(quality);
            }
        }
        qualities
    }

    fn of_coding(&self, coding: Coding) -> u16 {
        self.named.get(position(coding)).copied().flatten().or(self.others).unwrap_or(0)
    }
}

fn position(coding: Coding) -> usize {
    match coding {
        Coding::Brotli => 0,
        Coding::Zstd => 1,
        Coding::Gzip => 2,
    }
}

/// `q=0.5` in thousandths.
fn quality(parameter: &[u8]) -> Option<u16> {
    weight(parameter.strip_prefix(b"q=").or(parameter.strip_prefix(b"Q="))?)
}

/// Whether a response may be given a coding on this route: it has content without one, of a type and length that is worth it, and nobody forbids it.
/// `length` is that of its content, where it is known. Clients without any coding get it as it is, and learn by `Vary` that there are others.
pub fn encodable(settings: &CompressSettings, status: StatusCode, headers: &impl Lines, length: Option<u64>) -> bool {
    settings.enabled
        && has_whole_content(status)
        && length.is_none_or(|length| length >= settings.min_bytes && length > 0)
        && headers.first(&CONTENT_TYPE).is_some_and(|value| is_listed(settings, value))
        && !headers.has(&CONTENT_ENCODING)
        && !headers.has(&CONTENT_RANGE)
        && !(headers.has(&CACHE_CONTROL) && Control::of(headers).no_transform)
}

/// RFC 9110, section 6.4.1; a part and the answer to a bad range are of the bytes as they are.
fn has_whole_content(status: StatusCode) -> bool {
    !status.is_informational()
        && !matches!(
            status,
            StatusCode::NO_CONTENT
                | StatusCode::RESET_CONTENT
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::NOT_MODIFIED
                | StatusCode::RANGE_NOT_SATISFIABLE
        )
}

fn is_listed(settings: &CompressSettings, content_type: &[u8]) -> bool {
    let kind = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let ends_with = |suffix: &[u8]| {
        kind.len()
            .checked_sub(suffix.len())
            .filter(|at| *at > 0)
            .and_then(|at| kind.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    settings.types.iter().any(|listed| {
        let listed = listed.as_bytes();
        match (listed.strip_prefix(b"*"), listed.strip_suffix(b"*")) {
            (Some(suffix), _) => ends_with(suffix),
            (None, Some(prefix)) => kind.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
            (None, None) => kind.eq_ignore_ascii_case(listed),
        }
    })
}

/// The fields of a response that may be given a coding: that it depends on what the client accepts.
pub fn offer(headers: &mut HeaderMap) {
    let names = |line: &HeaderValue| {
        line.as_bytes()
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
            .any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"))
    };
    if !headers.get_all(VARY).iter().any(names) {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// The fields of a response that is given a coding, its length not known yet.
///
/// Its entity tag becomes a weak one (the bytes are others, the meaning is the same, RFC 9110, section 8.8.1), so that a client's condition holds whichever
/// coding it has, and no range of one coding is put together with one of another. Digests of the bytes go.
pub fn encode_fields(headers: &mut HeaderMap, coding: Coding) {
    const OF_BYTES: [HeaderName; 6] = [
        CONTENT_LENGTH,
        ACCEPT_RANGES,
        HeaderName::from_static("content-md5"),
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
        HeaderName::from_static("digest"),
    ];
    for name in OF_BYTES {
        headers.remove(name);
    }
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    offer(headers);
    if let Some(weak) = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")).and_then(weaken) {
        headers.insert(ETAG, weak);
    }
}

fn weaken(tag: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok()
}

/// A head like `head` for a response that is given a coding.
pub fn encode_head(head: &response::Parts, coding: Coding) -> response::Parts {
    let mut encoded = head.clone();
    encode_fields(&mut encoded.headers, coding);
    encoded
}

/// For tests/fuzz: any bytes as what a client accepts. What is chosen is named, or is one of all others.
pub fn fuzz(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let request: HeaderMap = [(ACCEPT_ENCODING, value.clone())].into_iter().collect();
    if let Some(coding) = wanted(&CompressSettings::default(), &request) {
        let text = value.as_bytes().to_ascii_lowercase();
        let named = |name: &str| text.windows(name.len()).any(|part| part == name.as_bytes());
        assert!(named(coding.name()) || named("*"), "{coding:?} of {value:?}");
    }
    let response: HeaderMap = [(CONTENT_TYPE, value)].into_iter().collect();
    let _ = encodable(&CompressSettings::default(), StatusCode::OK, &response, None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::headers;

    #[test]
    fn the_best_accepted_coding_is_chosen() {
        use Coding::{Brotli, Gzip, Zstd};
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some(Brotli)),
            ("gzip, deflate, br", Some(Brotli)),
            ("gzip", Some(Gzip)),
            ("GZIP", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("br;q=0.5, gzip;q=0.8", Some(Gzip)),
            ("br;q=0.5, gzip; q=0.5, zstd;q=0.501", Some(Zstd)),
            ("br;q=0, gzip;q=0", None),
            ("br;q=0, *", Some(Zstd)),
            ("*", Some(Brotli)),
            ("*;q=0", None),
            ("gzip, *;q=0", Some(Gzip)),
            ("identity", None),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=1", Some(Gzip)),
            ("identity, gzip", Some(Gzip)),
            ("identity;q=0", None),
            ("identity;q=0, br", Some(Brotli)),
            ("deflate, compress", None),
            ("", None),
            ("gzip;q=2", None),
            ("gzip;q=0.0001", None),
            ("gzip;q=x, br;q=1.000", Some(Brotli)),
            ("gzip;level=9", None),
            (",,gzip ;q=0.3,", Some(Gzip)),
        ] {
            assert_eq!(wanted(&CompressSettings::default(), &headers(&[("accept-encoding", accept)])), expected, "{accept:?}");
        }
        let two_lines = headers(&[("accept-encoding", "gzip;q=0.1"), ("accept-encoding", "zstd")]);
        assert_eq!(wanted(&CompressSettings::default(), &two_lines), Some(Zstd));
        assert_eq!(wanted(&CompressSettings::default(), &headers(&[])), None);
        let ordered = CompressSettings { codings: vec![Zstd, Gzip], ..CompressSettings::default() };
        assert_eq!(wanted(&ordered, &headers(&[("accept-encoding", "gzip, br, zstd")])), Some(Zstd));
        for (name, value) in [("range", "bytes=0-1"), ("cache-control", "no-transform")] {
            assert_eq!(wanted(&ordered, &headers(&[("accept-encoding", "gzip"), (name, value)])), None, "{name}");
        }
        assert_eq!(wanted(&CompressSettings { enabled: false, ..ordered }, &headers(&[("accept-encoding", "gzip")])), None);
    }

    #[test]
    fn what_is_not_text_or_has_a_coding_or_must_not_be_changed_stays_as_it_is() {
        let is = |status: u16, fields: &[(&'static str, &'static str)], length| {
            encodable(&CompressSettings::default(), StatusCode::from_u16(status).expect("a status"), &headers(fields), length)
        };
        let html = ("content-type", "text/html; charset=utf-8");
        assert!(is(200, &[html], Some(512)) && is(200, &[html], None) && is(404, &[html], None));
        assert!(is(200, &[("content-type", "Application/JSON")], None) && is(200, &[("content-type", "image/svg+xml")], None));
        assert!(is(200, &[("content-type", "text/event-stream")], None));
        for kind in ["image/png", "application/octet-stream", "json", "+json", "", "application/json5", "texts/plain"] {
            assert!(!is(200, &[("content-type", kind)], None), "{kind}");
        }
        assert!(!is(200, &[], None) && !is(200, &[html], Some(511)));
        for status in [204, 205, 206, 304, 416] {
            assert!(!is(status, &[html], None), "{status}");
        }
        for (name, value) in [("content-encoding", "gzip"), ("content-range", "bytes 0-1/2"), ("cache-control", "max-age=1, no-transform")]
        {
            assert!(!is(200, &[html, (name, value)], None), "{name}");
        }
    }

    #[test]
    fn the_fields_say_what_was_done() {
        let mut fields = headers(&[
            ("etag", "\"a\""),
            ("content-length", "900"),
            ("accept-ranges", "bytes"),
            ("content-digest", "x"),
            ("vary", "Cookie"),
            ("x-kept", "1"),
        ]);
        encode_fields(&mut fields, Coding::Zstd);
        let expected =
            [("etag", "W/\"a\""), ("vary", "Cookie"), ("x-kept", "1"), ("content-encoding", "zstd"), ("vary", "Accept-Encoding")];
        assert_eq!(fields, headers(&expected));
        let mut weak = headers(&[("etag", "W/\"a\""), ("vary", "x, accept-ENCODING")]);
        encode_fields(&mut weak, Coding::Gzip);
        assert_eq!(weak, headers(&[("etag", "W/\"a\""), ("vary", "x, accept-ENCODING"), ("content-encoding", "gzip")]));
    }
}
