//! Workers: what runs, what they reach, what their clients see.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use selvedge_runtime::{Body, FetchError, Fetched, Host, Invocation, Outcome, Redirect, Report, RunError, Subrequest};

use super::world::*;
use crate::tasks;

fn report(outcome: Outcome) -> Report {
    Report { outcome, cpu_us: 1_500, wall: Duration::from_millis(2), heap_bytes: 5 << 20, subrequests: 1, cold_start: true }
}

async fn fetch(host: &Arc<dyn Host>, url: &str, redirect: Redirect) -> Result<Fetched, FetchError> {
    let request = Request::builder().uri(url).body(Body::empty()).expect("a request");
    host.fetch(Subrequest { request, redirect, cache: None, redirects_max: 50 }).await
}

/// A worker whose answer is what `fetch(url)` of the path's query gave.
async fn proxying(invocation: Invocation) -> Result<Response<Body>, RunError> {
    let url = invocation.request.uri().query().expect("a query").to_owned();
    Ok(match fetch(&invocation.host, &url, Redirect::Follow).await {
        Ok(fetched) => fetched.response,
        Err(error) => response(299, &[], Box::leak(error.message.into_boxed_str())),
    })
}

#[tokio::test]
async fn a_worker_gets_the_request_with_who_asks_and_its_answer_names_the_version() {
    let world = World::with_worker(vec![to_worker("/*", "w")], |invocation| async move {
        let request = invocation.request;
        assert_eq!(request.uri(), "http://www.example.org/a?b");
        assert!(!request.headers().contains_key("host"));
        assert_eq!(invocation.written.get("cf-connecting-ip"), Some(&b"192.0.2.7"[..]));
        assert_eq!(invocation.written.get("host"), Some(&b"www.example.org"[..]));
        assert_eq!(&*invocation.client.colo, "edge-1");
        invocation.host.finished(report(Outcome::Ok));
        Ok(response(200, &[("selvedge-version", "forged"), ("content-length", "99"), ("connection", "close")], "hello"))
    });
    let response = world.get("/a?b").await;
    assert_eq!(response.headers().get("selvedge-version"), Some(&HeaderValue::from_static("w-version")));
    assert!(!response.headers().contains_key("connection") && !response.headers().contains_key("content-length"));
    assert_eq!(field(response.headers(), "cache-status"), "");
    assert_eq!(text(response).await, "hello");
    let record = world.records.0.lock().first().cloned().expect("a record");
    let worker = record.worker.expect("a worker ran");
    assert_eq!((worker.name.as_ref(), worker.outcome, worker.cpu_ms_max), ("w", Some(Outcome::Ok), 200));
    assert_eq!(worker.report.expect("a report").cpu_us, 1_500);
}

#[tokio::test]
async fn an_outcome_is_named_to_the_client_and_its_message_only_to_the_operator() {
    let world = World::with_worker(vec![to_worker("/*", "w")], |invocation| async move {
        invocation.host.finished(report(Outcome::ExceededCpu));
        Err(RunError { outcome: Outcome::ExceededCpu, message: "secret stack".into(), retry_after: None, request_body: None })
    });
    let response = world.get("/").await;
    assert_eq!(response.status(), 503);
    assert_eq!(field(response.headers(), "proxy-status"), "edge-1; error=http_response_incomplete; details=\"worker w: exceededCpu\"");
    let body = text(response).await;
    assert!(body.contains("worker w: exceededCpu") && !body.contains("secret"), "{body}");
    let record = world.records.0.lock().first().cloned().expect("a record");
    assert!(record.error_text.expect("a text").contains("secret stack"));
}

#[tokio::test]
async fn a_request_body_beyond_the_workers_bound_is_413() {
    let world = World::with_worker(vec![to_worker("/*", "w")], |invocation| async move {
        // What the worker makes of the failing body does not matter.
        let read = invocation.request.into_body().collect(u64::MAX).await;
        Ok(response(200, &[], if read.is_ok() { "read" } else { "failed" }))
    });
    let post = |body: Body| Request::post("/").header("host", "a").body(body).expect("a request");
    let streamed = |bytes: &'static str| Body::chunks(futures::stream::iter([Ok(bytes::Bytes::from_static(bytes.as_bytes()))]));
    assert_eq!(text(world.send(post(Body::full("0123456789"))).await).await, "read");
    assert_eq!(text(world.send(post(streamed("0123456789"))).await).await, "read");
    assert_eq!(world.send(post(Body::full("0123456789x"))).await.status(), 413);
    assert_eq!(world.send(post(streamed("0123456789x"))).await.status(), 413);
}

