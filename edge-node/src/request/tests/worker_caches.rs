//! The caches of workers, and who answers where a worker passes through.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use selvedge_runtime::{Body, BodyError, CacheAnswer, CacheAsk, CacheCall, FetchError, Host, Invocation, Outcome, RunError};

use super::world::*;
use crate::cache::purge::{Purge, Realm, Strength, Target};
use crate::cache::time::Time;

type Asked = Result<CacheAnswer, FetchError>;

async fn ask(host: &Arc<dyn Host>, name: Option<&str>, url: &str, fields: &[(&'static str, &'static str)], call: CacheCall) -> Asked {
    let headers: HeaderMap = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
    host.cache(CacheAsk { name: name.map(str::to_owned), url: url.to_owned(), headers, call }).await
}

/// Status, body, `cf-cache-status` of what is found; 0 for nothing.
async fn found(asked: Asked) -> (u16, String, String) {
    match asked {
        Ok(CacheAnswer::Found(response)) => {
            let status = field(response.headers(), "cf-cache-status");
            (response.status().as_u16(), text(response).await, status)
        }
        Ok(CacheAnswer::No(note)) => (0, note.unwrap_or_default().to_owned(), String::new()),
        Ok(CacheAnswer::Yes) => (1, String::new(), String::new()),
        Err(error) => (2, error.message, String::new()),
    }
}

fn put(fields: &[(&'static str, &'static str)], body: &'static str) -> CacheCall {
    CacheCall::Put(response(200, fields, body))
}

/// A world whose worker does as the test says; a host of one of its invocations.
async fn host_of(worker: &str) -> (World, Arc<dyn Host>) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let world = World::reaching("127.0.0.0/8", vec![to_worker("www.example.org/*", worker)], move |invocation: Invocation| {
        let _ = sender.send(invocation.host.clone());
        async { Ok(response(200, &[], "")) }
    });
    world.get("/").await;
    let host = receiver.recv().expect("it ran");
    (world, host)
}

#[tokio::test]
async fn what_is_put_is_matched_until_it_is_stale_deleted_or_purged() {
    let (world, host) = host_of("w").await;
    let url = "https://Any.example/a?b";
    assert_eq!(found(ask(&host, None, url, &[], CacheCall::Match).await).await.0, 0);
    let kept = put(&[("cache-control", "max-age=60"), ("etag", "\"1\""), ("content-length", "99"), ("cache-tag", "t")], "0123456789");
    assert_eq!(found(ask(&host, None, url, &[], kept).await).await.0, 1);
    let hit = found(ask(&host, None, "https://any.example:443/a?b", &[], CacheCall::Match).await).await;
    assert_eq!(hit, (200, "0123456789".into(), "HIT".into()));
    assert_eq!(found(ask(&host, None, url, &[("if-none-match", "\"1\"")], CacheCall::Match).await).await.0, 304);
    assert_eq!(found(ask(&host, None, url, &[("range", "bytes=2-4")], CacheCall::Match).await).await, (206, "234".into(), "HIT".into()));
    assert_eq!(found(ask(&host, Some("default"), url, &[], CacheCall::Match).await).await.0, 0, "a cache of a name is another");
    world.pass(61);
    assert_eq!(found(ask(&host, None, url, &[], CacheCall::Match).await).await.0, 0, "stale is not given out");
    for (gone, why) in [(0, "delete"), (1, "purge of the tag"), (2, "purge of the worker"), (3, "purge of the host")] {
        let kept = put(&[("cache-control", "max-age=60"), ("cache-tag", "t")], "x");
        assert_eq!(found(ask(&host, None, url, &[], kept).await).await.0, 1);
        assert_eq!(found(ask(&host, None, url, &[], CacheCall::Match).await).await.0, 200);
        let purge = |target, realm| {
            let purge = Purge { number: gone + 1, at: Time(0), strength: Strength::Hard, realm, targets: vec![target] };
            world.path.cache().purges().apply(&purge);
        };
        match gone {
            0 => {
                assert_eq!(found(ask(&host, None, url, &[], CacheCall::Delete).await).await.0, 1);
                assert_eq!(found(ask(&host, None, url, &[], CacheCall::Delete).await).await.0, 0, "it is gone");
            }
            1 => purge(Target::Tag("t".into()), Realm::NONE),
            2 => purge(Target::Everything, Realm::of_worker("w")),
            _ => purge(Target::Host("any.example".into()), Realm::NONE),
        }
        assert_eq!(found(ask(&host, None, url, &[], CacheCall::Match).await).await.0, 0, "{why}");
    }
}

