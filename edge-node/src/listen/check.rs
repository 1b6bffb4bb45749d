//! What every request must hold before it is one for us, whatever protocol brought it; and its URI made absolute.
//!
//! Pure. The message has been parsed already: by `h1/head`, which refuses whatever could be read in two ways, or by hyper and h3, so that this sees what
//! they let through.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Version};

use super::{Protocol, Refusal};
use crate::cache::policy::stated_length;
use crate::limits;

/// Bytes of a host's name: the longest that DNS knows (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 255;

/// How the request came in, as far as the rules depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) protocol: Protocol,
    /// There is TLS on the connection.
    pub(super) secure: bool,
}

/// Gives the request's absolute URI, or why it is refused.
pub(super) fn check<B>(request: &http::Request<B>, arrival: Arrival) -> Result<Uri, Refusal> {
    sizes(request)?;
    if request.method() == Method::CONNECT {
        return Err(Refusal::MethodNotSupported);
    }
    // What frames a message of HTTP/1.1 has been looked at by whoever took it apart (`h1/framing`).
    if arrival.protocol != Protocol::Http1 {
        no_connection_fields(request.headers())?;
        content_length(request.headers())?;
    }
    absolute(request, arrival)
}

fn sizes<B>(request: &http::Request<B>) -> Result<(), Refusal> {
    if request.method().as_str().len() > limits::METHOD_BYTES_MAX {
        return Err(Refusal::MethodNotSupported);
    }
    if request.uri().path_and_query().map_or(0, |target| target.as_str().len()) > limits::TARGET_BYTES_MAX {
        return Err(Refusal::TargetTooLong);
    }
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > limits::FIELDS_MAX || bytes > limits::HEAD_BYTES_MAX {
        return Err(Refusal::FieldsTooLarge);
    }
    Ok(())
}

/// RFC 9113, section 8.2.2; RFC 9114, section 4.2.
fn no_connection_fields(headers: &HeaderMap) -> Result<(), Refusal> {
    let forbidden = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    if forbidden.iter().any(|name| headers.contains_key(*name)) {
        return Err(Refusal::ConnectionFields);
    }
    if headers.get_all(header::TE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        return Err(Refusal::ConnectionFields);
    }
    Ok(())
}

/// Content-Length, which must be a length where there is one.
pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    if !headers.contains_key(header::CONTENT_LENGTH) {
        return Ok(None);
    }
    stated_length(headers).map(Some).ok_or(Refusal::BadFraming)
}

fn absolute<B>(request: &http::Request<B>, arrival: Arrival) -> Result<Uri, Refusal> {
    let scheme = if arrival.secure { Scheme::HTTPS } else { Scheme::HTTP };
    let uri = request.uri();
    if uri.scheme().is_some_and(|named| *named != scheme) {
        return Err(Refusal::BadTarget);
    }
    // An authority without a scheme is the form of CONNECT.
    if arrival.protocol == Protocol::Http1 && uri.authority().is_some() && uri.scheme().is_none() {
        return Err(Refusal::BadTarget);
    }
    // `*` is for the server as a whole (RFC 9110, section 7.1), and there is nothing to say about it.
    let path = match uri.path_and_query() {
        Some(path) if path.as_str().starts_with('/') => path.clone(),
        None => PathAndQuery::from_static("/"),
        // `http://a.example?x` is the same as `http://a.example/?x` (RFC 9110, section 4.2.3): one key in the cache, one name for a purge.
        Some(path) if path.as_str().starts_with('?') => {
            PathAndQuery::try_from(format!("/{}", path.as_str())).map_err(|_| Refusal::BadTarget)?
        }
        Some(_) => return Err(Refusal::BadTarget),
    };
    let authority = authority(request)?;
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| Refusal::BadTarget)
}

