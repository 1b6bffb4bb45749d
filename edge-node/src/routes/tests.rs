//! Tables of patterns and what they match.

use super::*;

fn route(pattern: &str) -> Route {
    Route {
        pattern: pattern.into(),
        target: Target::Upstream,
        upstream: Some(Arc::new(Group::new(&"http://127.0.0.1:1".into()).expect("an address"))),
        redirect_to_https: false,
        fingerprint: 0,
        compress: Default::default(),
        early_hints: false,
        counters: Arc::default(),
        cache: CacheSettings::default(),
    }
}

fn table(patterns: &[&str]) -> RouteTable {
    RouteTable::compile(patterns.iter().map(|pattern| route(pattern))).expect("patterns of a test")
}

#[test]
fn most_specific_pattern_answers() {
    let table = table(&[
        "/*",
        "/health",
        "*.example.org/*",
        "*.a.example.org/*",
        "www.example.org/*",
        "www.example.org/api/*",
        "www.example.org/api/v1/*",
        "www.example.org/api/*/edit",
        "www.example.org/*.jpg",
        "www.example.org/api",
        "only.example.org/one",
        "[::1]/*",
    ]);
    let cases = [
        ("www.example.org", "/", "www.example.org/*"),
        ("www.example.org", "/api", "www.example.org/api"),
        ("www.example.org", "/api/", "www.example.org/api/*"),
        ("www.example.org", "/api/x.jpg", "www.example.org/api/*"),
        ("www.example.org", "/x.jpg", "www.example.org/*.jpg"),
        ("www.example.org", "/api/7/edit", "www.example.org/api/*/edit"),
        ("www.example.org", "/api/v1/7/edit", "www.example.org/api/v1/*"),
        ("www.example.org", "/apix", "www.example.org/*"),
        ("b.example.org", "/x", "*.example.org/*"),
        ("c.b.example.org", "/x", "*.example.org/*"),
        ("c.a.example.org", "/x", "*.a.example.org/*"),
        ("a.example.org", "/x", "*.example.org/*"),
        ("example.org", "/x", "/*"),
        ("only.example.org", "/one", "only.example.org/one"),
        ("only.example.org", "/two", "*.example.org/*"),
        ("elsewhere", "/health", "/health"),
        ("[::1]", "/health", "[::1]/*"),
    ];
    for (host, path, expected) in cases {
        assert_eq!(table.find(host, path).map(|route| route.pattern.as_ref()), Some(expected), "{host}{path}");
    }
}

#[test]
fn nothing_matches_an_empty_table_or_another_host() {
    assert!(RouteTable::empty().find("a", "/").is_none());
    assert!(table(&["a.org/*"]).find("b.org", "/").is_none());
    assert!(table(&["a.org/x"]).find("a.org", "/xy").is_none());
}

#[test]
fn bad_patterns_are_refused_with_the_rule_that_they_break() {
    for (pattern, words) in [
        ("example.org", "no path"),
        ("https://example.org/*", "no scheme"),
        ("example.org:443/*", "no port"),
        ("[::1]:80/*", "no port"),
        ("*example.org/*", "whole first label"),
        ("a.*.org/*", "whole first label"),
        ("exa mple.org/*", "not a host name"),
        ("a..org/*", "not a host name"),
        ("/a?b", "no query"),
        ("/a#b", "no query"),
        ("/a**", "**"),
        ("/ä", "printable ASCII"),
        ("/*a*b*c*d*e*f*g*h*i", "8 wildcards"),
    ] {
        let error = Pattern::parse(pattern).expect_err(pattern);
        assert!(error.to_string().contains(words), "{pattern}: {error}");
    }
}

#[test]
fn two_patterns_that_say_the_same_are_refused() {
    for pair in [["a.org/*", "A.org/*"], ["/*", "*/*"], ["/x", "/x"], ["/*.jpg", "/*.jpg"]] {
        let error = RouteTable::compile(pair.map(route)).expect_err(pair[1]);
        assert!(matches!(error, RouteError::Twice { .. }), "{error}");
    }
}

#[test]
fn star_stands_for_anything() {
    for (pattern, text, matches) in [
        ("/a*", "/a", true),
        ("/a*b", "/ab", true),
        ("/a*b", "/axbxb", true),
        ("/a*b*c", "/abbc", true),
        ("/a*b*c", "/acb", false),
        ("/*ab*ab", "/ab", false),
        ("/*ab*ab", "/abab", true),
        ("/a", "/ab", false),
    ] {
        assert_eq!(pattern::glob(pattern, text), matches, "{pattern} {text}");
    }
}

#[test]
fn host_of_leaves_port_and_final_dot() {
    for (authority, host) in
        [("a.org:1", "a.org"), ("a.org", "a.org"), ("a.org.", "a.org"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")]
    {
        assert_eq!(host_of(authority), host);
    }
}

#[test]
fn finding_agrees_with_trying_every_pattern() {
    // Small alphabet, many collisions; a fixed generator, so that a failure repeats.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    for _ in 0..300 {
        let mut patterns: Vec<String> = (0..12)
            .map(|_| {
                let mut path = String::from("/");
                for _ in 0..next(6) {
                    path.push(['a', 'b', '/', '*'][next(4) as usize]);
                }
                path.replace("***", "*").replace("**", "*").replace("**", "*")
            })
            .collect();
        patterns.sort();
        patterns.dedup();
        let table = RouteTable::compile(patterns.iter().map(|pattern| route(pattern))).expect("valid");
        for _ in 0..50 {
            let path: String = std::iter::once('/').chain((0..next(7)).map(|_| ['a', 'b', '/'][next(3) as usize])).collect();
            let rank = |pattern: &str| {
                let prefix = pattern.find('*').unwrap_or(usize::MAX);
                (std::cmp::Reverse(prefix), std::cmp::Reverse(pattern.bytes().filter(|b| *b != b'*').count()), pattern.to_owned())
            };
            // `prefix*` alone is last among those with its prefix, which more text already says.
            let expected = patterns.iter().filter(|pattern| pattern::glob(pattern, &path)).min_by_key(|pattern| rank(pattern));
            assert_eq!(table.find("h", &path).map(|route| route.pattern.to_string()), expected.cloned(), "{path} of {patterns:?}");
        }
    }
}

#[test]
fn versions_take_their_share() {
    let source = |version: &str| {
        Arc::new(WorkerSource {
            worker: "w".into(),
            version: version.into(),
            cordon: "shared".into(),
            entry: "index.js".into(),
            modules: Vec::new(),
            vars: Default::default(),
            compatibility_date: "2026-01-01".into(),
            compatibility_flags: Vec::new(),
            limits: Default::default(),
        })
    };
    let worker = ActiveWorker::new("w".into(), [(source("a"), 25.0), (source("none"), 0.0), (source("b"), 75.0)]);
    let at = |draw| worker.choose(draw).map(|version| version.source.version.to_string());
    assert_eq!(at(0.0).as_deref(), Some("a"));
    assert_eq!(at(0.2499).as_deref(), Some("a"));
    assert_eq!(at(0.25).as_deref(), Some("b"));
    assert_eq!(at(0.9999).as_deref(), Some("b"));
    assert!(ActiveWorker::new("w".into(), []).choose(0.5).is_none());
}
