//! What a route's cache settings change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::{Method, Request};
use hyper::body::Incoming;
use parking_lot::Mutex;
use selvedge_origin::registry::{CacheSettings, QueryRule, RequestDirectives, VaryRule};
use selvedge_runtime::Body;

use super::world::*;
use crate::cache::date::format_date;
use crate::cache::time::Time;

pub(super) const PAGE: &[(&str, &str)] = &[("cache-control", "max-age=60")];

pub(super) async fn world(fields: &'static [(&'static str, &'static str)], settings: CacheSettings) -> (World, Server) {
    let server = Server::fixed(fields, "page").await;
    let mut route = to_upstream("/*", &server);
    route.cache = settings;
    (World::new(vec![route]), server)
}

/// Answers with `fields`, and notes one field, or the path, of every request.
pub(super) async fn noting(fields: &'static [(&'static str, &'static str)], name: &'static str) -> (Server, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = seen.clone();
    let server = Server::start(move |request: Request<Incoming>| {
        noted.lock().push(if name == ":path" { request.uri().to_string() } else { field(request.headers(), name) });
        async move { response(200, fields, "page") }
    })
    .await;
    (server, seen)
}

pub(super) fn with(server: &Server, settings: CacheSettings) -> World {
    let mut route = to_upstream("/*", server);
    route.cache = settings;
    World::new(vec![route])
}

#[tokio::test]
async fn clients_cannot_make_hits_into_fetches_unless_the_route_lets_them() {
    for (directives, requests) in [(RequestDirectives::Safe, 1), (RequestDirectives::None, 1), (RequestDirectives::All, 6)] {
        let (world, server) = world(PAGE, CacheSettings { request_directives: directives, ..Default::default() }).await;
        world.look("/").await;
        world.pass(2);
        for field in [
            ("cache-control", "no-cache"),
            ("cache-control", "max-age=0"),
            ("cache-control", "max-age=1"),
            ("cache-control", "min-fresh=90"),
            ("pragma", "no-cache"),
        ] {
            assert_eq!(world.send(get("/", &[field])).await.status(), 200);
            world.pass(2);
        }
        assert_eq!(server.requests(), requests, "{directives:?}");
    }
}

#[tokio::test]
async fn a_client_may_take_what_is_stale_and_is_told_so() {
    let (world, server) = world(&[("cache-control", "max-age=1")], CacheSettings::default()).await;
    world.look("/").await;
    world.pass(5);
    let taken = look(world.send(get("/", &[("cache-control", "max-stale=10")])).await).await;
    assert_eq!((taken.0, taken.1.as_str()), (200, "edge-1; hit; ttl=-4; detail=max-stale"));
    assert_eq!(server.requests(), 1);
    world.send(get("/", &[("cache-control", "max-stale=3")])).await;
    assert_eq!(server.requests(), 2, "not as stale as that");
}

