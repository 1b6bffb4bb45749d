//! A request's head as one connection needs it: framing of our own, origin form and Host over HTTP/1.1, an authority over HTTP/2.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version};
use http_body::Body as _;
use selvedge_runtime::Body;

use super::UpstreamError;
use crate::cache::policy::stated_length;

/// Fields that say how one connection frames a message, or what it may become; each connection has its own (RFC 9110, section 7.6.1).
fn strip_framing(headers: &mut HeaderMap, body: &Body) {
    const OURS: [HeaderName; 6] = [
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::EXPECT,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in OURS {
        headers.remove(name);
    }
    if headers.get(header::TE).is_some_and(|te| te.as_bytes() != b"trailers") {
        headers.remove(header::TE);
    }
    // The length is the body's own affair. One that only the field knows stays, so that a length known to the client is known to the upstream.
    if stated_length(headers).is_none() || body.size_hint().exact().is_some() {
        headers.remove(header::CONTENT_LENGTH);
    }
}

/// For HTTP/1.1.
pub(super) fn for_http1(head: &mut http::request::Parts, body: &Body, host: &str) -> Result<(), UpstreamError> {
    strip_framing(&mut head.headers, body);
    // RFC 9110, section 8.6: a method that expects content says that there is none.
    if body.is_end_stream() && expects_content(&head.method) {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    if !head.headers.contains_key(header::HOST)
        && let Some(authority) = head.uri.authority()
    {
        let value = HeaderValue::from_str(&without_default_port(&head.uri, authority.as_str()))
            .map_err(|error| UpstreamError::Protocol { host: host.to_owned(), reason: error.to_string() })?;
        head.headers.insert(header::HOST, value);
    }
    head.uri = match head.uri.path_and_query() {
        Some(path) => Uri::from(path.clone()),
        None => Uri::from_static("/"),
    };
    head.version = Version::HTTP_11;
    Ok(())
}

/// For HTTP/2.
pub(super) fn for_http2(head: &mut http::request::Parts, body: &Body, host: &str) -> Result<(), UpstreamError> {
    strip_framing(&mut head.headers, body);
    // RFC 9110, section 8.6; where there is none, the end of the head says so.
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0 || expects_content(&head.method)) {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    // The Host field becomes :authority (RFC 9113, section 8.3.1).
    if let Some(field) = head.headers.remove(header::HOST) {
        let bad = |reason: String| UpstreamError::Protocol { host: host.to_owned(), reason };
        let authority = http::uri::Authority::try_from(field.as_bytes()).map_err(|error| bad(format!("host field: {error}")))?;
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.authority = Some(authority);
        head.uri = Uri::from_parts(parts).map_err(|error| bad(error.to_string()))?;
    }
    head.version = Version::HTTP_2;
    Ok(())
}

fn expects_content(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

fn without_default_port(uri: &Uri, authority: &str) -> String {
    let default = if uri.scheme_str() == Some("https") { ":443" } else { ":80" };
    let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
    authority.strip_suffix(default).unwrap_or(authority).to_owned()
}
