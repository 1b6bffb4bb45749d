//! What an overloaded node refuses, and what it goes on with.

use std::sync::Arc;
use std::sync::OnceLock;

use http::{Method, Request};
use selvedge_origin::registry::CacheSettings;
use selvedge_runtime::{Body, Redirect, RunError, Strain, Subrequest, Work};
use tokio::sync::Semaphore;

use super::world::*;
use crate::routes::Route;

const OVERLOADED: &str = "edge-1; error=connection_limit_reached; details=\"the node is overloaded\"";

fn shed(world: &World) -> Vec<u64> {
    world.strain.read().map(|(_, _, shed)| shed).collect()
}

fn with(method: Method, path: &str) -> Request<Body> {
    let mut request = get(path, &[]);
    *request.method_mut() = method;
    request
}

#[tokio::test]
async fn misses_are_refused_and_hits_go_on() {
    let server = Server::fixed(&[("cache-control", "max-age=60")], "page").await;
    let plain = Route { cache: CacheSettings { enabled: Some(false), ..CacheSettings::default() }, ..to_upstream("/plain", &server) };
    let world = World::new(vec![to_upstream("/*", &server), plain]);
    world.look("/stored").await;
    world.strain.refuse(Some(Work::Miss));
    for path in ["/new", "/new", "/plain"] {
        let response = world.get(path).await;
        assert_eq!((response.status().as_u16(), field(response.headers(), "retry-after")), (503, "1".into()), "{path}");
        assert_eq!(field(response.headers(), "proxy-status"), OVERLOADED);
        assert_eq!(field(response.headers(), "cache-control"), "no-store");
    }
    assert_eq!(world.send(with(Method::POST, "/stored")).await.status(), 503);
    assert_eq!(world.look("/stored").await.1, "edge-1; hit; ttl=60");
    assert_eq!((server.requests(), shed(&world)), (1, vec![0, 0, 4]));
    world.strain.refuse(Some(Work::Worker));
    for path in ["/new", "/plain"] {
        assert_eq!(world.get(path).await.status(), 200, "the refusal was not kept");
    }
}

#[tokio::test]
async fn what_is_stored_stands_in_for_what_is_not_fetched_as_it_does_for_an_upstream_that_is_away() {
    let cases = [
        ("max-age=1", 200),
        ("max-age=1, stale-if-error=2", 503),
        ("max-age=1, must-revalidate", 504),
        ("max-age=1, stale-while-revalidate=60", 200),
    ];
    for (control, status) in cases {
        let server = Server::start(move |_| async move { response(200, &[("cache-control", control)], "page") }).await;
        let world = World::new(vec![to_upstream("/*", &server)]);
        world.look("/").await;
        world.pass(5);
        world.strain.refuse(Some(Work::Miss));
        assert_eq!(world.look("/").await.0, status, "{control}");
        assert_eq!(world.send(with(Method::HEAD, "/")).await.status(), status, "{control}");
        world.rest().await;
        assert_eq!(server.requests(), 1, "{control}: a refresh is put off, too");
    }
}

