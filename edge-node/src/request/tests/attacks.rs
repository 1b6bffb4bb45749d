//! What attackers try, and the rules hold off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::{HeaderMap, Method, Request, Response};
use http_body::Body as _;
use selvedge_origin::registry::CacheSettings;
use selvedge_runtime::{Body, Outcome, RunError};

use super::parts::raw;
use super::settings::{PAGE, noting, with, world};
use super::world::*;

#[tokio::test]
async fn what_would_make_another_request_of_a_get_reaches_nobody() {
    for name in ["x-original-url", "x-rewrite-url", "x-original-host", "x-forwarded-uri", "x-http-method-override", "x-method-override"] {
        let (server, seen) = noting(PAGE, name).await;
        let world = with(&server, CacheSettings::default());
        world.send(get("/", &[(name, "POST")])).await;
        assert!(world.look("/").await.1.contains("hit"), "{name} is no part of the key");
        assert_eq!(*seen.lock(), [""], "{name}");
    }
    let (server, seen) = noting(PAGE, "x-http-method-override").await;
    let world = with(&server, CacheSettings::default());
    let post = Request::post("/").header("host", "www.example.org").header("x-http-method-override", "PATCH");
    world.send(post.body(Body::full("x")).expect("a request")).await;
    assert_eq!(*seen.lock(), ["PATCH"], "it is what it is for");
}

#[tokio::test]
async fn no_client_purges_whatever_method_it_names() {
    let server = Server::start(|request| {
        let known = *request.method() == Method::GET || request.uri().path() == "/b";
        async move { response(if known { 200 } else { 405 }, &[("cache-control", "max-age=60"), ("cache-tag", "t")], "page") }
    })
    .await;
    let world = with(&server, CacheSettings::default());
    let send = async |method: &str, path: &str| {
        let mut request =
            get(path, &[("cache-tag", "t"), ("surrogate-key", "t"), ("x-purge-regex", ".*"), ("x-http-method-override", "PURGE")]);
        *request.method_mut() = method.parse().expect("a method");
        look(world.send(request).await).await
    };
    for path in ["/a", "/b"] {
        world.look(path).await;
    }
    for method in ["PURGE", "PURGEALL", "BAN", "REFRESH", "FASTLYPURGE", "DELETE", "POST"] {
        assert_eq!(send(method, "/a").await.0, 405, "{method} is for the upstream, as any method is");
        assert!(world.look("/a").await.1.contains("hit"), "{method}");
    }
    // An upstream that knows the method has changed this URI, as with any that is not safe: this one, and nothing of the same tag.
    assert_eq!(send("PURGE", "/b").await.0, 200);
    assert!(!world.look("/b").await.1.contains("hit") && world.look("/a").await.1.contains("hit"));
}

#[tokio::test]
async fn a_get_with_a_body_is_neither_answered_from_the_cache_nor_stored() {
    let (world, server) = world(PAGE, CacheSettings::default()).await;
    let with_body = || Request::get("/").header("host", "www.example.org").body(Body::full("x=1")).expect("a request");
    for requests in 1..=2 {
        assert!(look(world.send(with_body()).await).await.1.ends_with("detail=body"));
        assert_eq!(server.requests(), requests);
    }
    assert!(world.look("/").await.1.contains("fwd=uri-miss"), "what a body asked for is not what all get");
    assert!(look(world.send(with_body()).await).await.1.ends_with("detail=body"), "nor is what all get an answer to it");
}

#[tokio::test]
async fn a_worker_that_says_another_length_than_its_body_has_is_corrected() {
    for (length, in_pieces) in [("10", false), ("10", true), ("3", false), ("3", true)] {
        let mut route = to_worker("/*", "w");
        route.cache = CacheSettings { enabled: Some(true), ..Default::default() };
        let world = World::with_worker(vec![route], move |_| async move {
            let pieces = futures::stream::iter(["sh", "ort"].map(|piece| Ok(bytes::Bytes::from_static(piece.as_bytes()))));
            let body = if in_pieces { Body::chunks(Box::pin(pieces)) } else { Body::full("short") };
            Ok(Response::builder().header("cache-control", "max-age=60").header("content-length", length).body(body).expect("a response"))
        });
        for answer in [world.get("/").await, world.get("/").await] {
            assert_ne!(field(answer.headers(), "content-length"), length, "{in_pieces}");
            assert_eq!(text(answer).await, "short");
        }
        assert_eq!(world.path.cache().usage().0, 1);
    }
}

#[tokio::test]
async fn forwarding_fields_of_clients_name_nothing_and_reach_nobody() {
    let (server, seen) = noting(PAGE, "x-forwarded-host").await;
    let world = with(&server, CacheSettings::default());
    world.send(get("/", &[("x-forwarded-host", "evil.example"), ("x-forwarded-proto", "https"), ("x-original-url", "/admin")])).await;
    assert!(world.look("/").await.1.contains("hit"), "they are no part of the key");
    assert_eq!(*seen.lock(), ["www.example.org"]);
    let other = Request::get("/").header("host", "other.example").body(Body::empty()).expect("a request");
    assert!(look(world.send(other).await).await.1.contains("fwd=uri-miss"), "the host is");
}

