//! Many requests for one key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use http::Response;
use http_body_util::BodyExt;
use selvedge_origin::registry::CacheSettings;
use selvedge_runtime::{Body, BodyError};
use tokio::sync::{Notify, Semaphore, mpsc};

use super::world::*;
use crate::cache::Cache;
use crate::cache::collapse::Bounds;
use crate::limits::FILL_WINDOW_BYTES;

/// An upstream whose responses begin when the test says so.
async fn gated(fields: &'static [(&'static str, &'static str)], body: &'static str) -> (Server, Arc<Semaphore>, Arc<Notify>) {
    let (gate, asked) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let (opens, asks) = (gate.clone(), asked.clone());
    let server = Server::start(move |_| {
        let (opens, asks) = (opens.clone(), asks.clone());
        async move {
            asks.notify_one();
            opens.acquire().await.expect("open").forget();
            response(200, fields, body)
        }
    })
    .await;
    (server, gate, asked)
}

#[tokio::test]
async fn a_response_without_end_goes_at_the_pace_of_its_readers_and_ends_with_them() {
    const CHUNK: usize = 64 << 10;
    /// Bytes that may be taken beyond what is stored at most, and beyond what is read: the window, and what is between two hands.
    const AHEAD: usize = FILL_WINDOW_BYTES as usize + 8 * CHUNK;
    let made = Arc::new(AtomicUsize::new(0));
    let counted = made.clone();
    let mut route = to_worker("/*", "w");
    route.cache = CacheSettings { enabled: Some(true), entry_bytes_max: 1 << 20, ..CacheSettings::default() };
    let world = World::with_worker(vec![route], move |_| {
        let counted = counted.clone();
        async move {
            let chunks = futures::stream::repeat_with(move || {
                counted.fetch_add(CHUNK, SeqCst);
                Ok(Bytes::from_static(&[b'x'; CHUNK]))
            });
            // (An end far away, so that a bug costs no machine.)
            let body = Body::chunks(chunks.take(2048).boxed());
            Ok(Response::builder().header("cache-control", "max-age=60").body(body).expect("a response"))
        }
    });
    let mut body = world.get("/").await.into_body();
    settle().await;
    assert!(made.load(SeqCst) <= (1 << 20) + AHEAD, "{made:?}");
    for _ in 0..200 {
        assert!(body.frame().await.expect("more").is_ok());
    }
    settle().await;
    let read = 200 * CHUNK;
    assert!((read..=read + AHEAD).contains(&made.load(SeqCst)), "{made:?}");
    drop(body);
    settle().await;
    let last = made.load(SeqCst);
    settle().await;
    assert!(made.load(SeqCst) == last && last <= read + AHEAD, "nobody reads any more: {made:?}");
    assert_eq!(world.path.cache().usage().0, 0);
}