fn authority<B>(request: &http::Request<B>) -> Result<Authority, Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::BadHost);
    }
    match (request.uri().authority(), host) {
        (Some(target), Some(host)) if !target.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => Err(Refusal::HostMismatch),
        // RFC 9112, section 3.2: 400 where HTTP/1.1 comes without Host, also where the target is absolute.
        (Some(_), None) if request.version() == Version::HTTP_11 => Err(Refusal::BadHost),
        (Some(target), _) => valid(target.as_str()).then(|| target.clone()).ok_or(Refusal::BadTarget),
        (None, Some(host)) => from_host(host),
        // Also of HTTP/1.0, which knows no Host field: which site is asked for is not guessed.
        (None, None) => Err(Refusal::BadHost),
    }
}

fn from_host(host: &HeaderValue) -> Result<Authority, Refusal> {
    let text = host.to_str().map_err(|_| Refusal::BadHost)?;
    if !valid(text) {
        return Err(Refusal::BadHost);
    }
    Authority::try_from(text).map_err(|_| Refusal::BadHost)
}

/// A host name or address literal, with or without a port. Stricter than RFC 3986's `reg-name`, which takes `!`, `$` and percent codes: no
/// certificate and no route has these. No user information.
fn valid(authority: &str) -> bool {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let Some((literal, after)) = rest.split_once(']') else { return false };
            if literal.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match after.strip_prefix(':') {
                Some(port) => ("[]", Some(port)),
                None if after.is_empty() => ("[]", None),
                None => return false,
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let named = host == "[]" || host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'));
    let numbered = port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    !host.is_empty() && host.len() <= HOST_BYTES_MAX && named && numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(protocol: Protocol, secure: bool) -> Arrival {
        Arrival { protocol, secure }
    }

    fn h1(target: &str, fields: &[(&str, &str)]) -> Result<String, Refusal> {
        request(Version::HTTP_11, "GET", target, fields, arrival(Protocol::Http1, false))
    }

    fn request(version: Version, method: &str, target: &str, fields: &[(&str, &str)], arrival: Arrival) -> Result<String, Refusal> {
        let mut request = http::Request::builder().version(version).method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap(), arrival).map(|uri| uri.to_string())
    }

    #[test]
    fn uri_becomes_absolute() {
        assert_eq!(h1("/a?b", &[("host", "example.org:81")]).unwrap(), "http://example.org:81/a?b");
        assert_eq!(h1("http://example.org/a", &[("host", "EXAMPLE.org")]).unwrap(), "http://example.org/a");
        assert_eq!(h1("/", &[("host", "[::1]:443")]).unwrap(), "http://[::1]:443/");
        let old = |fields| request(Version::HTTP_10, "GET", "/a", fields, arrival(Protocol::Http1, false));
        assert_eq!(old(&[("host", "a.example")]).unwrap(), "http://a.example/a");
        assert_eq!(old(&[]).unwrap_err(), Refusal::BadHost);
        let h2 = request(Version::HTTP_2, "GET", "https://example.org/a", &[], arrival(Protocol::Http2, true));
        assert_eq!(h2.unwrap(), "https://example.org/a");
    }

    #[test]
    fn a_target_without_a_path_is_that_of_the_root() {
        for (version, protocol) in [(Version::HTTP_11, Protocol::Http1), (Version::HTTP_2, Protocol::Http2)] {
            let mut parts = http::uri::Parts::default();
            (parts.scheme, parts.authority) = (Some(Scheme::HTTPS), Some(Authority::from_static("a.example")));
            parts.path_and_query = Some(PathAndQuery::from_static("?b"));
            let mut request = http::Request::builder().version(version).header("host", "a.example").body(()).unwrap();
            *request.uri_mut() = Uri::from_parts(parts).unwrap();
            let uri = check(&request, arrival(protocol, true)).unwrap();
            // Its text has the slash either way.
            assert_eq!(uri.path_and_query().unwrap().as_str(), "/?b", "{version:?}");
        }
    }

    #[test]
    fn host_must_be_one_authority() {
        for fields in [
            &[][..],
            &[("host", "a.example"), ("host", "a.example")],
            &[("host", "")],
            &[("host", "user@a.example")],
            &[("host", "a.example/b")],
            &[("host", "a b")],
            &[("host", "a.example:99999")],
            &[("host", "a.example:x")],
            &[("host", "[::1")],
            &[("host", "[nonsense]")],
            &[("host", "a%2eexample")],
        ] {
            assert_eq!(h1("/", fields), Err(Refusal::BadHost), "{fields:?}");
        }
        assert_eq!(h1("http://a.example/", &[("host", "b.example")]), Err(Refusal::HostMismatch));
        assert_eq!(h1("http://a.example/", &[]), Err(Refusal::BadHost));
        // (h3 refuses what differs before this sees it, but looks at the first Host only.)
        for (version, protocol) in [(Version::HTTP_2, Protocol::Http2), (Version::HTTP_3, Protocol::Http3)] {
            let said = |hosts: &[(&str, &str)]| request(version, "GET", "https://a.example/", hosts, arrival(protocol, true));
            assert_eq!(said(&[("host", "b.example")]), Err(Refusal::HostMismatch), "{version:?}");
            assert_eq!(said(&[("host", "a.example"), ("host", "b.example")]), Err(Refusal::BadHost), "{version:?}");
        }
    }

    #[test]
    fn target_must_be_of_this_server() {
        let host = &[("host", "a.example")];
        assert_eq!(h1("https://a.example/", host), Err(Refusal::BadTarget));
        assert_eq!(h1("a.example:80", host), Err(Refusal::BadTarget));
        assert_eq!(h1("*", host), Err(Refusal::BadTarget));
        assert_eq!(h1("http://user@a.example/", &[("host", "user@a.example")]), Err(Refusal::BadTarget));
        assert_eq!(h1(&format!("/{}", "a".repeat(limits::TARGET_BYTES_MAX - 1)), host).map(drop), Ok(()));
        assert_eq!(h1(&format!("/{}", "a".repeat(limits::TARGET_BYTES_MAX)), host), Err(Refusal::TargetTooLong));
    }

    #[test]
    fn a_length_is_one_number() {
        let arrival = arrival(Protocol::Http2, true);
        let sized = |fields: &[(&str, &str)]| request(Version::HTTP_2, "POST", "https://a.example/", fields, arrival).map(drop);
        assert_eq!(sized(&[("content-length", "3")]), Ok(()));
        for lengths in [&["3", "3"][..], &["+3"], &["3, 3"], &[""], &["99999999999999999999"]] {
            let fields: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
            assert_eq!(sized(&fields), Err(Refusal::BadFraming), "{lengths:?}");
        }
    }

    #[test]
    fn later_protocols_have_no_connection_fields() {
        for (name, value) in [("connection", "close"), ("transfer-encoding", "chunked"), ("upgrade", "x"), ("te", "gzip")] {
            let got = request(Version::HTTP_3, "GET", "https://a.example/", &[(name, value)], arrival(Protocol::Http3, true));
            assert_eq!(got, Err(Refusal::ConnectionFields), "{name}");
        }
        let trailers = request(Version::HTTP_3, "GET", "https://a.example/", &[("te", "trailers")], arrival(Protocol::Http3, true));
        assert!(trailers.is_ok());
    }

    #[test]
    fn fields_are_bounded_in_number_and_size() {
        let many: Vec<(String, String)> = (0..limits::FIELDS_MAX).map(|n| (format!("x-{n}"), String::new())).collect();
        let mut fields: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fields.push(("host", "a.example"));
        assert_eq!(h1("/", &fields), Err(Refusal::FieldsTooLarge));
        assert!(h1("/", &fields[1..]).is_ok());
        let long = "a".repeat(limits::HEAD_BYTES_MAX);
        assert_eq!(h1("/", &[("host", "a.example"), ("cookie", &long)]), Err(Refusal::FieldsTooLarge));
    }

    #[test]
    fn tunnels_are_not_made() {
        let got = request(Version::HTTP_11, "CONNECT", "a.example:443", &[("host", "a.example:443")], arrival(Protocol::Http1, false));
        assert_eq!(got, Err(Refusal::MethodNotSupported));
    }
}