#[tokio::test]
async fn tags_stay_inside() {
    let fields = &[("cache-control", "max-age=60"), ("cache-tag", "secret"), ("surrogate-key", "secret")];
    for enabled in [None, Some(false)] {
        let (world, _server) = world(fields, CacheSettings { enabled, ..Default::default() }).await;
        let post = || Request::post("/").header("host", "www.example.org").body(Body::full("x")).expect("a request");
        for response in [world.get("/").await, world.get("/").await, world.send(post()).await] {
            assert!(!response.headers().contains_key("cache-tag") && !response.headers().contains_key("surrogate-key"), "{response:?}");
        }
    }
}

#[tokio::test]
async fn tags_and_what_is_said_of_a_connection_stay_inside_as_trailers_too() {
    let (address, _, _serving) = raw(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npage\r\n0\r\nCache-Tag: t\r\nSurrogate-Key: t\r\nConnection: x-a\r\nX-A: 1\r\nContent-Length: 9\r\nX-Kept: 1\r\n\r\n",
    )
    .await;
    let server = Server::fixed(&[], "").await;
    let mut route = to_upstream("/*", &server);
    route.upstream = Some(group(&format!("http://{address}")));
    let mut body = World::new(vec![route]).get("/").await.into_body();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        trailers.extend(frame.expect("a frame").into_trailers().unwrap_or_default());
    }
    assert_eq!(trailers, HeaderMap::from_iter([("x-kept".parse().expect("a name"), "1".parse().expect("a value"))]));
}

#[tokio::test]
async fn an_account_behind_the_name_of_a_style_sheet_is_not_stored() {
    const HTML: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("content-type", "text/html")];
    let (guarded, server) = world(HTML, CacheSettings::default()).await;
    for path in ["/account/x.css", "/account;x.css", "/account%2fx.css", "/account%3fx.css"] {
        for _ in 0..2 {
            assert!(guarded.look(path).await.1.ends_with("detail=content-type"), "{path}");
        }
    }
    assert_eq!(server.requests(), 8);
    let (open, server) = world(HTML, CacheSettings { deception_check: false, ..Default::default() }).await;
    for _ in 0..2 {
        open.look("/account/x.css").await;
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn variants_of_one_url_are_bounded_whatever_clients_send() {
    let server = Server::fixed(&[("cache-control", "max-age=60"), ("vary", "x-any")], "page").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let one = {
        world.send(get("/", &[("x-any", "0")])).await;
        world.path.cache().usage().1
    };
    for number in 0..200 {
        world.send(get("/", &[("x-any", &number.to_string())])).await;
    }
    let (keys, bytes) = world.path.cache().usage();
    assert!(keys == 1 && bytes < one * 20, "{keys} {bytes} {one}");
}

#[tokio::test]
async fn errors_that_our_limits_make_are_not_stored_whatever_the_route_says_of_their_status() {
    let mut route = to_worker("/*", "w");
    route.cache = CacheSettings { enabled: Some(true), status_ttl_s: [(503, 60), (502, 60)].into(), ..Default::default() };
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let world = World::with_worker(vec![route], move |_| {
        counted.fetch_add(1, SeqCst);
        async { Err(RunError { outcome: Outcome::ExceededCpu, message: String::new(), retry_after: None, request_body: None }) }
    });
    for _ in 0..2 {
        assert_eq!(world.get("/").await.status(), 503);
    }
    assert_eq!((runs.load(SeqCst), world.path.cache().usage().0), (2, 0));
}

#[tokio::test]
async fn what_a_connection_names_is_not_seen_by_the_upstream_and_chooses_no_variant() {
    let server = Server::start(|request| async move {
        let fields = [("cache-control", "max-age=60"), ("vary", "accept-language")];
        response(200, &fields, if field(request.headers(), "accept-language") == "de" { "deutsch" } else { "default" })
    })
    .await;
    let world = with(&server, CacheSettings::default());
    let german = [("accept-language", "de"), ("connection", "accept-language")];
    assert_eq!(text(world.send(get("/", &german)).await).await, "default", "it was said to this node");
    assert_eq!(text(world.send(get("/", &german[..1])).await).await, "deutsch");
    assert_eq!(world.look("/").await.2, "default");
    assert_eq!(server.requests(), 2, "the first was stored for those who name no language");
}

#[tokio::test]
async fn what_varies_on_who_asks_is_kept_for_nobody() {
    for name in ["x-forwarded-for", "Forwarded", "cf-connecting-ip", "accept, X-Request-Id"] {
        let server =
            Server::start(move |_| async move { response(200, &[("cache-control", "max-age=60"), ("vary", name)], "yours") }).await;
        let world = with(&server, CacheSettings::default());
        for _ in 0..2 {
            assert!(world.look("/").await.1.contains("detail=vary"), "{name}");
        }
        assert_eq!(server.requests(), 2, "{name}");
    }
}