#[tokio::test]
async fn requests_for_one_key_share_one_fetch() {
    let (server, gate, asked) = gated(&[("cache-control", "max-age=60")], "page").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let clients = join_all((0..50).map(|_| world.look("/")));
    let open = async {
        asked.notified().await;
        settle().await;
        gate.add_permits(50);
    };
    let (answers, ()) = futures::join!(clients, open);
    assert!(answers.iter().all(|(status, _, body)| *status == 200 && body == "page"));
    assert_eq!(answers.iter().filter(|(_, cache, _)| cache.ends_with("; collapsed")).count(), 49);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn followers_read_while_the_upstream_still_sends() {
    let (sender, receiver) = mpsc::unbounded_channel::<Bytes>();
    let receiver = Arc::new(parking_lot::Mutex::new(Some(receiver)));
    let server = Server::start(move |_| {
        let receiver = receiver.lock().take().expect("asked once");
        async move {
            let chunks =
                futures::stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|chunk| (Ok(chunk), receiver)) });
            Response::builder().header("cache-control", "max-age=60").body(Body::chunks(chunks)).expect("a response")
        }
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let mut first = world.get("/").await.into_body();
    let mut second = world.get("/").await.into_body();
    sender.send(Bytes::from_static(b"one")).expect("open");
    for body in [&mut first, &mut second] {
        assert_eq!(body.frame().await.expect("a frame").expect("good").into_data().expect("data"), "one");
    }
    // The first client goes; the second, and one that comes now, get all of it.
    drop(first);
    let third = world.get("/").await.into_body();
    sender.send(Bytes::from_static(b"two")).expect("open");
    drop(sender);
    assert_eq!(second.collect(99).await.expect("whole"), "two");
    assert_eq!(third.collect(99).await.expect("whole"), "onetwo");
    world.tasks.drain(std::time::Duration::from_secs(10)).await;
    assert_eq!(world.look("/").await, (200, "edge-1; hit; ttl=60".into(), "onetwo".into()));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_first_client_that_vanishes_before_the_head_hurts_nobody() {
    let (server, gate, asked) = gated(&[("cache-control", "max-age=60")], "page").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let mut first = Box::pin(world.look("/"));
    assert!(futures::poll!(&mut first).is_pending());
    asked.notified().await;
    let mut second = Box::pin(world.look("/"));
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    gate.add_permits(1);
    assert_eq!(second.await.2, "page");
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn answers_that_are_not_for_the_cache_are_not_shared_and_not_waited_for() {
    let (server, gate, asked) = gated(&[("cache-control", "private")], "mine").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let clients = join_all((0..10).map(|_| world.look("/")));
    let open = async {
        asked.notified().await;
        settle().await;
        gate.add_permits(100);
    };
    let (answers, ()) = futures::join!(clients, open);
    assert!(answers.iter().all(|(status, _, body)| *status == 200 && body == "mine"));
    assert_eq!(server.requests(), 10);
    // From now on nobody waits: two requests are with the upstream at one time.
    gate.forget_permits(usize::MAX);
    let both = async { futures::join!(world.look("/"), world.look("/")) };
    let open = async {
        asked.notified().await;
        while server.requests() < 12 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
    };
    futures::join!(both, open);
}

/// Both requests are with the upstream at one time; gives whether they are.
async fn go_at_once(world: &World, server: &Server, gate: &Semaphore) -> bool {
    let before = server.requests();
    let both = async { futures::join!(world.look("/"), world.look("/")) };
    let open = async {
        let both_came = async {
            while server.requests() < before + 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let came = tokio::time::timeout(Duration::from_millis(500), both_came).await.is_ok();
        gate.add_permits(2);
        came
    };
    let (_, came) = futures::join!(both, open);
    gate.forget_permits(usize::MAX);
    came
}

#[tokio::test]
async fn as_long_as_answers_are_not_for_the_cache_nobody_waits_for_anothers() {
    let (server, gate, _) = gated(&[("cache-control", "private")], "mine").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    assert!(!go_at_once(&world, &server, &gate).await, "nothing is known yet: one waits");
    // The first mark alone would be over after ten seconds.
    for round in 0..5 {
        assert!(go_at_once(&world, &server, &gate).await, "after {} s", round * 8);
        world.pass(8);
    }
    world.pass(20);
    assert!(!go_at_once(&world, &server, &gate).await, "nobody asked for long enough");
}

#[tokio::test]
async fn followers_and_fetches_are_bounded_and_who_is_beyond_asks_for_itself() {
    let (server, gate, _) = gated(&[("cache-control", "max-age=60")], "page").await;
    let bounds = Bounds { fills_max: 2, readers_max: 2, ..Bounds::default() };
    let world = World::around(vec![to_upstream("/*", &server)], |metrics| Cache::new(64 << 20, metrics).with_fills(bounds));
    // Two fetches, one of them followed by one: as much as may be.
    let mut within = [Box::pin(world.look("/a")), Box::pin(world.look("/b")), Box::pin(world.look("/b"))];
    for request in &mut within {
        assert!(futures::poll!(request).is_pending());
    }
    settle().await;
    let beyond = futures::future::join(world.look("/b"), world.look("/c"));
    let open = async {
        while server.requests() < 4 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(4);
    };
    let ((reader, fetch), ()) = futures::join!(beyond, open);
    assert_eq!(reader, (200, "edge-1; fwd=uri-miss; fwd-status=200; detail=waiters".into(), "page".into()));
    assert_eq!(fetch, (200, "edge-1; fwd=uri-miss; fwd-status=200; detail=fills".into(), "page".into()));
    let answers = join_all(within).await;
    assert!(answers.iter().all(|(status, said, body)| *status == 200 && said.contains("; stored") && body == "page"), "{answers:?}");
    assert_eq!(server.requests(), 4, "who follows asks nobody");
    gate.add_permits(1);
    assert!(world.look("/c").await.1.ends_with("; stored"), "there is room again");
}

/// A body that breaks off after `sent`.
fn broken(sent: &'static [&'static str]) -> Response<Body> {
    let sent = sent.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes())));
    let chunks = futures::stream::iter(sent.chain([Err(BodyError::Aborted("planned".into()))]));
    // One at a time, so that what was sent is on the wire before it breaks.
    let chunks = chunks.enumerate().then(|(number, chunk)| async move {
        if number > 0 {
            settle().await;
        }
        chunk
    });
    Response::builder().header("cache-control", "max-age=60").body(Body::chunks(chunks)).expect("a response")
}