#[tokio::test]
async fn a_fetch_of_the_workers_own_route_goes_to_its_upstream_through_the_cache() {
    let server = Server::fixed(&[("cache-control", "max-age=60")], "behind").await;
    let mut route = to_worker("www.example.org/*", "w");
    route.upstream = to_upstream("/", &server).upstream;
    let world = World::with_worker(vec![route], proxying);
    for expected in ["fwd=uri-miss", "hit"] {
        let (_, cache, body) = world.look("/?http://www.example.org/page").await;
        assert_eq!(body, "behind");
        assert!(cache.contains(expected), "{cache}");
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_fetch_of_the_workers_own_route_without_upstream_fails_by_name() {
    let world = World::with_worker(vec![to_worker("www.example.org/*", "w")], proxying);
    let (status, _, body) = world.look("/?http://www.example.org/page").await;
    assert_eq!(status, 299);
    assert!(body.contains("route www.example.org/* of worker w has no upstream"), "{body}");
}

#[tokio::test]
async fn a_fetch_of_another_route_is_answered_inside_the_node() {
    let server = Server::start(|request| async move {
        let around = request.headers().get("cdn-loop").cloned().expect("it");
        Response::new(Body::full(bytes::Bytes::copy_from_slice(around.as_bytes())))
    })
    .await;
    let routes = vec![to_worker("www.example.org/*", "w"), to_upstream("other.example.org/*", &server)];
    let world = World::with_worker(routes, proxying);
    assert_eq!(world.look("/?http://other.example.org/x").await.2, "selvedge, selvedge");
    let depths: Vec<u32> = world.records.0.lock().iter().map(|record| record.depth).collect();
    assert_eq!(depths, [1, 0]);
}

#[tokio::test]
async fn workers_that_fetch_each_other_without_end_are_stopped() {
    let world = World::with_worker(vec![to_worker("a.org/*", "a"), to_worker("b.org/*", "b")], |invocation| async move {
        let other = if invocation.request.uri().host() == Some("a.org") { "http://b.org/" } else { "http://a.org/" };
        // A task of its own, as it is of a real runner: requests inside each other would otherwise stand on one stack.
        let (tell, told) = tokio::sync::oneshot::channel();
        let _fetching = tasks::owned("test fetch", async move {
            let _ = tell.send(fetch(&invocation.host, other, Redirect::Follow).await);
        });
        Ok(told.await.expect("an answer").map_or_else(|_| response(299, &[], ""), |fetched| fetched.response))
    });
    let request = Request::builder().uri("/").header("host", "a.org").body(Body::empty()).expect("a request");
    let response = world.send(request).await;
    assert!(field(response.headers(), "proxy-status").contains("proxy_loop_detected"), "{response:?}");
}

#[tokio::test]
async fn a_route_without_a_host_is_the_workers_own_under_the_name_that_was_asked_only() {
    let world = World::with_worker(vec![to_worker("/*", "w")], proxying);
    assert!(world.look("/?http://www.example.org/x").await.2.contains("has no upstream"));
    // Any other name is the rest of the world, which here is a private address.
    let body = world.look("/?http://127.0.0.1:9/x").await.2;
    assert!(body.contains("not allowed"), "{body}");
}

#[tokio::test]
async fn redirects_are_followed_shown_or_refused() {
    let server = Server::start(|request| async move {
        match request.uri().path() {
            "/end" => response(200, &[], "end"),
            "/loop" => response(302, &[("location", "/loop")], ""),
            "/out" => response(302, &[("location", "http://127.0.0.1:9/")], ""),
            _ => response(302, &[("location", "/end")], ""),
        }
    })
    .await;
    let routes = vec![to_worker("www.example.org/*", "w"), to_upstream("other.org/*", &server)];
    let world = World::with_worker(routes, |invocation| async move {
        let host = &invocation.host;
        let followed = fetch(host, "http://other.org/start", Redirect::Follow).await.expect("followed");
        assert_eq!((followed.redirects, followed.url.as_str(), followed.response.status().as_u16()), (1, "http://other.org/end", 200));
        let shown = fetch(host, "http://other.org/start", Redirect::Manual).await.expect("shown");
        assert_eq!((shown.redirects, shown.response.status().as_u16()), (0, 302));
        assert!(fetch(host, "http://other.org/start", Redirect::Error).await.expect_err("refused").message.contains("redirects"));
        assert!(fetch(host, "http://other.org/loop", Redirect::Follow).await.expect_err("endless").message.contains("20 times"));
        assert!(fetch(host, "http://other.org/out", Redirect::Follow).await.expect_err("checked again").message.contains("not allowed"));
        assert!(fetch(host, "ftp://other.org/", Redirect::Follow).await.expect_err("no http").message.contains("http or https"));
        let none = Request::builder().uri("http://other.org/start").body(Body::empty()).expect("a request");
        let limited = host.fetch(Subrequest { request: none, redirect: Redirect::Follow, cache: None, redirects_max: 0 }).await;
        assert!(limited.expect_err("over the budget").message.contains("subrequests"));
        Ok(response(200, &[], "checked"))
    });
    assert_eq!(world.look("/").await.2, "checked");
}

#[tokio::test]
async fn a_worker_without_an_active_version_is_503() {
    let mut route = to_worker("/*", "w");
    route.target = crate::routes::Target::Worker(Arc::new(crate::routes::ActiveWorker::new("w".into(), [])));
    let response = World::new(vec![route]).get("/").await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn a_workers_answers_are_stored_where_its_route_says_so() {
    let runs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = runs.clone();
    let mut route = to_worker("/*", "w");
    route.cache.enabled = Some(true);
    let world = World::with_worker(vec![route], move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async { Ok(response(200, &[("cache-control", "max-age=60")], "made")) }
    });
    for expected in ["edge-1; fwd=uri-miss; fwd-status=200; stored", "edge-1; hit; ttl=60"] {
        let response = world.get("/").await;
        assert_eq!(field(response.headers(), "selvedge-version"), "w-version");
        assert_eq!(look(response).await, (200, expected.into(), "made".into()));
    }
    assert_eq!(runs.load(std::sync::atomic::Ordering::SeqCst), 1);
}
