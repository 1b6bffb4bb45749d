//! Valid inputs of each target, to be damaged.

use bytes::Bytes;

/// Each by itself, and one after the other.
fn and_together(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.push(frames.concat());
    frames
}

pub(crate) fn to_runner() -> Vec<Vec<u8>> {
    and_together(selvedge_runtime::protocol::fuzz::frames().1)
}

pub(crate) fn to_edge() -> Vec<Vec<u8>> {
    and_together(selvedge_runtime::protocol::fuzz::frames().0)
}

pub(crate) fn manifests() -> Vec<Vec<u8>> {
    use selvedge_origin::bundle::{ModuleKind, PackModule, pack};
    let module = |specifier: &str, kind| PackModule {
        specifier: specifier.into(),
        kind,
        bytes: Bytes::from_static(b"{}"),
        source_map: Some(Bytes::from_static(b"{\"version\":3}")),
    };
    let packed = pack("index.js", vec![module("index.js", ModuleKind::EsModule), module("data/a.json", ModuleKind::Json)]);
    vec![packed.expect("a valid bundle").manifest.encode()]
}

pub(crate) fn feed() -> Vec<Vec<u8>> {
    // The content of frames; the target signs them where it must.
    [
        r#"{"worker_deleted":{"worker":"a"}}"#,
        r#"{"routes_set":{"owner":{"site":"www"},"routes":[{"pattern":"a.test/*","owner":{"site":"www"},"worker":null,"upstream":"http://10.0.0.1"}]}}"#,
        r#"{"epoch":"0190b8a0-0000-7000-8000-000000000000","seq":1,"chain":"00","changes":[],"sig":"00"}"#,
        r#"{"actor":"admin","at_ms":1,"changes":[{"node_removed":{"node":"n"}}]}"#,
        r#"{"id":"q","ask":{"explain":{"url":"https://a.test/x?y","method":"GET","headers":[["accept","*/*"]]}}}"#,
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec()
}

pub(crate) fn questions() -> Vec<Vec<u8>> {
    let layer = r#"{"place":"route","key":"u http a.test /","verdict":{"action":"forward","cache_status":null,"because":"x"},"stored":null,"others":[[{"name":"a","value":null}]],"uncollapsed":false,"refusal":{"reason":"private","ago_s":1}}"#;
    let told = format!(r#"{{"explained":{{"route":null,"refused":null,"layers":[{layer}]}}}}"#);
    [
        r#"{"ask":{"explain":{"url":"https://a.test/x?y","method":"GET","headers":[["accept","*/*"]]}},"node":null,"wait_ms":5}"#
            .to_owned(),
        r#"{"id":"q","ask":{"upstreams":{}}}"#.to_owned(),
        format!(r#"{{"question":"q","told":{told}}}"#),
        format!(r#"{{"nodes":[{{"node":"n","region":"r","state":"answered","ms":7,"told":{told}}}]}}"#),
    ]
    .map(String::into_bytes)
    .to_vec()
}

pub(crate) fn fields() -> Vec<Vec<u8>> {
    [
        "max-age=60, s-maxage=\"30\", no-cache=\"set-cookie, x\", private, stale-while-revalidate=10",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Tue, 29 Feb 2000 23:59:60 GMT",
        "Sun Nov  6 08:49:37 1994",
        "\"a\", W/\"b\", \"c\"",
        "bytes=0-99, -5, 100-",
        "for=192.0.2.60;proto=http;by=203.0.113.43, for=\"[2001:db8::1]:80\"",
        "node-0;hit;ttl=30, other;fwd=miss",
        "accept-encoding, *",
        "https://a.test/x?y\nGET\naccept\nx-kind",
        "bytes 4-9/10",
        "bytes 0-499/*",
        "max-age=600+30;selvedge, no-store;other, content=\"ESI/1.0\"",
        "de-AT, en;q=0.8, *;q=0.1",
        "/path?b=2&a=1&&c",
        "gzip;q=0.5, br, identity;q=0.1, *;q=0",
        "https://a.test:8443/x?y#z\nGET\naccept",
        "{\"url\":\"a.test/x\",\"method\":\"HEAD\",\"headers\":[[\"range\",\"bytes=0-1\"]]}",
        "</a.css>; rel=preload; as=style, <//cdn.test>; rel=\"preconnect x\"; title=\"a, b\"",
        "0190b8a0-0000-7000-8000-000000000000 7 00000000000000ab",
        "00000000000000ab,00000000000000cd",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// The first byte says how the rest is cut.
pub(crate) fn http1() -> Vec<Vec<u8>> {
    [
        "\u{7}GET /a?b HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\n\r\nGET /next HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "\u{3}POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n12345\r\nGET / HTTP/1.1\r\n\r\n",
        "\u{5}POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\"\r\none\r\n0a\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "\u{2}M-SEARCH http://a.test:80/ HTTP/1.1\r\nHost:a.test:80\r\nX-A: \t one\t \r\n\r\n",
        "\u{9}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub(crate) fn wrangler() -> Vec<Vec<u8>> {
    let json = br#"0{"name":"a","main":"src/index.ts","compatibility_date":"2026-01-01","vars":{"A":"b","C":{"d":[1]}},"routes":["a.test/*",{"pattern":"b.test/*","zone_name":"b.test"}],"limits":{"cpu_ms":50,"subrequests":5},/* said */"cache":{"enabled":true},"compress":{"enabled":true,"codings":["zstd","gzip"],"types":["text/*","*+json"],"min_bytes":9},"early_hints":true}"#;
    let toml = b"1name = \"a\"\nmain = \"index.js\"\ncompatibility_date = \"2026-01-01\"\nroute = \"a.test/*\"\n[vars]\nA = \"b\"\n[limits]\ncpu_ms = 50\n";
    let vars = b"2A=b\nC=\"d e\"\n# said\nexport F='g'\n";
    vec![json.to_vec(), toml.to_vec(), vars.to_vec()]
}

pub(crate) fn cache_settings() -> Vec<Vec<u8>> {
    let full = br#"{"enabled":true,"store_set_cookie":true,"entry_bytes_max":1000,"collapse_wait_ms":5,"request_directives":"all","heuristic_s_max":9,"stale_if_error_s":9,"status_ttl_s":{"404":10,"503":1},"ttl_jitter_percent":5,"early_refresh_percent":5,"vary":{"accept-encoding":"normalise:br,gzip","cookie":"bypass","x-a":"pass"},"query":["page","lang"],"deception_check":false}"#;
    vec![full.to_vec(), br#"{"query":"sort","vary":{"accept":"normalise:image/avif"}}"#.to_vec()]
}

pub(crate) fn sites() -> Vec<Vec<u8>> {
    let site = "name = \"www\"\n[[route]]\npattern = \"a.test/*\"\nupstream = \"https://10.0.0.7\"\nredirect_to_https = true\n[route.cache]\nenabled = true\nstore_set_cookie = false\n[route.compress]\ncodings = [\"br\"]\ntypes = [\"text/html\"]\n";
    vec![site.as_bytes().to_vec()]
}

/// The first byte of each line says which field it is.
pub(crate) fn tags() -> Vec<Vec<u8>> {
    let [by_comma, by_space, told] = ["\0a, B-2 ,, c d", "\u{1}  a\tb-2 x", "\u{2}00000000000000ab,00000000000000cd"];
    let many: String = (0..300).map(|number| format!("{number},")).collect();
    let all = [by_comma.to_owned(), by_space.to_owned(), told.to_owned(), format!("{by_comma}\n{by_space}\n{told}"), format!("\0{many}")];
    all.map(String::into_bytes).to_vec()
}
