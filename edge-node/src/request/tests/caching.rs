//! Stored responses, as clients see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::{Method, Request};
use selvedge_origin::registry::CacheSettings;
use selvedge_runtime::Body;

use super::settings::noting;
use super::world::*;

#[tokio::test]
async fn a_stored_response_answers_while_it_is_fresh() {
    let server = Server::fixed(&[("cache-control", "max-age=60")], "page").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    assert_eq!(world.look("/").await, (200, "edge-1; fwd=uri-miss; fwd-status=200; stored".into(), "page".into()));
    world.pass(7);
    let response = world.get("/").await;
    assert_eq!(field(response.headers(), "age"), "7");
    assert_eq!(look(response).await, (200, "edge-1; hit; ttl=53".into(), "page".into()));
    world.pass(60);
    assert_eq!(world.look("/").await.1, "edge-1; fwd=stale; fwd-status=200; stored");
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn what_says_nothing_of_its_freshness_is_not_stored() {
    let server = Server::fixed(&[("etag", "\"a\"")], "page").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    for _ in 0..2 {
        assert_eq!(world.look("/").await, (200, "edge-1; fwd=uri-miss; fwd-status=200; detail=no-lifetime".into(), "page".into()));
    }
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_stale_response_is_validated_and_freshened() {
    let server = Server::start(|request| async move {
        if request.headers().get("if-none-match").is_some_and(|tag| tag == "\"a\"") {
            return response(304, &[("cache-control", "max-age=100"), ("x-new", "1")], "");
        }
        response(200, &[("cache-control", "max-age=10"), ("etag", "\"a\""), ("x-old", "1")], "page")
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    world.look("/").await;
    world.pass(20);
    let response = world.get("/").await;
    assert_eq!((field(response.headers(), "x-new"), field(response.headers(), "x-old")), ("1".into(), "1".into()));
    assert_eq!(look(response).await, (200, "edge-1; fwd=stale; fwd-status=304; stored".into(), "page".into()));
    world.pass(90);
    assert_eq!(world.look("/").await.1, "edge-1; hit; ttl=10");
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_304_about_another_response_is_not_believed() {
    let server = Server::start(|request| async move {
        if request.headers().contains_key("if-none-match") {
            return response(304, &[("etag", "\"other\"")], "");
        }
        response(200, &[("cache-control", "max-age=1"), ("etag", "\"a\"")], "page")
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    world.look("/").await;
    world.pass(5);
    assert_eq!(world.look("/").await.2, "page");
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn what_a_confirmation_says_to_one_client_reaches_nobody_else() {
    let fresh = [("cache-control", "max-age=10"), ("etag", "\"a\"")];
    for (asked, told) in [("cookie", ("set-cookie", "session=1")), ("authorization", ("x-user", "one"))] {
        for method in [Method::GET, Method::HEAD] {
            let server = Server::start(move |request| async move {
                let (validates, head) = (request.headers().contains_key("if-none-match"), *request.method() == Method::HEAD);
                let fields = [fresh[0], fresh[1], told];
                let fields = if request.headers().contains_key(asked) { &fields[..] } else { &fields[..2] };
                response(if validates { 304 } else { 200 }, fields, if validates || head { "" } else { "page" })
            })
            .await;
            let world = World::new(vec![to_upstream("/*", &server)]);
            world.look("/").await;
            world.pass(20);
            let mut one = get("/", &[(asked, "secret")]);
            *one.method_mut() = method.clone();
            assert_eq!(world.send(one).await.status(), 200);
            for _ in 0..2 {
                let other = world.get("/").await;
                assert!(!other.headers().contains_key(told.0), "{asked} {method}: {:?}", other.headers());
                world.rest().await;
            }
        }
    }
}

#[tokio::test]
async fn a_304_may_say_that_a_response_varies_from_now_on() {
    for (vary, hits) in [("accept-language", true), ("*", false)] {
        let server = Server::start(move |request| async move {
            let fields = [("cache-control", "max-age=10"), ("etag", "\"de\""), ("vary", vary)];
            if request.headers().get("accept-language").is_some_and(|language| language != "de") {
                return response(200, &[("cache-control", "max-age=10"), ("vary", vary)], "hello");
            }
            let first = !request.headers().contains_key("if-none-match");
            response(if first { 200 } else { 304 }, &fields[..if first { 2 } else { 3 }], if first { "hallo" } else { "" })
        })
        .await;
        let world = World::new(vec![to_upstream("/*", &server)]);
        let ask = async |language: &'static str| look(world.send(get("/", &[("accept-language", language)])).await).await;
        assert_eq!(ask("de").await.2, "hallo");
        world.pass(20);
        assert_eq!(ask("de").await.2, "hallo", "the 304 says it");
        assert_eq!(ask("en").await.2, "hello", "{vary}");
        let again = ask("de").await;
        assert_eq!((again.1.contains("; hit;"), again.2.as_str()), (hits, "hallo"), "{vary}: {}", again.1);
    }
}

#[tokio::test]
async fn a_stale_response_answers_while_one_request_refreshes_it() {
    let version = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |_| {
        let number = version.fetch_add(1, SeqCst);
        async move { response(200, &[("cache-control", "max-age=1, stale-while-revalidate=60")], ["old", "new"][number.min(1)]) }
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    world.look("/").await;
    world.pass(5);
    assert_eq!(world.look("/").await, (200, "edge-1; hit; ttl=-4; detail=stale-while-revalidate".into(), "old".into()));
    world.tasks.drain(std::time::Duration::from_secs(10)).await;
    assert_eq!(world.look("/").await.2, "new");
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_stale_response_stands_in_for_an_upstream_that_is_away() {
    for (control, status) in [("max-age=1", 200), ("max-age=1, must-revalidate", 504), ("s-maxage=1", 504)] {
        let server = Server::start(move |_| async move { response(200, &[("cache-control", control)], "page") }).await;
        let world = World::new(vec![to_upstream("/*", &server)]);
        world.look("/").await;
        drop(server);
        world.pass(5);
        assert_eq!(world.look("/").await.0, status, "{control}");
    }
}

#[tokio::test]
async fn a_stale_response_stands_in_for_a_500_unless_it_must_not() {
    let cases = [
        ("max-age=1, stale-if-error=60", 200),
        ("max-age=1", 200),
        ("max-age=1, stale-if-error=2", 500),
        ("max-age=1, must-revalidate", 500),
    ];
    for (control, status) in cases {
        let number = AtomicUsize::new(0);
        let server = Server::start(move |_| {
            let first = number.fetch_add(1, SeqCst) == 0;
            async move { if first { response(200, &[("cache-control", control)], "page") } else { response(500, &[], "broken") } }
        })
        .await;
        let world = World::new(vec![to_upstream("/*", &server)]);
        world.look("/").await;
        world.pass(5);
        assert_eq!(world.look("/").await.0, status, "{control}");
    }
}

#[tokio::test]
async fn conditions_and_ranges_are_answered_from_what_is_stored() {
    let server = Server::fixed(&[("cache-control", "max-age=60"), ("etag", "\"a\"")], "0123456789").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    // The first client's own condition is answered too, from the whole response that was fetched for it.
    let first = world.send(get("/", &[("if-none-match", "\"a\"")])).await;
    assert_eq!(first.status(), 304);
    let response = world.send(get("/", &[("if-none-match", "\"a\"")])).await;
    assert_eq!((response.status().as_u16(), field(response.headers(), "etag")), (304, "\"a\"".into()));
    let response = world.send(get("/", &[("range", "bytes=2-4")])).await;
    assert_eq!((response.status().as_u16(), field(response.headers(), "content-range")), (206, "bytes 2-4/10".into()));
    assert_eq!(field(response.headers(), "content-length"), "3");
    assert_eq!(text(response).await, "234");
    let response = world.send(get("/", &[("range", "bytes=20-")])).await;
    assert_eq!((response.status().as_u16(), field(response.headers(), "content-range")), (416, "bytes */10".into()));
    let mut head = get("/", &[]);
    *head.method_mut() = Method::HEAD;
    let response = world.send(head).await;
    assert_eq!((field(response.headers(), "content-length"), text(response).await), ("10".into(), String::new()));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn responses_that_vary_are_kept_apart() {
    let server = Server::start(|request| async move {
        let german = request.headers().get("accept-language").is_some_and(|language| language == "de");
        response(200, &[("cache-control", "max-age=60"), ("vary", "accept-language")], if german { "hallo" } else { "hello" })
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    for (language, expected) in [("de", "hallo"), ("en", "hello"), ("de", "hallo"), ("en", "hello")] {
        assert_eq!(text(world.send(get("/", &[("accept-language", language)])).await).await, expected);
    }
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn answers_that_are_one_clients_own_are_not_stored() {
    const CASES: [(&str, &str, &str); 3] = [
        ("authorization", "cache-control", "max-age=60"),
        ("cookie", "cache-control", "private, max-age=60"),
        ("cookie", "set-cookie", "a=b"),
    ];
    for (request, name, value) in CASES {
        let server = Server::start(move |_| async move { response(200, &[("cache-control", "max-age=60"), (name, value)], "mine") }).await;
        let world = World::new(vec![to_upstream("/*", &server)]);
        for _ in 0..2 {
            world.send(get("/", &[(request, "secret")])).await;
        }
        assert_eq!(server.requests(), 2, "{name}: {value}");
    }
}

#[tokio::test]
async fn an_unsafe_method_makes_what_is_stored_invalid() {
    let server = Server::start(|request| async move {
        if request.method() == Method::POST {
            return response(201, &[("location", "/made"), ("content-location", "http://other.org/")], "");
        }
        response(200, &[("cache-control", "max-age=60")], "page")
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    for path in ["/", "/made", "/other"] {
        world.look(path).await;
    }
    let post = Request::post("/").header("host", "www.example.org").body(Body::full("x")).expect("a request");
    assert_eq!(look(world.send(post).await).await.1, "edge-1; fwd=method; fwd-status=201; detail=method");
    for (path, hit) in [("/", false), ("/made", false), ("/other", true)] {
        assert_eq!(world.look(path).await.1.contains("hit"), hit, "{path}");
    }
}

#[tokio::test]
async fn a_request_may_ask_for_what_is_stored_only_or_for_nothing_to_be_stored() {
    let server = Server::fixed(&[("cache-control", "max-age=60")], "page").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let only = [("cache-control", "only-if-cached")];
    assert_eq!(world.send(get("/", &only)).await.status(), 504);
    world.send(get("/", &[("cache-control", "no-store")])).await;
    assert_eq!(world.send(get("/", &only)).await.status(), 504);
    world.look("/").await;
    assert_eq!(world.send(get("/", &only)).await.status(), 200);
    // What is stored does not fulfil the condition, and a body may decide about the answer.
    assert_eq!(world.send(get("/", &[only[0], ("if-match", "\"b\"")])).await.status(), 504);
    let with_body = Request::get("/").header("host", "www.example.org").header("cache-control", "only-if-cached");
    assert_eq!(world.send(with_body.body(Body::full("x")).expect("a request")).await.status(), 504);
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn our_own_errors_are_never_stored() {
    let server = Server::fixed(&[("cache-control", "max-age=60")], "page").await;
    let address = server.address;
    let mut route = to_upstream("/*", &server);
    // (It is of what upstreams say.)
    route.cache = CacheSettings { status_ttl_s: [(502, 60)].into(), ..CacheSettings::default() };
    let world = World::new(vec![route]);
    drop(server);
    assert_eq!(world.get("/").await.status(), 502);
    assert!(world.path.cache().usage().0 == 0, "{address}");
}

#[tokio::test]
async fn a_response_that_proves_too_large_is_passed_on_and_not_stored() {
    let server = Server::start(|_| async {
        let chunks = futures::stream::iter((0..64).map(|_| Ok(bytes::Bytes::from(vec![b'x'; 64 << 10]))));
        http::Response::builder().header("cache-control", "max-age=60").body(Body::chunks(chunks)).expect("a response")
    })
    .await;
    let mut route = to_upstream("/*", &server);
    route.cache = CacheSettings { entry_bytes_max: 100_000, ..CacheSettings::default() };
    let world = World::new(vec![route]);
    for _ in 0..2 {
        assert_eq!(world.look("/").await.2.len(), 4 << 20);
    }
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_route_may_turn_its_cache_off() {
    let server = Server::fixed(&[("cache-control", "max-age=60")], "page").await;
    let mut route = to_upstream("/*", &server);
    route.cache.enabled = Some(false);
    let world = World::new(vec![route]);
    for _ in 0..2 {
        assert_eq!(world.look("/").await.1, "");
    }
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_refresh_is_no_clients_fetch_and_is_kept_whatever_the_one_said_who_brought_it_about() {
    let (server, said) = noting(&[("cache-control", "max-age=10, stale-while-revalidate=60")], "cache-control").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    world.look("/").await;
    world.pass(20);
    // What it brings could not be kept: it brings none about.
    assert_eq!(world.send(get("/", &[("authorization", "me")])).await.status(), 200);
    world.rest().await;
    assert_eq!(server.requests(), 1);
    assert_eq!(world.send(get("/", &[("cache-control", "no-store"), ("pragma", "no-cache")])).await.status(), 200);
    world.rest().await;
    assert_eq!(*said.lock(), ["", ""]);
    assert_eq!(world.look("/").await.1, "edge-1; hit; ttl=10");
}

#[tokio::test]
async fn a_fetch_that_others_may_follow_does_not_ask_for_what_is_stale() {
    let (server, said) = noting(&[("cache-control", "max-age=10")], "cache-control").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    world.send(get("/", &[("cache-control", "max-age=5, max-stale=60, x=\"max-stale\"")])).await;
    assert_eq!(*said.lock(), ["max-age=5, x=\"max-stale\""]);
}
