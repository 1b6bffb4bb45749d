//! Valid inputs of each target, to be damaged.

use bytes::{Bytes, BytesMut};
use selvedge_runtime::protocol::{BodyKind, CacheCallHead, CacheHead, Encode, RequestHead, ResponseHead, ToEdge, ToRunner};
use selvedge_runtime::{ClientInfo, FetchCache, LogLevel, ModuleKind, Outcome, Redirect};

fn encoded(messages: &[impl Encode]) -> Vec<Vec<u8>> {
    let mut all = BytesMut::new();
    let mut seeds: Vec<Vec<u8>> = messages
        .iter()
        .map(|message| {
            let mut bytes = BytesMut::new();
            message.encode(&mut bytes).expect("a valid message");
            all.extend_from_slice(&bytes);
            bytes.to_vec()
        })
        .collect();
    seeds.push(all.to_vec());
    seeds
}

fn fields_of(pairs: &[(&'static str, &'static str)]) -> http::HeaderMap {
    pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))).collect()
}

fn request() -> Box<RequestHead> {
    let headers = fields_of(&[("host", "a.test"), ("accept", "*/*"), ("cookie", "a=b")]);
    Box::new(RequestHead { method: http::Method::GET, url: "https://a.test/p?q".into(), headers })
}

fn response() -> Box<ResponseHead> {
    Box::new(ResponseHead { status: http::StatusCode::OK, headers: fields_of(&[("content-type", "text/plain"), ("set-cookie", "a=b")]) })
}

fn cache(name: Option<&str>, call: CacheCallHead) -> Box<CacheHead> {
    let headers = fields_of(&[("accept", "*/*")]);
    Box::new(CacheHead { name: name.map(str::to_owned), url: "https://a.test/p?q".into(), headers, call })
}

pub(crate) fn to_runner() -> Vec<Vec<u8>> {
    let client = ClientInfo { ip: [127, 0, 0, 1].into(), http_protocol: "HTTP/3", tls_version: Some("TLSv1.3"), colo: "node".into() };
    let bytes = Bytes::from_static(b"some bytes");
    encoded(&[
        ToRunner::LoadModule { slot: 1, specifier: "index.js".into(), kind: ModuleKind::EsModule, bytes_len: 10, source_map_len: 0 },
        ToRunner::LoadBytes { slot: 1, bytes: bytes.clone() },
        ToRunner::LoadEnd { slot: 1 },
        ToRunner::Start { stream: 1025, slot: 1, head: request(), client, body: BodyKind::Whole(bytes.clone()) },
        ToRunner::BodyData { stream: 1025, part: 0, bytes },
        ToRunner::BodyEnd { stream: 1025, part: 0, error: Some("cut".into()) },
        ToRunner::Credit { stream: 1025, part: 0, bytes: 65536 },
        ToRunner::Cancel { stream: 1025, outcome: Outcome::Canceled },
        ToRunner::Fetched {
            stream: 1025,
            part: 1,
            result: Ok((response(), BodyKind::Stream(Some(5)))),
            url: "https://b.test/".into(),
            redirects: 1,
        },
        ToRunner::Settled { stream: 1025, part: 2, yes: false, note: Some("vary".into()) },
        ToRunner::Unload { slot: 1 },
    ])
}

pub(crate) fn to_edge() -> Vec<Vec<u8>> {
    let bytes = Bytes::from_static(b"some bytes");
    encoded(&[
        ToEdge::Hello { build: "build".into(), unsandboxed: String::new() },
        ToEdge::Loaded { slot: 1, cpu_us: 10, heap_bytes: 1 << 20 },
        ToEdge::Gone { slot: 1, outcome: Outcome::StartupFailed, message: "why".into() },
        ToEdge::Bounced { stream: 1025 },
        ToEdge::Response { stream: 1025, head: response(), body: BodyKind::Whole(bytes.clone()) },
        ToEdge::BodyData { stream: 1025, part: 0, bytes },
        ToEdge::BodyEnd { stream: 1025, part: 0, error: None },
        ToEdge::Credit { stream: 1025, part: 0, bytes: 10 },
        ToEdge::Fetch { stream: 1025, part: 1, head: request(), redirect: Redirect::Follow, cache: None, body: BodyKind::Empty },
        ToEdge::Fetch {
            stream: 1025,
            part: 2,
            head: request(),
            redirect: Redirect::Follow,
            cache: Some(Box::new(FetchCache { ttl_s: Some(60), key: Some("k".into()), tags: vec!["t".into()], ..FetchCache::default() })),
            body: BodyKind::Empty,
        },
        ToEdge::Cache { stream: 1025, part: 3, ask: cache(None, CacheCallHead::Match) },
        ToEdge::Cache { stream: 1025, part: 4, ask: cache(Some("pages"), CacheCallHead::Put(*response(), BodyKind::Stream(None))) },
        ToEdge::PassThrough { stream: 1025 },
        ToEdge::Abandon { stream: 1025, part: 1 },
        ToEdge::Log { stream: 1025, slot: 1, level: LogLevel::Warn, message: "said".into(), exception: false },
        ToEdge::Failed { stream: 1025, outcome: Outcome::Exception, message: "why".into() },
        ToEdge::Done { stream: 1025, outcome: Outcome::Ok, cpu_us: 10, heap_bytes: 1 << 20 },
        ToEdge::Stuck { stream: 1025, slot: 1, outcome: Outcome::ExceededCpu },
    ])
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
        "bytes 4-9/10",
        "bytes 0-499/*",
        "max-age=600+30;selvedge, no-store;other, content=\"ESI/1.0\"",
        "de-AT, en;q=0.8, *;q=0.1",
        "/path?b=2&a=1&&c",
        "gzip;q=0.5, br, identity;q=0.1, *;q=0",
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
