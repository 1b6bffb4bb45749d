//! Clients that ask for much and read nothing: what is held for them has a bound, whoever of the cache's parts holds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use selvedge_origin::registry::CacheSettings;
use selvedge_runtime::Body;

use super::world::*;
use crate::cache::Cache;
use crate::cache::collapse::Bounds;

const CHUNK: usize = 64 << 10;
const PAGE: usize = 15 * CHUNK;
const MEMORY: usize = 8 << 20;
/// What bodies may take: memory and a half. Each that is not held has its window, and a chunk between two hands.
const HELD_MAX: usize = MEMORY + MEMORY / 2;
const READERS: usize = 60;

/// A worker whose pages are as large as memory holds any and come in such chunks, and what it has made.
fn pages(chunk: usize) -> (World, Arc<AtomicUsize>) {
    pages_of(chunk, PAGE)
}

/// The same, of so many bytes.
fn pages_of(chunk: usize, bytes: usize) -> (World, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let counted = made.clone();
    let mut route = to_worker("/*", "w");
    route.cache = CacheSettings { enabled: Some(true), ..CacheSettings::default() };
    let script = move |_| {
        let counted = counted.clone();
        async move {
            let chunks = futures::stream::repeat_with(move || {
                counted.fetch_add(chunk, SeqCst);
                Ok(Bytes::from(vec![b'x'; chunk]))
            });
            let body = Body::chunks(chunks.take(bytes / chunk).boxed());
            Ok(Response::builder().header("cache-control", "max-age=60").body(body).expect("a response"))
        }
    };
    (
        World::with_worker_around(vec![route], script, |metrics| {
            let bounds = Bounds { patience: Duration::from_millis(100), ..Bounds::default() };
            Cache::new(MEMORY as u64, metrics).with_fills(bounds)
        }),
        made,
    )
}

#[tokio::test]
async fn what_is_fetched_for_clients_that_read_nothing_is_held_within_a_bound() {
    let (world, made) = pages(CHUNK);
    let mut unread = Vec::new();
    for number in 0..READERS {
        unread.push(world.get(&format!("/{number}")).await);
        settle().await;
    }
    let held = made.load(SeqCst);
    assert!((MEMORY..HELD_MAX + READERS * 3 * CHUNK).contains(&held), "{held}");
    drop(unread);
    world.rest().await;
    for number in READERS..READERS + 3 {
        world.look(&format!("/{number}")).await;
        world.look(&format!("/{number}")).await;
        assert!(world.look(&format!("/{number}")).await.1.contains("; hit;"), "there is room again");
    }
}

#[tokio::test]
async fn what_leaves_the_cache_while_it_is_read_counts_until_it_is_read() {
    let (world, _) = pages(CHUNK);
    let mut unread = Vec::new();
    for number in 0..READERS {
        let path = format!("/{number}");
        world.look(&path).await;
        unread.push(world.get(&path).await);
        let unsafe_method = Request::post(&path).header("host", "www.example.org").body(Body::empty()).expect("a request");
        world.send(unsafe_method).await;
    }
    let hits = unread.iter().filter(|response| field(response.headers(), "cache-status").contains("; hit;")).count();
    assert!((MEMORY / PAGE..=HELD_MAX / PAGE + 1).contains(&hits), "{hits} pages of {PAGE} bytes");
}

#[tokio::test]
async fn who_reads_while_a_page_is_stored_reads_the_stored_bytes() {
    let (world, _) = pages(4 << 10);
    let reading = world.get("/").await;
    world.rest().await;
    let stored = world.get("/").await;
    let [one, other] = [reading, stored].map(|response| async {
        let frame = response.into_body().frame().await.expect("a frame").expect("bytes");
        frame.into_data().expect("data").as_ptr() as usize
    });
    assert_eq!(one.await, other.await, "they are in memory once");
}

#[tokio::test]
async fn who_reads_nothing_does_not_keep_others_waiting_for_ever() {
    const BYTES: usize = 20 << 20;
    let (world, _) = pages_of(CHUNK, BYTES);
    let (idle, reading) = futures::join!(world.get("/"), world.get("/"));
    assert!(field(reading.headers(), "cache-status").contains("; collapsed"));
    assert_eq!(reading.into_body().collect(u64::MAX).await.expect("whole").len(), BYTES);
    let mut idle = idle.into_body();
    assert!(idle.frame().await.expect("a word").is_err(), "it was left behind");
}
