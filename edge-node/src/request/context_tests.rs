//! Names, addresses and loops, as clients send them.

use super::*;

fn connection(peer: &str, tls: bool) -> Connection {
    Connection {
        peer: peer.parse().expect("an address"),
        protocol: Protocol::Http1,
        tls: tls.then_some(crate::listen::TlsInfo { version: "TLSv1.3", server_name: None, node: None }),
    }
}

fn context(uri: &str, fields: &[(&'static str, &str)], peer: &str, trusted: &[&str]) -> Context {
    let mut request = Request::builder().uri(uri).body(()).expect("a request");
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_str(value).expect("a value"));
    }
    let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().expect("a network")).collect();
    Context::of_client(&request, &connection(peer, false), &trusted)
}

#[test]
fn authorities_are_normalised_or_refused() {
    for (text, secure, expected) in [
        ("Example.ORG", true, "example.org"),
        ("example.org:443", true, "example.org"),
        ("example.org:443", false, "example.org:443"),
        ("example.org:80", false, "example.org"),
        ("example.org.", false, "example.org"),
        ("example.org.:8080", false, "example.org:8080"),
        ("example.org:", false, "example.org"),
        ("[::1]:8080", false, "[::1]:8080"),
        ("[::1]", false, "[::1]"),
        ("example.org:0080", false, "example.org"),
    ] {
        assert_eq!(normalise(text, secure).as_deref(), Ok(expected), "{text}");
    }
    for text in ["", ":80", "a b", "a/b", "user@a", "a:b", "a:99999", "[::1", "::1", "a:80:80", "a\0", "[::1]x", "a%2e"] {
        assert!(normalise(text, false).is_err(), "{text:?}");
    }
}

#[test]
fn target_and_host_field_must_agree() {
    assert!(context("/x", &[("host", "a.org")], "127.0.0.1:1", &[]).check().is_ok());
    assert!(context("http://a.org/x", &[("host", "A.org:80")], "127.0.0.1:1", &[]).check().is_ok());
    assert!(context("http://a.org/x", &[("host", "b.org")], "127.0.0.1:1", &[]).check().is_err());
    assert!(context("/x", &[("host", "a.org"), ("host", "a.org")], "127.0.0.1:1", &[]).check().is_err());
    assert!(context("/x", &[], "127.0.0.1:1", &[]).check().is_err());
}

#[test]
fn forwarding_fields_are_believed_from_trusted_proxies_only() {
    let fields = [("host", "a.org"), ("x-forwarded-for", "1.1.1.1, 9.9.9.9, 10.0.0.2"), ("x-forwarded-proto", "https")];
    let stranger = context("/", &fields, "8.8.8.8:1", &["10.0.0.0/8"]);
    assert_eq!((stranger.client, stranger.secure), (IpAddr::from([8, 8, 8, 8]), false));
    assert_eq!(stranger.proxied_for(), None);
    let trusted = context("/", &fields, "10.0.0.1:1", &["10.0.0.0/8"]);
    assert_eq!((trusted.client, trusted.secure), (IpAddr::from([9, 9, 9, 9]), true));
    assert_eq!(trusted.proxied_for().expect("a list"), "9.9.9.9, 10.0.0.2, 10.0.0.1");
    let nobody = context("/", &[("host", "a.org"), ("x-forwarded-for", "nonsense")], "10.0.0.1:1", &["10.0.0.0/8"]);
    assert_eq!(nobody.client, IpAddr::from([10, 0, 0, 1]));
}

#[test]
fn a_request_that_comes_around_too_often_is_refused() {
    let around = |times: usize| {
        let value = vec!["other; selvedge, selvedge; x=1"; times].join(", ");
        context("/", &[("host", "a.org"), ("cdn-loop", &value)], "127.0.0.1:1", &[])
    };
    assert_eq!(around(3).depth, 3);
    assert!(around(LOOP_DEPTH_MAX as usize - 1).check().is_ok());
    assert!(around(LOOP_DEPTH_MAX as usize).check().is_err());
}

#[test]
fn nesting_is_bounded_in_depth_and_number() {
    let request = Request::builder().uri("http://b.org/").body(()).expect("a request");
    let mut deep = context("/", &[("host", "a.org")], "127.0.0.1:1", &[]);
    for depth in 1..LOOP_DEPTH_MAX {
        deep = deep.asks(&request).counted();
        assert_eq!(deep.depth, depth);
        assert!(deep.check().is_ok());
    }
    assert!(matches!(deep.asks(&request).counted().check(), Err(RequestError::Loop { .. })));
    let wide = context("/", &[("host", "a.org")], "127.0.0.1:1", &[]);
    for _ in 0..NESTED_REQUESTS_MAX {
        assert!(wide.asks(&request).counted().check().is_ok());
    }
    assert!(matches!(wide.asks(&request).counted().check(), Err(RequestError::TooManyNested { .. })));
    assert_eq!(wide.asks(&request).counted().id(), wide.id());
}

#[test]
fn dot_segments_are_seen_in_every_spelling() {
    for path in ["/..", "/a/../b", "/./a", "/a/.", "/%2e%2E/a", "/.%2e", "/a/%2e"] {
        assert!(has_dot_segment(path), "{path}");
    }
    for path in ["/", "/a.b", "/...", "/.well-known/x", "/a..", "/%2ea", "/a/%20"] {
        assert!(!has_dot_segment(path), "{path}");
    }
}

#[test]
fn arbitrary_text_is_parsed_without_a_panic() {
    let alphabet = "aZ09.-_:[]%2eE/@ ,;selvedge\u{e9}";
    let letters: Vec<char> = alphabet.chars().collect();
    let mut seed = 3u64;
    for _ in 0..20_000 {
        let text: String = (0..16)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                letters[(seed >> 33) as usize % letters.len()]
            })
            .collect();
        fuzz(text.as_bytes());
    }
}
