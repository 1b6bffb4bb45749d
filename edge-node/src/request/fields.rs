//! Fields of a message on its way through: those of one hop are taken off, those that say who asks are written anew.

use http::Method;
use http::header::{ALT_SVC, CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, VIA};
use selvedge_runtime::protocol::Fields;
use smallvec::SmallVec;

use super::context::{CDN_LOOP, Context};

/// About how many bytes they take: room enough for most.
const WRITTEN_BYTES: usize = 384;

/// Our answer's name for the request.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const CF_CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// What [`who_asks`] says.
const WRITTEN: [HeaderName; 7] = [CF_CONNECTING_IP, FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, HOST, X_REQUEST_ID];

/// Fields of one hop (RFC 9110, section 7.6.1, and what RFC 9112 and older proxies add).
fn is_of_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Fields by which something in front of a server says who asks, and for what. From a client they are lies, and in no key: those that we do not write ourselves go.
fn is_claim(name: &str) -> bool {
    matches!(
        name,
        "x-real-ip"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "true-client-ip"
            | "x-forwarded-port"
            | "x-forwarded-server"
            | "x-forwarded-prefix"
            | "x-forwarded-scheme"
            | "x-forwarded-protocol"
            | "x-forwarded-ssl"
            | "x-forwarded-path"
            | "x-forwarded-uri"
            | "x-url-scheme"
            | "front-end-https"
            | "cf-connecting-ipv6"
            | "x-host"
            | "x-http-host-override"
            | "x-original-host"
            | "x-original-url"
            | "x-rewrite-url"
    )
}

/// Fields by which frameworks take a POST for another method. Of a GET they would make what the key knows nothing of: its answer would be everybody's.
fn is_override(name: &str) -> bool {
    matches!(name, "x-http-method-override" | "x-http-method" | "x-method-override")
}

/// Takes off the fields of one hop, and those that `Connection` names. `Host` and `Content-Length` stay whatever it names: naming them is an attack.
pub(crate) fn strip_hop(headers: &mut HeaderMap) {
    strip(headers, |_| false);
}

/// A request arrives: what its `Connection` names is of the hop that ends here. Before anybody asks what it says: a field that whoever answers does not see must not
/// choose the variant either, or an answer to its absence would be everybody's who sends it.
pub(crate) fn arrive(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        strip_hop(headers);
    }
}

/// Takes off what was said to this node only: fields of the hop, and `Alt-Svc`, which speaks of the upstream's own address (RFC 7838).
pub(crate) fn clean(headers: &mut HeaderMap) {
    strip(headers, |name| *name == ALT_SVC);
}

/// Takes off the fields of one hop, and those that `also` names. One pass over what is there: usually there is little, and nothing goes.
fn strip(headers: &mut HeaderMap, also: impl Fn(&HeaderName) -> bool) {
    let goes = |name: &&HeaderName| is_of_hop(name.as_str()) || also(name);
    let mut gone: SmallVec<[HeaderName; 8]> = headers.keys().filter(goes).cloned().collect();
    if gone.is_empty() {
        return;
    }
    let named = headers.get_all(CONNECTION).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    let named = named.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    gone.extend(named.filter(|name| *name != HOST && *name != CONTENT_LENGTH));
    for name in gone {
        headers.remove(name);
    }
}

/// Whether a field is one of who asks, or for what, whoever wrote it.
fn is_foreign(name: &HeaderName, context: &Context) -> bool {
    let bodyless = context.method == Method::GET || context.method == Method::HEAD;
    is_claim(name.as_str()) || (bodyless && is_override(name.as_str()))
}

/// Says who asks, field by field.
fn who_asks(context: &Context, mut say: impl FnMut(HeaderName, &[u8])) {
    let address = context.client.to_string();
    let [ip, forwarded, forwarded_for, proto, forwarded_host, host, id] = WRITTEN;
    say(ip, address.as_bytes());
    let (open, close) = if context.client.is_ipv6() { ("\"[", "]\"") } else { ("", "") };
    // RFC 7239: a host with a port or brackets is a quoted string.
    let text = format!("for={open}{address}{close};host=\"{}\";proto={}", context.authority, context.scheme());
    say(forwarded, text.as_bytes());
    say(forwarded_for, context.proxied_for().map_or(address.as_bytes(), HeaderValue::as_bytes));
    say(proto, context.scheme().as_bytes());
    say(forwarded_host, context.authority.as_bytes());
    say(host, context.authority.as_bytes());
    say(id, context.id().as_bytes());
}

/// Who asks, for an upstream: rewritten, never passed on.
pub(crate) fn identify(headers: &mut HeaderMap, context: &Context) {
    strip(headers, |name| is_foreign(name, context));
    who_asks(context, |name, value| {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    });
}

/// The same for a worker: what it gets beside the fields that are left.
pub(crate) fn identified(headers: &mut HeaderMap, context: &Context) -> Fields {
    strip(headers, |name| is_foreign(name, context) || WRITTEN.contains(name));
    let mut fields = Fields::with_capacity(WRITTEN_BYTES);
    who_asks(context, |name, value| fields.push(name.as_str(), value));
    fields.freeze()
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
        let connection = Connection { peer: peer.parse().expect("an address"), protocol: Protocol::Http1, tls: None };
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
    fn a_worker_gets_what_an_upstream_gets() {
        let came = headers(&[
            ("host", "x"),
            ("forwarded", "for=6.6.6.6"),
            ("x-host", "evil"),
            ("connection", "x-own"),
            ("x-own", "1"),
            ("cookie", "kept"),
        ]);
        let context = context("[2001:db8::1]:9");
        let (mut upstreams, mut own) = (came.clone(), came);
        identify(&mut upstreams, &context);
        let written = identified(&mut own, &context);
        assert_eq!(own, headers(&[("cookie", "kept")]));
        for (name, value) in written.iter() {
            own.append(HeaderName::from_bytes(name).expect("a name"), HeaderValue::from_bytes(value).expect("a value"));
        }
        assert_eq!(own, upstreams);
    }

    #[test]
    fn passage_is_appended() {
        let mut all = headers(&[("via", "1.1 other"), ("cdn-loop", "other")]);
        mark_passage(&mut all, &context("1.2.3.4:5"), &HeaderValue::from_static("1.1 n"));
        assert_eq!(all.get_all("via").iter().collect::<Vec<_>>(), ["1.1 other", "1.1 n"]);
        assert_eq!(all.get("cdn-loop").expect("it"), "selvedge");
    }
}
