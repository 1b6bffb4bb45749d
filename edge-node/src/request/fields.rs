//! Fields of a message on its way through: those of one hop are taken off, those that say who asks are written anew.

use http::Method;
use http::header::{
    CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};

use super::context::{CDN_LOOP, Context};

/// Our answer's name for the request.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const CF_CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("proxy-authentication-info");

/// Fields of one hop (RFC 9110, section 7.6.1, and what RFC 9112 and older proxies add).
const HOP: [HeaderName; 11] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY_AUTHENTICATION_INFO,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Fields by which something in front of a server says who asks, and for what. From a client they are lies, and in no key: those that we do not write ourselves go.
const CLAIMS: [HeaderName; 15] = [
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("x-cluster-client-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-scheme"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("cf-connecting-ipv6"),
    HeaderName::from_static("x-original-host"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-forwarded-path"),
    HeaderName::from_static("x-forwarded-uri"),
];

/// Fields by which frameworks take a POST for another method. Of a GET they would make what the key knows nothing of: its answer would be everybody's.
const OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// Takes off the fields of one hop, and those that `Connection` names. `Host` and `Content-Length` stay whatever it names: naming them is an attack.
pub(crate) fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
}

/// Who asks, for a worker or an upstream: rewritten, never passed on.
pub(crate) fn identify(headers: &mut HeaderMap, context: &Context) {
    strip_hop(headers);
    for name in CLAIMS {
        headers.remove(name);
    }
    if context.method == Method::GET || context.method == Method::HEAD {
        for name in OVERRIDES {
            headers.remove(name);
        }
    }
    let address = context.client.to_string();
    let host = HeaderValue::from_str(&context.authority).unwrap_or(HeaderValue::from_static(""));
    let node = if context.client.is_ipv6() { format!("\"[{address}]\"") } else { address.clone() };
    // RFC 7239: a host with a port or brackets is a quoted string.
    let forwarded = format!("for={node};host=\"{}\";proto={}", context.authority, context.scheme());
    if let Ok(address) = HeaderValue::from_str(&address) {
        headers.insert(CF_CONNECTING_IP, address);
    }
    if let Ok(forwarded) = HeaderValue::from_str(&forwarded) {
        headers.insert(FORWARDED, forwarded);
    }
    headers.insert(X_FORWARDED_FOR, context.forwarded_for());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(context.scheme()));
    headers.insert(X_FORWARDED_HOST, host.clone());
    headers.insert(HOST, host);
    if let Ok(id) = HeaderValue::from_str(&context.id()) {
        headers.insert(X_REQUEST_ID, id);
    }
}

/// That it came through this node, for an upstream: `Via` (RFC 9110, section 7.6.3) and `CDN-Loop` (RFC 8586).
pub(crate) fn mark_passage(headers: &mut HeaderMap, context: &Context, via: &HeaderValue) {
    headers.append(VIA, via.clone());
    headers.insert(CDN_LOOP, context.cdn_loop_onward());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::headers;
    use crate::listen::{Connection, Protocol};

    fn context(peer: &str) -> Context {
        let connection = Connection {
            peer: peer.parse().expect("an address"),
            local: "127.0.0.1:80".parse().expect("an address"),
            protocol: Protocol::Http1,
            tls: None,
        };
        let request = http::Request::builder().uri("/").header("host", "A.org:8080").body(()).expect("a request");
        Context::of_client(&request, &connection, &[])
    }

    #[test]
    fn hop_fields_go_also_those_that_connection_names() {
        let mut all = headers(&[
            ("connection", "close, X-Secret"),
            ("connection", "x-other, host, content-length"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("keep-alive", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("host", "a"),
            ("content-length", "1"),
            ("x-kept", "1"),
        ]);
        strip_hop(&mut all);
        assert_eq!(all, headers(&[("host", "a"), ("content-length", "1"), ("x-kept", "1")]));
    }

    #[test]
    fn what_a_client_says_of_itself_is_replaced() {
        let mut all = headers(&[
            ("cf-connecting-ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "6.6.6.6"),
            ("true-client-ip", "6.6.6.6"),
            ("x-request-id", "mine"),
            ("cookie", "kept"),
        ]);
        let context = context("[2001:db8::1]:9");
        identify(&mut all, &context);
        assert_eq!(all.get("cf-connecting-ip").expect("it"), "2001:db8::1");
        assert_eq!(all.get("forwarded").expect("it"), "for=\"[2001:db8::1]\";host=\"a.org:8080\";proto=http");
        assert_eq!(all.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), ["2001:db8::1"]);
        assert_eq!(all.get("x-forwarded-host").expect("it"), "a.org:8080");
        assert_eq!(all.get("x-forwarded-proto").expect("it"), "http");
        assert_eq!(all.get("x-request-id").expect("it"), context.id().as_ref());
        assert!(all.get("x-real-ip").is_none() && all.get("true-client-ip").is_none());
        assert_eq!(all.get("cookie").expect("it"), "kept");
    }

    #[test]
    fn passage_is_appended() {
        let mut all = headers(&[("via", "1.1 other"), ("cdn-loop", "other")]);
        mark_passage(&mut all, &context("1.2.3.4:5"), &HeaderValue::from_static("1.1 n"));
        assert_eq!(all.get_all("via").iter().collect::<Vec<_>>(), ["1.1 other", "1.1 n"]);
        assert_eq!(all.get("cdn-loop").expect("it"), "selvedge");
    }
}
