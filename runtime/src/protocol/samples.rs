//! One message of every kind, for the tests of the codec and as a fuzzer's beginning.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::{BodyKind, CacheCallHead, CacheHead, Fields, LoadHead, RequestHead, ResponseHead, ToEdge, ToRunner};
use crate::{CachePurge, ClientInfo, FetchCache, Limits, LogLevel, ModuleKind, Outcome, PurgeRefusal, Redirect, StatusTtl, Var};

fn headers() -> HeaderMap {
    let fields = [("content-type", "text/html"), ("x-own", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2")];
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

fn request() -> Box<RequestHead> {
    Box::new(RequestHead { method: Method::POST, url: "https://shop.example/cart?item=1".to_owned(), headers: headers() })
}

fn response() -> Box<ResponseHead> {
    Box::new(ResponseHead { status: StatusCode::OK, headers: headers() })
}

fn raw_request() -> Box<RequestHead<Fields>> {
    let RequestHead { method, url, headers } = *request();
    Box::new(RequestHead { method, url, headers: Fields::from(&headers) })
}

fn raw_response() -> Box<ResponseHead<Fields>> {
    let ResponseHead { status, headers } = *response();
    Box::new(ResponseHead { status, headers: Fields::from(&headers) })
}

fn wishes() -> Box<FetchCache> {
    Box::new(FetchCache {
        ttl_s: Some(60),
        ttl_by_status: vec![StatusTtl { from: 400, to: 499, ttl_s: -1 }],
        everything: Some(true),
        key: Some("by country".to_owned()),
        tags: vec!["shop".to_owned(), "item:1".to_owned()],
    })
}

fn cache(name: Option<&str>, call: CacheCallHead) -> Box<CacheHead> {
    Box::new(CacheHead { name: name.map(str::to_owned), url: "https://shop.example/item".to_owned(), headers: headers(), call })
}

fn purge() -> Box<CachePurge> {
    let [tags, path_prefixes, urls, prefixes, hosts] =
        ["item:1", "/cart/", "https://shop.example/", "shop.example/a", "shop.example"].map(|name| vec![name.to_owned()]);
    Box::new(CachePurge { tags, path_prefixes, urls, prefixes, hosts, everything: true, soft: true })
}

fn load_head() -> Box<LoadHead> {
    let vars = [("GREETING".to_owned(), Var::Text("hi".to_owned())), ("LIST".to_owned(), Var::Json(serde_json::json!([1, 2])))];
    Box::new(LoadHead {
        worker: "shop".to_owned(),
        version: "0190".to_owned(),
        entry: "index.js".to_owned(),
        modules_len: 1,
        vars: vars.into(),
        compatibility_date: "2026-01-01".to_owned(),
        compatibility_flags: vec!["a_flag".to_owned()],
        limits: Limits::default(),
    })
}

pub(super) fn to_runner() -> Vec<ToRunner> {
    let bytes = Bytes::from_static(b"some bytes");
    let client = ClientInfo { http_protocol: "HTTP/3", tls_version: Some("TLSv1.3"), colo: "node-1".into() };
    let old = ClientInfo { http_protocol: "HTTP/1.1", tls_version: None, colo: "node-1".into() };
    let (stream, slot, part) = (1025, 7, 3);
    vec![
        ToRunner::LoadBegin { slot, head: load_head() },
        ToRunner::LoadModule { slot, specifier: "index.js".to_owned(), kind: ModuleKind::EsModule, bytes_len: 10, source_map_len: 0 },
        ToRunner::LoadBytes { slot, bytes: bytes.clone() },
        ToRunner::LoadEnd { slot },
        ToRunner::Unload { slot },
        ToRunner::Start { stream, slot, head: raw_request(), client, body: BodyKind::Whole(bytes.clone()) },
        ToRunner::Start { stream, slot, head: raw_request(), client: old, body: BodyKind::Stream(Some(9)) },
        ToRunner::BodyData { stream, part, bytes: bytes.clone() },
        ToRunner::BodyEnd { stream, part, error: None },
        ToRunner::BodyEnd { stream, part, error: Some("cut".to_owned()) },
        ToRunner::Credit { stream, part, bytes: 65536 },
        ToRunner::Cancel { stream, outcome: Outcome::Canceled },
        ToRunner::Settled { stream, part, yes: true, note: None },
        ToRunner::Settled { stream, part, yes: false, note: Some("set-cookie".to_owned()) },
        ToRunner::Purged { stream, part, refused: None },
        ToRunner::Purged { stream, part, refused: Some(PurgeRefusal { code: 429, message: "too much".to_owned() }) },
        ToRunner::Fetched { stream, part, result: Err("no route".to_owned()), url: String::new(), redirects: 0 },
        ToRunner::Fetched {
            stream,
            part,
            result: Ok((raw_response(), BodyKind::Stream(None))),
            url: "https://shop.example/".to_owned(),
            redirects: 2,
        },
    ]
}

pub(super) fn to_edge() -> Vec<ToEdge> {
    let bytes = Bytes::from_static(b"some bytes");
    let (stream, slot, part) = (1025, 7, 3);
    let text = || "TypeError: no\n    at index.js:1:1".to_owned();
    vec![
        ToEdge::Hello { build: super::BUILD.to_owned(), unsandboxed: String::new() },
        ToEdge::Loaded { slot, cpu_us: 1234, heap_bytes: 1 << 20 },
        ToEdge::Gone { slot, outcome: Outcome::StartupFailed, message: text() },
        ToEdge::Bounced { stream },
        ToEdge::Response { stream, head: response(), body: BodyKind::Whole(bytes.clone()) },
        ToEdge::Response { stream, head: response(), body: BodyKind::Empty },
        ToEdge::BodyData { stream, part, bytes },
        ToEdge::BodyEnd { stream, part, error: Some("cut".to_owned()) },
        ToEdge::Credit { stream, part, bytes: 65536 },
        ToEdge::Fetch { stream, part, head: request(), redirect: Redirect::Manual, cache: None, body: BodyKind::Stream(Some(9)) },
        ToEdge::Fetch { stream, part, head: request(), redirect: Redirect::Follow, cache: Some(wishes()), body: BodyKind::Empty },
        ToEdge::Cache { stream, part, ask: cache(None, CacheCallHead::Match) },
        ToEdge::Cache { stream, part, ask: cache(Some("pages\0"), CacheCallHead::Put(*response(), BodyKind::Stream(None))) },
        ToEdge::Cache { stream, part, ask: cache(Some(""), CacheCallHead::Delete) },
        ToEdge::Purge { stream, part, purge: Box::default() },
        ToEdge::Purge { stream, part, purge: purge() },
        ToEdge::PassThrough { stream },
        ToEdge::Stays { stream },
        ToEdge::Abandon { stream, part },
        ToEdge::Log { stream, slot, level: LogLevel::Warn, message: text(), exception: true, place: text() },
        ToEdge::Failed { stream, outcome: Outcome::Exception, message: text() },
        ToEdge::Done { stream, outcome: Outcome::Ok, cpu_us: 321, heap_bytes: 1 << 20 },
        ToEdge::Stuck { stream, slot, outcome: Outcome::ExceededCpu },
    ]
}
