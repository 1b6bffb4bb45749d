//! `Surrogate-Control` (Edge Architecture Specification, W3C note of 2001): what an upstream says to caches like this one, and to nobody else. Pure; takes any bytes.
//!
//! Members that name a target are for that one: ours is the name that we give in `Surrogate-Capability`. Whoever sends `CDN-Cache-Control` too means that.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::control::{Control, parse_seconds};

/// The field.
pub const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");
/// By which upstreams see that we read it.
pub const SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");
/// Its value: our name, and what we can.
pub const CAPABILITY: HeaderValue = HeaderValue::from_static("selvedge=\"Surrogate/1.0\"");
const TARGET: &[u8] = b"selvedge";

/// What it says to us; none where that is nothing.
pub fn control(headers: &HeaderMap) -> Option<Control> {
    let mut found = Control { targeted: true, ..Control::default() };
    let mut says = false;
    for member in headers.get_all(SURROGATE_CONTROL).iter().flat_map(|line| line.as_bytes().split(|b| *b == b',')) {
        let mut pieces = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let directive = pieces.next().unwrap_or_default();
        if !pieces.all(|target| target.eq_ignore_ascii_case(TARGET)) {
            continue;
        }
        if directive.eq_ignore_ascii_case(b"no-store") {
            found.no_store = true;
            says = true;
        } else if let Some((name, value)) = directive.split_at_checked(8)
            && name.eq_ignore_ascii_case(b"max-age=")
            && found.max_age.is_none()
        {
            // `max-age=600+30`: fresh for 600 seconds, and for 30 more while it is validated.
            let mut numbers = value.splitn(2, |b| *b == b'+').map(parse_seconds);
            found.max_age = Some(numbers.next().flatten().unwrap_or_default());
            found.stale_while_revalidate = numbers.next().flatten();
            says = true;
        }
    }
    says.then_some(found)
}

/// For tests/fuzz: any bytes.
pub fn fuzz(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let headers: HeaderMap = [(SURROGATE_CONTROL, value)].into_iter().collect();
    if let Some(control) = control(&headers) {
        assert!(control.no_store || control.max_age.is_some_and(|seconds| seconds.get() <= super::control::SECONDS_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::Seconds;
    use super::*;

    #[test]
    fn members_for_all_and_for_us_count() {
        let read = |text: &'static str| {
            let headers: HeaderMap = [(SURROGATE_CONTROL, HeaderValue::from_static(text))].into_iter().collect();
            control(&headers)
                .map(|control| (control.no_store, control.max_age.map(Seconds::get), control.stale_while_revalidate.map(Seconds::get)))
        };
        assert_eq!(read("max-age=60"), Some((false, Some(60), None)));
        assert_eq!(read("MaX-aGe=60+5, content=\"ESI/1.0\""), Some((false, Some(60), Some(5))));
        assert_eq!(read("max-age=60;selvedge"), Some((false, Some(60), None)));
        assert_eq!(read("max-age=60;other"), None);
        assert_eq!(read("no-store;other, max-age=9"), Some((false, Some(9), None)));
        assert_eq!(read("no-store"), Some((true, None, None)));
        assert_eq!(read("max-age=x"), Some((false, Some(0), None)));
        for nothing in ["foo", "max-age =60", "", ",;,", "no-store-remote"] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }
}
