//! What is counted of each route.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::join_all;
use selvedge_runtime::Body;
use tokio::sync::Semaphore;

use super::world::*;
use crate::cache::key::{CacheKey, Space};
use crate::metrics::Readings;

fn page(world: &World) -> String {
    let by_route = world.path.routes.load().counters().cloned().collect();
    world.metrics.render(&Readings { by_route, ..Readings::default() })
}

/// Fails with all that is counted of routes.
fn has(page: &str, line: &str) {
    let of_routes: Vec<&str> = page.lines().filter(|line| line.starts_with("selvedge_route_") && !line.contains("_bucket")).collect();
    assert!(of_routes.contains(&line), "{line}\n{}", of_routes.join("\n"));
}

#[tokio::test]
async fn waiters_are_counted_while_they_wait_and_their_bytes_are_not_the_upstreams() {
    let (gate, asked) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (opens, asks) = (gate.clone(), asked.clone());
    let server = Server::start(move |_| {
        let (opens, asks) = (opens.clone(), asks.clone());
        async move {
            asks.add_permits(1);
            opens.acquire().await.expect("open").forget();
            response(200, &[("cache-control", "max-age=60")], "page")
        }
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let mut clients = Box::pin(join_all((0..5).map(|_| world.look("/"))));
    while asked.available_permits() == 0 {
        assert!((&mut clients).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    has(&page(&world), "selvedge_route_waiting{route=\"/*\"} 4");
    gate.add_permits(1);
    clients.await;
    let page = page(&world);
    for line in [
        "selvedge_route_waits_total{route=\"/*\"} 4",
        "selvedge_route_waiting{route=\"/*\"} 0",
        "selvedge_route_requests_total{route=\"/*\",asker=\"client\",cache=\"collapsed\"} 4",
        "selvedge_route_requests_total{route=\"/*\",asker=\"client\",cache=\"miss\"} 1",
        "selvedge_route_sent_bytes_total{route=\"/*\",tier=\"upstream\"} 4",
        "selvedge_route_sent_bytes_total{route=\"/*\",tier=\"memory\"} 16",
    ] {
        has(&page, line);
    }
}

#[tokio::test]
async fn a_waiter_that_goes_away_waits_no_more() {
    let server = Server::start(|_| std::future::pending()).await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let mut clients = Box::pin(join_all((0..3).map(|_| world.look("/"))));
    while server.requests() == 0 {
        assert!((&mut clients).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    has(&page(&world), "selvedge_route_waiting{route=\"/*\"} 2");
    drop(clients);
    has(&page(&world), "selvedge_route_waiting{route=\"/*\"} 0");
}

#[tokio::test]
async fn stale_and_revalidated_answers_failures_and_errors_are_told_apart() {
    let server = Server::start(|request| async move {
        match (request.uri().path(), request.headers().contains_key("if-none-match")) {
            ("/kept", true) => response(304, &[("cache-control", "max-age=60")], ""),
            ("/stale", true) => response(500, &[], ""),
            _ => response(200, &[("cache-control", "max-age=60"), ("etag", "\"1\"")], "page"),
        }
    })
    .await;
    let nowhere = Server::fixed(&[], "").await;
    let mut away = to_upstream("away.test/*", &nowhere);
    away.upstream = Some(group("http://127.0.0.1:1"));
    let world = World::new(vec![to_upstream("/*", &server), away]);
    for path in ["/kept", "/stale"] {
        world.look(path).await;
    }
    world.pass(90);
    for path in ["/kept", "/stale"] {
        assert_eq!(world.look(path).await.2, "page");
    }
    let failing = http::Request::builder().uri("/").header("host", "away.test").body(Body::empty()).expect("a request");
    let error = look(world.send(failing).await).await.2;
    let page = page(&world);
    for line in [
        "selvedge_route_requests_total{route=\"/*\",asker=\"client\",cache=\"revalidated\"} 1",
        "selvedge_route_requests_total{route=\"/*\",asker=\"client\",cache=\"stale\"} 1",
        "selvedge_route_requests_total{route=\"/*\",asker=\"client\",cache=\"miss\"} 2",
        "selvedge_route_sent_bytes_total{route=\"/*\",tier=\"upstream\"} 8",
        "selvedge_route_sent_bytes_total{route=\"/*\",tier=\"memory\"} 8",
        "selvedge_route_fill_seconds_count{route=\"/*\"} 3",
        "selvedge_route_fill_first_byte_seconds_count{route=\"/*\"} 4",
        "selvedge_route_requests_total{route=\"away.test/*\",asker=\"client\",cache=\"miss\"} 1",
        "selvedge_route_sent_bytes_total{route=\"away.test/*\",tier=\"upstream\"} 0",
        "selvedge_route_fill_first_byte_seconds_count{route=\"away.test/*\"} 0",
    ] {
        has(&page, line);
    }
    has(&page, &format!("selvedge_route_sent_bytes_total{{route=\"away.test/*\",tier=\"node\"}} {}", error.len()));
}

#[tokio::test]
async fn bytes_that_an_answer_to_head_does_not_have_are_not_counted() {
    let world = World::with_worker(vec![to_worker("/*", "w")], |_| async { Ok(response(200, &[], "page")) });
    for method in ["HEAD", "GET"] {
        let request = http::Request::builder().method(method).uri("/").header("host", "www.example.org").body(Body::empty());
        drop(world.send(request.expect("a request")).await);
    }
    has(&page(&world), "selvedge_route_sent_bytes_total{route=\"/*\",tier=\"worker\"} 4");
    assert_eq!(world.metrics.sent_bytes.get(), 4);
}

#[tokio::test]
async fn what_leaves_memory_is_counted_by_its_route_and_cause() {
    const KIB_64: &str = many_bytes();
    let server = Server::start(|request| async move {
        let vary = if request.uri().path() == "/varied" { "x-a" } else { "x-b" };
        let mut response = response(200, &[("cache-control", "max-age=60"), ("vary", vary), ("cache-tag", "t")], KIB_64);
        if request.uri().path() == "/heavy" {
            // Two of them fit into an eighth of memory.
            *response.body_mut() = Body::full(KIB_64.repeat(48));
        }
        response
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    for number in 0..18 {
        look(world.send(get("/varied", &[("x-a", &number.to_string())])).await).await;
    }
    has(&page(&world), "selvedge_route_removals_total{route=\"/*\",cause=\"variants\"} 2");
    for number in 0..5 {
        look(world.send(get("/heavy", &[("x-b", &number.to_string())])).await).await;
    }
    has(&page(&world), "selvedge_route_removals_total{route=\"/*\",cause=\"variants\"} 5");
    for path in ["/varied", "/heavy"] {
        world.path.cache().invalidate(&CacheKey::new(Space::Upstream, "http", "www.example.org", path));
    }
    has(&page(&world), "selvedge_route_removals_total{route=\"/*\",cause=\"invalidated\"} 18");
    // A full memory takes what is asked for again.
    for number in (0..1_100).flat_map(|number| [number; 3]) {
        world.look(&format!("/{number}")).await;
    }
    world.path.cache().usage();
    let evicted = format!("selvedge_route_removals_total{{route=\"/*\",cause=\"evicted\"}} {}", world.metrics.cache_evictions.get());
    assert!(world.metrics.cache_evictions.get() > 50);
    has(&page(&world), &evicted);
}

const fn many_bytes() -> &'static str {
    static BYTES: [u8; 64 << 10] = [b'x'; 64 << 10];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
}
