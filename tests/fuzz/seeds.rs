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
        // Of snapshots.
        r#"{"workers":{},"routes":{"a.test/*":{"pattern":"a.test/*","owner":{"site":"www"},"worker":null,"upstream":"http://10.0.0.1"}}}"#,
    ]
    .map(|line| line.as_bytes().to_vec())
    .into_iter()
    .chain([serde_json::to_vec(&snapshot()).expect("JSON")])
    .collect()
}

/// The desired state with one worker.
fn snapshot() -> selvedge_origin::registry::Desired {
    use selvedge_origin::registry::{Deployment, Desired, DesiredWorker, Digest, Share, VersionId};
    let id = VersionId::generate();
    let version = serde_json::json!({
        "worker": "shop", "id": id, "number": 1, "bundle": Digest::zero(), "signature": "0".repeat(128), "cordon": "shared", "vars": {"A": [1]},
        "compatibility_date": "2026-01-01", "compatibility_flags": [], "cpu_ms": 50, "subrequests_max": null, "created_ms": 1, "message": null,
    });
    let version = serde_json::from_value(version).expect("a version's record");
    let deployment =
        Deployment { id: id.clone(), versions: vec![Share { version: id.clone(), percentage: 100.0 }], created_ms: 1, message: None };
    let worker = DesiredWorker { deployment, versions: [(id, version)].into() };
    Desired { workers: [("shop".parse().expect("a name"), worker)].into(), ..Desired::default() }
}

/// The first byte says which body it is.
pub(crate) fn api_bodies() -> Vec<Vec<u8>> {
    use selvedge_origin::keys::{Purpose, SigningKey};
    // The id of a version that is there.
    let (zero, id) = ("0".repeat(64), "0190b8a0-0000-7000-8000-000000000000");
    let key = SigningKey::generate().expect("a key");
    let name = "m".parse().expect("a name");
    let signature = key.sign(Purpose::NodeJoin, selvedge_origin::api::wire::join_message(&name, &key.public()).as_bytes());
    let join = serde_json::json!({"name": name, "region": "eu", "address": "10.0.0.1:1", "key": key.public(), "signature": signature});
    let route =
        r#"{"pattern":"a.test/*","upstream":"https://10.0.0.7","redirect_to_https":true,"cache":{"enabled":true,"ttl_jitter_percent":5}}"#;
    [
        format!(r#"0{{"bundle":"{zero}","cordon":"a","vars":{{"A":{{"b":[1,"c"]}}}},"compatibility_date":"2026-01-01","compatibility_flags":["x_y"],"cpu_ms":50,"subrequests_max":5,"message":"said"}}"#),
        format!(r#"1{{"versions":[{{"version":"{id}","percentage":100}}],"routes":[{{"pattern":"shop.test/*","worker":"shop"}},{route}],"take_over":true}}"#),
        format!(r#"2{{"version":"{id}","message":"back"}}"#),
        r#"3{"message":"closed"}"#.to_owned(),
        format!(r#"4{{"routes":[{route},{{"pattern":"b.test/x/*","worker":"shop"}}],"take_over":false,"dry_run":false,"message":"m"}}"#),
        r#"5{"urls":["https://a.test/x?y"],"prefixes":["a.test/p/"],"hosts":["a.test"],"tags":["t"],"everything":false,"soft":true,"reason":"r"}"#.to_owned(),
        r#"6{"worker":"shop","everything":true,"tags":["t"],"path_prefixes":["/p"]}"#.to_owned(),
        format!("7{join}"),
        format!(r#"8{{"since":null,"position":null,"region":"eu","address":"10.0.0.1:1","peer":"10.0.0.1:2","build":"0.1.0","feed_refusal":"forged","unsettled":[{{"worker":"shop","deployment":"{id}","state":{{"refused":"no"}},"active":["{id}"]}}],"settled":["other"]}}"#),
    ]
    .map(|text| {
        // The digit is the byte that says which.
        let mut bytes = text.into_bytes();
        bytes[0] -= b'0';
        bytes
    })
    .to_vec()
}

pub(crate) fn api_heads() -> Vec<Vec<u8>> {
    let (digest, key, signature) = ("0".repeat(64), "1".repeat(64), "2".repeat(128));
    [
        format!("GET /v1/workers/shop/nodes?seq=7&wait_ms=500&seen={digest}\nnode=\"n\", key=\"{key}\", ts=\"1700000000000000\", body=\"{digest}\", sig=\"{signature}\""),
        format!("PUT /v1/blobs/{digest}\n"),
        "GET /v1/purges/12/nodes?wait_ms=1\nnode=\"n\",ts=\"1\"".to_owned(),
        "DELETE /v1/workers/shop\nx".to_owned(),
        "POST http://a.test:80/v1/nodes/self/report?\n".to_owned(),
    ]
    .map(String::into_bytes)
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