#[tokio::test]
async fn a_fetch_that_fails_does_not_fail_all_who_follow_it() {
    let (asked, number, gate) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (asks, opens) = (asked.clone(), gate.clone());
    let server = Server::start(move |_| {
        let (asks, opens, first) = (asks.clone(), opens.clone(), number.fetch_add(1, SeqCst) == 0);
        async move {
            asks.notify_one();
            opens.acquire().await.expect("open").forget();
            // hyper closes the connection without a head when the body fails at once.
            if first { broken(&[]) } else { response(200, &[("cache-control", "max-age=60")], "page") }
        }
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let clients = join_all((0..5).map(|_| world.look("/")));
    let open = async {
        asked.notified().await;
        settle().await;
        gate.add_permits(100);
    };
    let (answers, ()) = futures::join!(clients, open);
    assert_eq!(answers.iter().filter(|(status, ..)| *status == 200).count(), 4, "{answers:?}");
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_response_that_breaks_off_is_cut_for_its_client_and_not_stored() {
    let number = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |_| {
        let first = number.fetch_add(1, SeqCst) == 0;
        async move { if first { broken(&["half"]) } else { response(200, &[("cache-control", "max-age=60")], "whole") } }
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let response = world.get("/").await;
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect(99).await.is_err());
    assert_eq!(world.look("/").await.2, "whole");
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_request_waits_for_anothers_fetch_only_so_long() {
    let (server, gate, asked) = gated(&[("cache-control", "max-age=60")], "page").await;
    let mut route = to_upstream("/*", &server);
    route.cache.collapse_wait_ms = 1;
    let world = World::new(vec![route]);
    let mut first = Box::pin(world.look("/"));
    assert!(futures::poll!(&mut first).is_pending());
    asked.notified().await;
    let second = world.look("/");
    let open = async {
        asked.notified().await;
        gate.add_permits(2);
    };
    let (second, first, ()) = futures::join!(second, first, open);
    assert!(second.1.ends_with("detail=collapse-wait"), "{}", second.1);
    assert_eq!((first.2.as_str(), second.2.as_str()), ("page", "page"));
}

#[tokio::test]
async fn followers_of_another_variant_fetch_their_own() {
    let server = Server::start(|request| async move {
        let language = request.headers().get("accept-language").cloned().expect("a language");
        let body = Body::full(bytes::Bytes::copy_from_slice(language.as_bytes()));
        Response::builder().header("cache-control", "max-age=60").header("vary", "accept-language").body(body).expect("a response")
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let languages = ["de", "en", "fr", "de", "en"];
    let answers =
        join_all(languages.map(|language| async { text(world.send(get("/", &[("accept-language", language)])).await).await })).await;
    assert_eq!(answers, languages);
}

#[tokio::test]
async fn a_slow_reader_of_a_stored_response_holds_nobody_up() {
    let server = Server::start(|_| async {
        let chunks = futures::stream::iter((0..32).map(|_| Ok(Bytes::from(vec![b'x'; 64 << 10])))).boxed();
        Response::builder().header("cache-control", "max-age=60").body(Body::chunks(chunks)).expect("a response")
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let slow = world.get("/").await;
    assert_eq!(world.look("/").await.2.len(), 2 << 20);
    assert_eq!(text(slow).await.len(), 2 << 20);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn what_a_confirmation_says_to_whoever_ordered_it_is_not_for_those_who_follow() {
    for control in ["private", "no-store"] {
        let (gate, asked) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
        let (opens, asks) = (gate.clone(), asked.clone());
        let server = Server::start(move |request| {
            let (opens, asks) = (opens.clone(), asks.clone());
            async move {
                if !request.headers().contains_key("if-none-match") {
                    return response(200, &[("cache-control", "max-age=10"), ("etag", "\"a\"")], "page");
                }
                let own = request.headers().contains_key("cookie");
                asks.notify_one();
                opens.acquire().await.expect("open").forget();
                let fields = [("etag", "\"a\""), ("cache-control", control), ("x-user", "one")];
                response(304, if own { &fields } else { &fields[..1] }, "")
            }
        })
        .await;
        let world = World::new(vec![to_upstream("/*", &server)]);
        world.look("/").await;
        world.pass(20);
        let others = async {
            asked.notified().await;
            let others = join_all((0..3).map(|_| world.get("/")));
            let open = async {
                settle().await;
                gate.add_permits(10);
            };
            futures::join!(others, open).0
        };
        let (one, others) = futures::join!(world.send(get("/", &[("cookie", "one")])), others);
        assert_eq!(field(one.headers(), "x-user"), "one", "{control}");
        for other in others {
            assert_eq!((other.status().as_u16(), field(other.headers(), "x-user")), (200, String::new()), "{control}");
            assert_eq!(text(other).await, "page");
        }
    }
}