#[tokio::test]
async fn what_may_not_be_kept_is_refused_or_named() {
    let (_world, host) = host_of("w").await;
    let url = "https://a.org/";
    let tried = async |status: u16, fields: &'static [(&'static str, &'static str)]| {
        found(ask(&host, None, url, &[], CacheCall::Put(response(status, fields, "x"))).await).await
    };
    for (status, fields, expected) in [
        (200, &[("cache-control", "no-store")][..], (0, "no-store")),
        (200, &[("cache-control", "private, max-age=9")], (0, "private")),
        (200, &[("cache-control", "max-age=9"), ("set-cookie", "a=b")], (0, "set-cookie")),
        (304, &[("cache-control", "max-age=9")], (0, "status")),
        (500, &[], (0, "no-lifetime")),
        (206, &[("cache-control", "max-age=9")], (2, "cache: Cannot cache response to a range request (206 Partial Content).")),
        (200, &[("vary", "accept, *")], (2, "cache: Cannot cache response with 'Vary: *' header.")),
        (200, &[], (1, "")),
    ] {
        let (answer, note, _) = tried(status, fields).await;
        assert_eq!((answer, note.as_str()), expected, "{status} {fields:?}");
    }
    // Cloudflare's way to keep a response without its cookie.
    assert_eq!(tried(200, &[("cache-control", "max-age=9, private=Set-Cookie"), ("set-cookie", "a=b")]).await.0, 1);
    let Ok(CacheAnswer::Found(kept)) = ask(&host, None, url, &[], CacheCall::Match).await else { panic!("kept") };
    assert!(!kept.headers().contains_key("set-cookie"));
    assert_eq!(field(kept.headers(), "content-length"), "1");
    for key in ["ftp://a.org/", "/relative", "https://", "a b", "https://user@a.org/"] {
        assert_eq!(found(ask(&host, None, key, &[], CacheCall::Match).await).await.0, 2, "{key}");
    }
}

#[tokio::test]
async fn a_body_that_fails_or_does_not_end_keeps_nothing() {
    let (_world, host) = host_of("w").await;
    let url = "https://a.org/";
    let piece = || Ok(bytes::Bytes::from_static(&[0; 64 << 10]));
    let broken = futures::stream::iter([piece(), Err(BodyError::Aborted("cut".into()))]);
    let endless = futures::stream::repeat_with(piece);
    for (body, expected) in [(Body::chunks(broken), "cut"), (Body::chunks(endless), "nothing was kept")] {
        let response = Response::builder().header("cache-control", "max-age=60").body(body).expect("a response");
        let (answer, why, _) = found(ask(&host, None, url, &[], CacheCall::Put(response)).await).await;
        assert!(answer == 2 && why.contains(expected), "{why}");
        assert_eq!(found(ask(&host, None, url, &[], CacheCall::Match).await).await.0, 0);
    }
}

#[tokio::test]
async fn workers_do_not_read_what_others_keep_and_clients_do_not_either() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let routes = vec![to_worker("www.example.org/*", "w"), to_worker("other.example.org/*", "w2")];
    let world = World::with_worker(routes, move |invocation: Invocation| {
        let _ = sender.send(invocation.host.clone());
        async { Ok(response(200, &[], "the worker's")) }
    });
    world.get("/").await;
    let request = Request::builder().uri("/").header("host", "other.example.org").body(Body::empty()).expect("a request");
    world.send(request).await;
    let [one, other] = [receiver.recv().expect("it ran"), receiver.recv().expect("it ran")];
    let url = "http://www.example.org/page";
    for name in [None, Some(""), Some("2"), Some("a\nhttp\nwww.example.org\n/page"), Some("\0")] {
        assert_eq!(found(ask(&one, name, url, &[], put(&[], "secret")).await).await.0, 1);
        assert_eq!(found(ask(&other, name, url, &[], CacheCall::Match).await).await.0, 0, "{name:?}");
        assert_eq!(found(ask(&one, name, url, &[], CacheCall::Match).await).await.0, 200, "{name:?}");
    }
    assert_eq!(world.look("/page").await.2, "the worker's", "and not what it keeps");
}