#[tokio::test]
async fn preconditions_that_a_stored_response_fulfils_are_hits_and_others_are_the_upstreams_to_decide() {
    let (world, server) = world(&[("cache-control", "max-age=60"), ("etag", "\"a\"")], CacheSettings::default()).await;
    world.look("/").await;
    assert!(look(world.send(get("/", &[("if-match", "\"a\"")])).await).await.1.contains("hit"));
    let other = look(world.send(get("/", &[("if-match", "\"b\"")])).await).await;
    assert_eq!(other.1, "edge-1; fwd=bypass; fwd-status=200; detail=precondition");
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_condition_on_a_miss_fills_the_cache() {
    let (world, server) = world(&[("cache-control", "max-age=60"), ("etag", "\"a\"")], CacheSettings::default()).await;
    assert_eq!(world.send(get("/", &[("if-none-match", "\"a\"")])).await.status(), 304);
    assert!(world.look("/").await.1.contains("hit"));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn statuses_may_have_a_lifetime_of_their_own() {
    let server = Server::start(|request: Request<Incoming>| async move {
        let status = request.uri().path().trim_start_matches('/').parse().expect("a status");
        response(status, &[], "gone")
    })
    .await;
    let world = with(&server, CacheSettings { status_ttl_s: [(404, 10)].into(), ..Default::default() });
    for path in ["/404", "/404", "/403", "/403"] {
        world.look(path).await;
    }
    assert_eq!(server.requests(), 3);
    world.pass(11);
    world.look("/404").await;
    assert_eq!(server.requests(), 4);
}

#[tokio::test]
async fn a_lifetime_is_guessed_only_where_the_route_lets_it() {
    for (heuristic_s_max, requests) in [(86_400, 1), (0, 2)] {
        let server = Server::start(|_| async {
            let mut answer = response(200, &[], "page");
            answer.headers_mut().insert("date", format_date(Time(START_MS)));
            answer.headers_mut().insert("last-modified", format_date(Time(START_MS - 100_000_000)));
            answer
        })
        .await;
        let world = with(&server, CacheSettings { heuristic_s_max, ..Default::default() });
        for _ in 0..2 {
            world.look("/").await;
        }
        assert_eq!(server.requests(), requests, "{heuristic_s_max}");
    }
}

#[tokio::test]
async fn nothing_is_guessed_of_an_answer_to_a_request_with_cookies() {
    for (fields, hit) in [
        (&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")][..], false),
        (&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("cache-control", "public")], true),
        (&[("cache-control", "max-age=60")], true),
    ] {
        let (world, _server) = world(fields, CacheSettings::default()).await;
        world.send(get("/", &[("cookie", "session=1")])).await;
        assert_eq!(world.look("/").await.1.contains("hit"), hit, "{fields:?}");
        world.look("/").await;
        assert!(world.send(get("/", &[("cookie", "session=1")])).await.headers()["cache-status"].to_str().expect("text").contains("hit"));
    }
}

#[tokio::test]
async fn popular_responses_are_refreshed_before_they_end() {
    let (world, server) = world(PAGE, CacheSettings { early_refresh_percent: 50, ..Default::default() }).await;
    world.look("/").await;
    world.pass(29);
    assert_eq!(world.look("/").await.1, "edge-1; hit; ttl=31");
    world.pass(30);
    // A second before its end the odds are 29/30, squared: one of 20 hits refreshes it, unless the draws are against all odds.
    let mut early = false;
    for _ in 0..20 {
        early |= world.look("/").await.1.contains("early-refresh");
    }
    assert!(early);
    world.tasks.drain(std::time::Duration::from_secs(10)).await;
    assert_eq!(server.requests(), 2);
    world.pass(10);
    assert!(world.look("/").await.1.contains("hit"), "the refreshed one goes on");
}

#[tokio::test]
async fn jitter_shortens_lifetimes_and_never_stretches_them() {
    let (world, _server) =
        world(&[("cache-control", "max-age=1000")], CacheSettings { ttl_jitter_percent: 50, ..Default::default() }).await;
    let mut lifetimes = std::collections::BTreeSet::new();
    for number in 0..8 {
        let path = format!("/{number}");
        world.look(&path).await;
        let ttl: u64 = world.look(&path).await.1.rsplit_once("ttl=").and_then(|(_, ttl)| ttl.parse().ok()).expect("a hit");
        assert!((500..=1000).contains(&ttl), "{ttl}");
        lifetimes.insert(ttl);
    }
    assert!(lifetimes.len() > 1, "{lifetimes:?}");
}

#[tokio::test]
async fn what_of_the_query_does_not_count_makes_no_copies_and_reaches_nobody() {
    let (server, seen) = noting(PAGE, ":path").await;
    let world = with(&server, CacheSettings { query: QueryRule::Only(vec!["page".into()]), ..Default::default() });
    for number in 0..20 {
        assert_eq!(world.look(&format!("/a?bust={number}&page=2")).await.0, 200);
    }
    assert_eq!(*seen.lock(), ["/a?page=2"], "an unkeyed parameter could otherwise poison what all get");
    world.look("/a?page=3").await;
    let post = Request::post("/a?page=2&x=1").header("host", "www.example.org").body(Body::full("x")).expect("a request");
    world.send(post).await;
    assert_eq!(seen.lock().last().map(String::as_str), Some("/a?page=2&x=1"), "what is not for the cache keeps its query");
    assert!(!world.look("/a?page=2").await.1.contains("hit"), "and makes invalid what its URI names");
    assert!(world.look("/a?page=3").await.1.contains("hit"));
    assert_eq!(world.path.cache().usage().0, 2);
}

#[tokio::test]
async fn a_normalised_field_makes_few_variants_and_the_upstream_sees_what_is_keyed() {
    let (server, seen) = noting(&[("cache-control", "max-age=60"), ("vary", "accept-language")], "accept-language").await;
    let rule = VaryRule::Normalise(vec!["en".into(), "de".into()]);
    let world = with(&server, CacheSettings { vary: [("accept-language".into(), rule)].into(), ..Default::default() });
    for number in 0..50 {
        let value = format!("de-AT, en;q=0.{number:03}, xx-{number}");
        assert_eq!(world.send(get("/", &[("accept-language", &value)])).await.status(), 200);
    }
    world.send(get("/", &[("accept-language", "xx")])).await;
    world.send(get("/", &[])).await;
    assert_eq!(*seen.lock(), ["de", ""]);
}

#[tokio::test]
async fn responses_that_vary_on_a_bypassed_field_are_not_stored() {
    let settings = CacheSettings { vary: [("cookie".into(), VaryRule::Bypass)].into(), ..Default::default() };
    let (world, server) = world(&[("cache-control", "max-age=60"), ("vary", "cookie")], settings).await;
    for _ in 0..2 {
        assert!(world.look("/").await.1.ends_with("detail=vary-bypass"));
    }
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn without_the_registry_what_is_stored_is_validated_where_the_route_minds() {
    let ours = CacheSettings { max_disconnected_s: 15, ..Default::default() };
    let (minding, server) = world(PAGE, ours).await;
    // The registry was never heard: every answer is asked for anew.
    for asked in 1..=3 {
        assert_eq!(minding.look("/").await.0, 200);
        assert_eq!(server.requests(), asked);
    }
    minding.contact.heard(std::time::Instant::now());
    assert!(minding.look("/").await.1.contains("hit"), "the registry is heard again");
    assert_eq!(server.requests(), 3);
    let (indifferent, server) = world(PAGE, CacheSettings::default()).await;
    for _ in 0..3 {
        indifferent.look("/").await;
    }
    assert_eq!(server.requests(), 1);
    let asked = Arc::new(AtomicUsize::new(0));
    let failing = Server::start(move |_| {
        let first = asked.fetch_add(1, SeqCst) == 0;
        async move { response(if first { 200 } else { 503 }, PAGE, "page") }
    })
    .await;
    let distrusting = with(&failing, CacheSettings { max_disconnected_s: 15, stale_if_error_s: 60, ..Default::default() });
    for method in [Method::GET, Method::GET, Method::HEAD] {
        let mut request = get("/", &[]);
        *request.method_mut() = method.clone();
        let expected = if failing.requests() == 0 { 200 } else { 503 };
        assert_eq!(distrusting.send(request).await.status().as_u16(), expected, "{method}: it may have been purged");
    }
}

#[tokio::test]
async fn fields_that_are_private_go_to_the_first_client_only() {
    let fields = &[
        ("cache-control", "max-age=60, private=\"set-cookie, x-user\", no-cache=\"x-a\""),
        ("set-cookie", "a=b"),
        ("x-user", "me"),
        ("x-a", "1"),
    ];
    let (world, server) = world(fields, CacheSettings::default()).await;
    let first = world.get("/").await;
    assert_eq!((field(first.headers(), "x-user"), field(first.headers(), "set-cookie")), ("me".into(), "a=b".into()));
    let second = world.get("/").await;
    assert!(field(second.headers(), "cache-status").contains("hit"));
    for name in ["x-user", "set-cookie", "x-a"] {
        assert!(!second.headers().contains_key(name), "{name}");
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_head_confirms_or_refutes_what_is_stored() {
    let tag = Arc::new(Mutex::new("\"a\""));
    let current = tag.clone();
    let server = Server::start(move |_| {
        let tag = *current.lock();
        async move { response(200, &[("cache-control", "max-age=10"), ("etag", tag)], "page") }
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let head = || {
        let mut head = get("/", &[]);
        *head.method_mut() = Method::HEAD;
        head
    };
    world.look("/").await;
    world.pass(11);
    assert!(look(world.send(head()).await).await.1.contains("detail=head"));
    assert!(world.look("/").await.1.contains("hit"), "as fresh as the answer to HEAD");
    world.pass(11);
    *tag.lock() = "\"b\"";
    world.send(head()).await;
    assert!(world.look("/").await.1.contains("fwd=uri-miss"), "another version: what was stored is gone");
    assert_eq!(server.requests(), 4);
}

#[tokio::test]
async fn a_stale_response_answers_head_too_while_the_upstream_is_away() {
    for (control, status) in [("max-age=1", 200), ("max-age=1, must-revalidate", 504)] {
        let server = Server::start(move |_| async move { response(200, &[("cache-control", control)], "page") }).await;
        let world = World::new(vec![to_upstream("/*", &server)]);
        world.look("/").await;
        drop(server);
        world.pass(5);
        let mut head = get("/", &[]);
        *head.method_mut() = Method::HEAD;
        assert_eq!(world.send(head).await.status().as_u16(), status, "{control}");
    }
}

#[tokio::test]
async fn a_stale_response_answers_head_too_while_the_upstream_fails() {
    for (control, condition, status) in
        [("max-age=1", "", 200), ("max-age=1", "\"other\"", 503), ("max-age=1, must-revalidate", "", 503), ("max-age=60", "", 200)]
    {
        let asked = Arc::new(AtomicUsize::new(0));
        let server = Server::start(move |_| {
            let first = asked.fetch_add(1, SeqCst) == 0;
            async move { response(if first { 200 } else { 503 }, &[("cache-control", control), ("etag", "\"a\"")], "page") }
        })
        .await;
        let world = with(&server, CacheSettings { request_directives: RequestDirectives::All, ..Default::default() });
        world.look("/").await;
        world.pass(5);
        let mut head = get("/", &[("if-match", condition), ("cache-control", "no-cache")][usize::from(condition.is_empty())..]);
        *head.method_mut() = Method::HEAD;
        assert_eq!(world.send(head).await.status().as_u16(), status, "{control} {condition}");
        assert_eq!(server.requests(), 2);
    }
}

#[tokio::test]
async fn an_answer_to_post_that_says_it_is_its_uris_is_stored_for_get() {
    let number = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |request: Request<Incoming>| {
        number.fetch_add(1, SeqCst);
        let named = if request.uri().path() == "/own" { "/own" } else { "/other" };
        async move { response(200, &[("cache-control", "max-age=60"), ("content-location", named)], "made") }
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    for (path, hit) in [("/own", true), ("/elsewhere", false)] {
        let post = Request::post(path).header("host", "www.example.org").body(Body::full("x")).expect("a request");
        assert_eq!(text(world.send(post).await).await, "made");
        assert_eq!(world.look(path).await.1.contains("hit"), hit, "{path}");
    }
}

#[tokio::test]
async fn an_error_does_not_take_the_place_of_what_is_fresh() {
    let number = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |_| {
        let first = number.fetch_add(1, SeqCst) == 0;
        async move {
            if first { response(200, &[("cache-control", "max-age=60, must-revalidate")], "page") } else { response(503, PAGE, "broken") }
        }
    })
    .await;
    let world = with(&server, CacheSettings { early_refresh_percent: 50, ..Default::default() });
    world.look("/").await;
    world.pass(59);
    for _ in 0..20 {
        assert_eq!(world.look("/").await.0, 200);
    }
    world.tasks.drain(std::time::Duration::from_secs(10)).await;
    assert!(server.requests() > 1, "it was refreshed early");
    assert_eq!(world.look("/").await.2, "page");
    world.pass(2);
    assert_eq!(world.look("/").await.0, 503, "but not when it is stale and must not be used");
}

#[tokio::test]
async fn what_is_said_to_cdns_comes_before_what_is_said_to_all() {
    #[allow(clippy::type_complexity, reason = "the columns of a table")]
    let cases: &[(&'static [(&'static str, &'static str)], bool)] = &[
        (&[("cdn-cache-control", "max-age=60")], true),
        (&[("cdn-cache-control", "max-age=99999999999")], true),
        (&[("cdn-cache-control", "foobar, max-age=60")], true),
        (&[("cdn-cache-control", "max-age=60"), ("cache-control", "no-store")], true),
        (&[("cdn-cache-control", "max-age=60"), ("cache-control", "max-age=1"), ("expires", "0")], true),
        (&[("cdn-cache-control", "max-age=1"), ("cache-control", "max-age=60")], false),
        (&[("cdn-cache-control", "max-age=0"), ("cache-control", "max-age=60")], false),
        (&[("cdn-cache-control", "max-age=60"), ("age", "7200")], false),
        (&[("cdn-cache-control", "private"), ("cache-control", "max-age=60")], false),
        (&[("cdn-cache-control", "no-cache"), ("cache-control", "max-age=60")], false),
        (&[("cdn-cache-control", "no-store"), ("cache-control", "max-age=60")], false),
        (&[("cdn-cache-control", "max-age=60, &&&&&"), ("cache-control", "no-store")], false),
        (&[("cdn-cache-control", "max-age=\"60\""), ("cache-control", "no-store")], false),
        (&[("cdn-cache-control", "max-age=\"60\""), ("cache-control", "max-age=60")], false),
        (&[("cdn-cache-control", ""), ("cache-control", "max-age=60")], true),
    ];
    for (fields, hit) in cases {
        let (world, _server) = world(fields, CacheSettings::default()).await;
        world.look("/").await;
        world.pass(3);
        assert_eq!(world.look("/").await.1.contains("hit"), *hit, "{fields:?}");
    }
}

#[tokio::test]
async fn surrogate_control_is_read_and_announced() {
    let (server, seen) =
        noting(&[("cache-control", "no-store"), ("surrogate-control", "max-age=60;selvedge")], "surrogate-capability").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    // What a client says that it can do is in no key.
    look(world.send(get("/", &[("surrogate-capability", "other=\"ESI/1.0\"")])).await).await;
    assert!(world.look("/").await.1.contains("hit"));
    assert_eq!(*seen.lock(), ["selvedge=\"Surrogate/1.0\""]);
}