#[tokio::test]
async fn who_follows_a_fetch_that_has_begun_gets_its_answer() {
    let gate = Arc::new(Semaphore::new(0));
    let opens = gate.clone();
    let server = Server::start(move |_| {
        let opens = opens.clone();
        async move {
            opens.acquire().await.expect("open").forget();
            response(200, &[("cache-control", "max-age=60")], "page")
        }
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let (first, second) = tokio::join!(world.look("/"), async {
        while server.requests() == 0 {
            tokio::task::yield_now().await;
        }
        world.strain.refuse(Some(Work::Miss));
        let (second, ()) = tokio::join!(world.look("/"), async { gate.add_permits(1) });
        second
    });
    assert_eq!((first.0, second.0), (200, 200), "{first:?} {second:?}");
    assert_eq!((server.requests(), shed(&world)), (1, vec![0, 0, 0]));
}

#[tokio::test]
async fn workers_are_refused_before_misses_and_what_they_have_stored_stands_in() {
    let server = Server::fixed(&[("cache-control", "max-age=60")], "page").await;
    let cache = CacheSettings { enabled: Some(true), ..CacheSettings::default() };
    let cached = Route { cache, ..to_worker("/cached", "cached") };
    let world = World::with_worker(vec![to_upstream("/*", &server), to_worker("/w", "w"), cached], |_| async {
        Ok(response(200, &[("cache-control", "max-age=1")], "ran"))
    });
    for path in ["/w", "/cached"] {
        assert_eq!(world.look(path).await.2, "ran");
    }
    world.strain.refuse(Some(Work::ColdStart));
    assert_eq!(world.look("/w").await.2, "ran", "whether it is cold is the supervisor's to say");
    world.strain.refuse(Some(Work::Worker));
    let response = world.get("/w").await;
    assert_eq!((response.status().as_u16(), field(response.headers(), "retry-after")), (503, "1".into()));
    assert_eq!(field(response.headers(), "proxy-status"), "edge-1; error=connection_limit_reached; details=\"worker w: loadShed\"");
    assert_eq!(world.look("/miss").await.0, 200);
    world.pass(5);
    assert_eq!(world.look("/cached").await, (200, "edge-1; hit; ttl=-4; detail=stale-if-error".into(), "ran".into()));
    assert_eq!(shed(&world), [0, 2, 0]);
}

#[tokio::test]
async fn what_a_worker_asks_for_was_let_in_with_its_request() {
    let server = Server::fixed(&[("cache-control", "no-store")], "behind").await;
    let mut own = to_worker("www.example.org/*", "w");
    own.upstream = to_upstream("/", &server).upstream;
    let routes = vec![own, to_upstream("other.example.org/*", &server), to_worker("third.example.org/*", "third")];
    let strain: Arc<OnceLock<Arc<Strain>>> = Arc::default();
    let set = strain.clone();
    let world = World::with_worker(routes, move |invocation| {
        let strain = set.get().expect("set").clone();
        async move {
            if invocation.request.uri().host() == Some("third.example.org") {
                return Ok(response(200, &[], "third"));
            }
            // The node has come to be overloaded since.
            strain.refuse(Some(Work::Miss));
            let url = invocation.request.uri().query().expect("a query").to_owned();
            let request = Request::builder().uri(url).body(Body::empty()).expect("a request");
            let asked = Subrequest { request, redirect: Redirect::Follow, cache: None, redirects_max: 50 };
            let fetched = invocation.host.fetch(asked).await;
            fetched.map(|fetched| fetched.response).map_err(|error| RunError {
                outcome: selvedge_runtime::Outcome::Exception,
                message: error.message,
                retry_after: None,
                request_body: None,
            })
        }
    });
    strain.set(world.strain.clone()).expect("once");
    for (host, body) in [("www", "behind"), ("other", "behind"), ("third", "third")] {
        world.strain.refuse(None);
        let (status, _, text) = world.look(&format!("/?http://{host}.example.org/page")).await;
        assert_eq!((status, text.as_str()), (200, body), "{host}");
    }
    assert_eq!(shed(&world), [0, 0, 0]);
}

#[tokio::test]
async fn a_response_in_slices_that_has_begun_is_not_cut() {
    let server = Server::start(|request: Request<hyper::body::Incoming>| {
        let range = field(request.headers(), "range");
        async move {
            let (range, body) = if range == "bytes=0-4" { ("bytes 0-4/10", "01234") } else { ("bytes 5-9/10", "56789") };
            let mut part = response(206, &[("cache-control", "max-age=60"), ("etag", "\"a\"")], body);
            part.headers_mut().insert("content-range", http::HeaderValue::from_static(range));
            part
        }
    })
    .await;
    let cache = CacheSettings { slice_bytes: 5, ..CacheSettings::default() };
    let world = World::new(vec![Route { cache, ..to_upstream("/*", &server) }]);
    let begun = world.get("/film").await;
    assert_eq!((begun.status().as_u16(), server.requests()), (200, 1));
    world.strain.refuse(Some(Work::Miss));
    assert_eq!(text(begun).await, "0123456789");
    assert_eq!((world.get("/other").await.status().as_u16(), shed(&world)), (503, vec![0, 0, 1]));
}