#[tokio::test]
async fn variants_are_kept_apart_by_what_the_response_varies_on() {
    let (_world, host) = host_of("w").await;
    let url = "https://a.org/";
    for language in ["de", "fr"] {
        let kept = put(&[("vary", "accept-language"), ("cache-control", "max-age=60")], language);
        assert_eq!(found(ask(&host, None, url, &[("accept-language", language)], kept).await).await.0, 1);
    }
    for language in ["de", "fr"] {
        assert_eq!(found(ask(&host, None, url, &[("accept-language", language)], CacheCall::Match).await).await.1, language);
    }
    assert_eq!(found(ask(&host, None, url, &[("accept-language", "it")], CacheCall::Match).await).await.0, 0);
}

fn failing(outcome: Outcome) -> RunError {
    RunError { outcome, message: "secret stack".into(), retry_after: None, request_body: None }
}

#[tokio::test]
async fn a_worker_that_passes_through_is_stood_in_for_by_its_upstream() {
    let server = Server::start(|request| async move {
        use http_body_util::BodyExt;
        let method = request.method().clone();
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let text = format!("upstream: {method} {}", String::from_utf8_lossy(&body));
        Response::new(Body::full(text))
    })
    .await;
    let mut route = to_worker("www.example.org/*", "w");
    route.upstream = to_upstream("/", &server).upstream;
    let world = World::with_worker(vec![route], |invocation: Invocation| async move {
        if invocation.request.uri().path() == "/passing" {
            invocation.host.pass_through();
        }
        // Reads some of what it is sent.
        let mut body = invocation.request.into_body();
        let _ = std::future::poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut body), cx)).await;
        Err(failing(Outcome::ExceededCpu))
    });
    let (status, _, body) = world.look("/passing").await;
    assert_eq!((status, body.as_str()), (200, "upstream: GET "));
    assert_eq!(world.look("/other").await.0, 503, "only where it was asked for");
    let post = |body: Body| {
        let request = Request::post("/passing").header("host", "www.example.org").body(body).expect("a request");
        world.send(request)
    };
    assert_eq!(text(post(Body::full("whole")).await).await, "upstream: POST whole");
    let chunks = || futures::stream::iter(["pie", "ces"].map(|piece| Ok(bytes::Bytes::from_static(piece.as_bytes()))));
    let response = post(Body::chunks(chunks())).await;
    assert_eq!(
        field(response.headers(), "proxy-status"),
        "edge-1; error=http_response_incomplete; details=\"worker w: exceededCpu; passed through\""
    );
    assert_eq!(text(response).await, "upstream: POST pieces");
    let record = world.records.0.lock().last().cloned().expect("a record");
    assert_eq!((record.error, record.worker.expect("it ran").outcome), (Some("passed_through"), Some(Outcome::ExceededCpu)));
}

#[tokio::test]
async fn a_worker_that_passes_through_is_stood_in_for_by_what_is_stored_before_its_upstream() {
    let server = Server::fixed(&[("cache-control", "max-age=60")], "upstream").await;
    let mut route = to_worker("www.example.org/*", "w");
    route.upstream = to_upstream("/", &server).upstream;
    route.cache.enabled = Some(true);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let world = World::with_worker(vec![route], move |invocation: Invocation| {
        let run = counted.fetch_add(1, SeqCst);
        async move {
            invocation.host.pass_through();
            let stored = invocation.request.uri().path() == "/stored" && run == 0;
            if stored {
                Ok(response(200, &[("cache-control", "max-age=10"), ("etag", "\"w\"")], "worker"))
            } else {
                Err(failing(Outcome::RunnerLost))
            }
        }
    });
    assert_eq!(world.look("/stored").await.2, "worker");
    world.pass(20);
    let (status, cache, body) = world.look("/stored").await;
    assert_eq!((status, body.as_str()), (200, "worker"), "{cache}");
    assert_eq!((runs.load(SeqCst), server.requests()), (2, 0));
    let mut head = get("/stored", &[]);
    *head.method_mut() = http::Method::HEAD;
    assert_eq!(world.send(head).await.status(), 200);
    // What the upstream says in its place is never taken for the worker's.
    for _ in 0..2 {
        let (_, cache, body) = world.look("/other").await;
        assert_eq!(body, "upstream");
        assert!(cache.contains("detail=pass-through") && !cache.contains("stored"), "{cache}");
    }
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn what_stands_in_for_a_worker_teaches_the_cache_nothing() {
    let server = Server::fixed(&[("cache-control", "max-age=60"), ("content-location", "/own"), ("etag", "\"u\"")], "upstream").await;
    let mut route = to_worker("www.example.org/*", "w");
    route.upstream = to_upstream("/", &server).upstream;
    route.cache.enabled = Some(true);
    let world = World::with_worker(vec![route], |invocation: Invocation| async move {
        invocation.host.pass_through();
        match *invocation.request.method() {
            http::Method::GET => Ok(response(200, &[("cache-control", "max-age=60"), ("etag", "\"w\"")], "worker")),
            _ => Err(failing(Outcome::RunnerLost)),
        }
    });
    let post = Request::post("/own").header("host", "www.example.org").body(Body::full("x")).expect("a request");
    assert_eq!(text(world.send(post).await).await, "upstream");
    let (_, cache, body) = world.look("/own").await;
    assert_eq!(body, "worker", "{cache}");
    assert!(!cache.contains("hit"), "{cache}");
}

#[tokio::test]
async fn a_worker_that_passes_through_with_nobody_behind_it_fails_as_before() {
    let world = World::with_worker(vec![to_worker("www.example.org/*", "w")], |invocation: Invocation| async move {
        invocation.host.pass_through();
        Err(failing(Outcome::Exception))
    });
    assert_eq!(world.get("/").await.status(), 500);
}

/// What a worker's `fetch(url, { cf })` gives.
async fn wished(host: &Arc<dyn Host>, url: &str, cf: Option<&str>) -> (u16, String, String) {
    use selvedge_runtime::{FetchCache, Redirect, Subrequest};
    let request = Request::builder().uri(url).body(Body::empty()).expect("a request");
    let cache = cf.map(|json| Box::new(FetchCache::read(json.as_bytes()).expect("wishes")));
    match host.fetch(Subrequest { request, redirect: Redirect::Follow, cache, redirects_max: 50 }).await {
        Ok(fetched) => look(fetched.response).await,
        Err(error) => (0, String::new(), error.message),
    }
}

/// A worker's host, with an upstream behind the worker that counts its answers and says `fields`.
async fn wishing(fields: &'static [(&'static str, &'static str)]) -> (World, Arc<dyn Host>, Server) {
    let server = Server::start(move |request| async move {
        let status = if request.uri().path() == "/missing" { 404 } else { 200 };
        response(status, fields, "behind")
    })
    .await;
    let mut route = to_worker("www.example.org/*", "w");
    route.upstream = to_upstream("/", &server).upstream;
    let (sender, receiver) = std::sync::mpsc::channel();
    let world = World::with_worker(vec![route], move |invocation: Invocation| {
        let _ = sender.send(invocation.host.clone());
        async { Ok(response(200, &[], "worker")) }
    });
    world.get("/").await;
    let host = receiver.recv().expect("it ran");
    (world, host, server)
}

#[tokio::test]
async fn a_wished_time_overrides_what_the_response_says_and_is_the_workers_own() {
    let (world, host, server) = wishing(&[("cache-control", "no-store, private")]).await;
    let url = "http://www.example.org/a";
    for asked in [1, 1, 1] {
        let (status, cache, body) = wished(&host, url, Some(r#"{"ttl_s":60}"#)).await;
        assert_eq!((status, body.as_str(), server.requests()), (200, "behind", asked), "{cache}");
    }
    world.pass(61);
    wished(&host, url, Some(r#"{"ttl_s":60}"#)).await;
    assert_eq!(server.requests(), 2, "not longer than wished");
    wished(&host, url, None).await;
    assert_eq!(server.requests(), 3, "without the wish, by what the response says, and not from what was wished for");
    for _ in 0..2 {
        assert_eq!(wished(&host, "http://www.example.org/missing", Some(r#"{"ttl_s":60}"#)).await.0, 404);
    }
    assert_eq!(server.requests(), 5, "an error is not what the time is for");
    for _ in 0..2 {
        let by_status = r#"{"ttl_by_status":[{"from":404,"to":404,"ttl_s":60},{"from":200,"to":299,"ttl_s":-1}]}"#;
        wished(&host, "http://www.example.org/missing", Some(by_status)).await;
    }
    assert_eq!(server.requests(), 6, "where it is said by status, it is");
}

#[tokio::test]
async fn a_wished_key_and_tags_name_what_is_stored() {
    let (world, host, server) = wishing(&[("cache-control", "max-age=60")]).await;
    for path in ["a", "b", "c"] {
        wished(&host, &format!("http://www.example.org/{path}"), Some(r#"{"key":"one for all","tags":["t1","t2"]}"#)).await;
    }
    assert_eq!(server.requests(), 1);
    let purge = Purge { number: 1, at: Time(0), strength: Strength::Hard, realm: Realm::NONE, targets: vec![Target::Tag("t2".into())] };
    world.path.cache().purges().apply(&purge);
    wished(&host, "http://www.example.org/a", Some(r#"{"key":"one for all"}"#)).await;
    assert_eq!(server.requests(), 2, "purged by its tag");
    // A key that is a URL is no way to what others have: another worker's, the upstream's own.
    wished(&host, "http://www.example.org/plain", None).await;
    wished(&host, "http://www.example.org/other", Some(r#"{"key":"http://www.example.org/plain"}"#)).await;
    assert_eq!(server.requests(), 4);
}

#[tokio::test]
async fn a_time_that_is_below_zero_and_cookies_and_credentials_are_not_stored() {
    let (_world, host, server) = wishing(&[("set-cookie", "a=b"), ("cache-control", "max-age=60")]).await;
    for _ in 0..2 {
        wished(&host, "http://www.example.org/", Some(r#"{"ttl_s":60}"#)).await;
    }
    assert_eq!(server.requests(), 2, "a cookie is one client's");
}

#[tokio::test]
async fn what_is_outside_is_stored_where_it_says_for_how_long() {
    let server = Server::start(|request| async move {
        let fields: &[(&'static str, &'static str)] = match request.uri().path() {
            "/fresh" => &[("cache-control", "max-age=60")],
            "/guess" => &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
            _ => &[],
        };
        response(200, fields, "outside")
    })
    .await;
    let (world, host) = host_of("w").await;
    let url = |path: &str| format!("{}/{path}", server.url());
    for (path, cf, asked) in [
        ("fresh", None, 1),
        ("fresh", None, 1),
        ("guess", None, 2),
        ("guess", None, 3),
        ("wished", Some(r#"{"ttl_s":9}"#), 4),
        ("wished", Some(r#"{"ttl_s":9}"#), 4),
    ] {
        let (status, cache, body) = wished(&host, &url(path), cf).await;
        assert_eq!((status, body.as_str(), server.requests()), (200, "outside", asked), "{path}: {cache}");
    }
    drop(world);
}

#[tokio::test]
async fn what_must_be_confirmed_does_not_stand_in_for_a_worker_that_failed() {
    let server = Server::start(|request: Request<hyper::body::Incoming>| async move {
        let confirms = request.headers().contains_key("if-none-match");
        response(if confirms { 304 } else { 200 }, &[("cache-control", "max-age=60")], if confirms { "" } else { "upstream" })
    })
    .await;
    let mut route = to_worker("www.example.org/*", "w");
    route.upstream = to_upstream("/", &server).upstream;
    route.cache.enabled = Some(true);
    let runs = Arc::new(AtomicUsize::new(0));
    let world = World::with_worker(vec![route], move |invocation: Invocation| {
        let run = runs.fetch_add(1, SeqCst);
        async move {
            invocation.host.pass_through();
            let fields = [("cache-control", "max-age=10, must-revalidate"), ("etag", "\"w\"")];
            if run == 0 { Ok(response(200, &fields, "worker")) } else { Err(failing(Outcome::RunnerLost)) }
        }
    });
    assert_eq!(world.look("/").await.2, "worker");
    world.pass(20);
    for _ in 0..2 {
        let (status, cache, body) = world.look("/").await;
        assert_eq!((status, body.as_str()), (200, "upstream"), "{cache}");
    }
}
