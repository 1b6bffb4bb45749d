//! What there is no room for: `Cache-Status` says so, and what is asked for often stays.

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use hyper::body::Incoming;
use selvedge_runtime::Body;

use super::explaining::last_refusal;
use super::on_disk::fed;
use super::world::*;
use crate::cache::Cache;
use crate::cache::disk::DiskConfig;
use crate::routes::Route;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Answers `/whole/...` with what comes in one piece, `/long/...` with as many bytes as the query says, or 200 KiB, and `/chunked/...` without saying how many.
async fn sized(request: Request<Incoming>) -> Response<Body> {
    let bytes = request.uri().query().and_then(|query| query.parse().ok());
    let answer = Response::builder().header("cache-control", "max-age=600");
    let long = |bytes: usize| {
        let pieces = (0..bytes / (50 * KIB)).map(|_| Ok(Bytes::from(vec![b'x'; 50 * KIB])));
        Body::chunks(futures::stream::iter(pieces).then(|piece| async { piece }).boxed())
    };
    match request.uri().path().split('/').nth(1) {
        Some("long") => answer.header("content-length", bytes.unwrap_or(200 * KIB)).body(long(bytes.unwrap_or(200 * KIB))),
        Some("chunked") => answer.body(long(bytes.unwrap_or(200 * KIB))),
        _ => answer.body(Body::full(vec![b'x'; bytes.unwrap_or(32 * KIB)])),
    }
    .expect("a response")
}

/// Status and `Cache-Status` of a GET, when all of it is here and stored.
async fn ask(world: &World, path: &str) -> String {
    let (status, said, _) = world.look(path).await;
    assert_eq!(status, 200, "{path}");
    world.rest().await;
    said
}

const MISS: &str = "edge-1; fwd=uri-miss; fwd-status=200";

/// A full memory without a disk; these routes lead elsewhere.
async fn full(memory_bytes: usize, mut routes: Vec<Route>) -> (Server, World) {
    let server = Server::start(sized).await;
    routes.push(to_upstream("/*", &server));
    let world = World::around(routes, |metrics| Cache::new(memory_bytes as u64, metrics));
    for number in 0..memory_bytes / (32 * KIB) + 20 {
        ask(&world, &format!("/whole/{number}")).await;
    }
    assert!(world.metrics.cache_strangers.get() > 0, "memory is full");
    (server, world)
}

#[tokio::test]
async fn a_stranger_in_a_full_memory_without_a_disk_is_not_said_to_be_stored() {
    let (_server, world) = full(4 * MIB, Vec::new()).await;
    for path in ["/whole/new", "/long/new", "/chunked/new"] {
        assert_eq!(ask(&world, path).await, format!("{MISS}; detail=admission"), "{path}");
        assert_eq!(last_refusal(&world, path).await.as_deref(), Some("admission"), "{path}");
        let said = if path == "/chunked/new" { "detail=unknown-length" } else { "stored" };
        assert_eq!(ask(&world, path).await, format!("{MISS}; {said}"), "{path}: asked for again");
        assert!(ask(&world, path).await.contains("; hit;"), "{path}");
    }
}

#[tokio::test]
async fn a_stranger_that_others_follow_is_stored_and_they_are_told() {
    let (server, sender) = fed().await;
    let (_other, world) = full(4 * MIB, vec![to_upstream("/fed/*", &server)]).await;
    let first = world.get("/fed/page").await;
    let second = world.get("/fed/page").await;
    assert_eq!(field(first.headers(), "cache-status"), format!("{MISS}; detail=admission"));
    assert_eq!(field(second.headers(), "cache-status"), format!("{MISS}; collapsed; detail=unknown-length"));
    // Who brought the other one along may go.
    drop(first);
    sender.send(Bytes::from_static(b"page")).await.expect("the fetch goes on");
    drop(sender);
    assert_eq!(text(second).await, "page");
    world.rest().await;
    assert!(ask(&world, "/fed/page").await.contains("; hit;") && server.requests() == 1);
}

#[tokio::test]
async fn what_is_known_to_be_too_large_for_its_place_is_not_said_to_be_stored() {
    let server = Server::start(sized).await;
    let large = |bytes: usize| format!("/long/a?{}", bytes / (50 * KIB) * (50 * KIB));
    let world = World::around(vec![to_upstream("/*", &server)], |metrics| Cache::new(16 * MIB as u64, metrics));
    for _ in 0..2 {
        assert_eq!(ask(&world, &large(3 * MIB)).await, format!("{MISS}; detail=too-large"), "beyond an eighth of memory, without a disk");
        assert_eq!(last_refusal(&world, &large(3 * MIB)).await.as_deref(), Some("too-large"));
    }
    assert_eq!(ask(&world, &large(MIB)).await, format!("{MISS}; stored"));
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskConfig { folder: folder.path().to_owned(), bytes_max: 32 << 20 };
    let world = World::around(vec![to_upstream("/*", &server)], |metrics| Cache::with_disk(16 << 20, &disk, metrics).expect("a folder"));
    assert_eq!(ask(&world, &large(3 * MIB)).await, format!("{MISS}; stored"), "beyond an eighth of memory, within one of the disk");
    assert!(ask(&world, &large(3 * MIB)).await.ends_with("detail=disk"));
    for _ in 0..2 {
        assert_eq!(ask(&world, &large(5 * MIB)).await, format!("{MISS}; detail=too-large"), "beyond an eighth of the disk");
    }
}

#[tokio::test]
async fn what_may_prove_too_large_is_said_to_be_stored_by_nobody_and_a_hit_shows_whether_it_was() {
    let server = Server::start(sized).await;
    let world = World::around(vec![to_upstream("/*", &server)], |metrics| Cache::new(16 * MIB as u64, metrics));
    let chunked = |bytes: usize| format!("/chunked/a?{}", bytes / (50 * KIB) * (50 * KIB));
    for _ in 0..2 {
        assert_eq!(ask(&world, &chunked(3 * MIB)).await, format!("{MISS}; detail=unknown-length"), "beyond an eighth of memory");
        assert_eq!(last_refusal(&world, &chunked(3 * MIB)).await.as_deref(), Some("too-large"));
    }
    assert_eq!(ask(&world, &chunked(MIB)).await, format!("{MISS}; detail=unknown-length"));
    assert!(ask(&world, &chunked(MIB)).await.contains("; hit;"));
}

#[tokio::test]
async fn what_is_asked_for_often_stays_whatever_comes_by_once() {
    let server = Server::start(sized).await;
    let world = World::around(vec![to_upstream("/*", &server)], |metrics| Cache::new(8 * MIB as u64, metrics));
    let hot: Vec<String> = (0..150).map(|number| format!("/whole/hot/{number}")).collect();
    for _ in 0..3 {
        for path in &hot {
            world.look(path).await;
        }
    }
    let before = server.requests();
    // Four times as much as fits, while the hot ones rest.
    for number in 0..1000 {
        world.look(&format!("/whole/scan/{number}")).await;
    }
    assert_eq!(server.requests(), before + 1000);
    for path in &hot {
        world.look(path).await;
    }
    let lost = server.requests() - before - 1000;
    assert!(lost <= hot.len() / 20, "{lost} of {} had to go", hot.len());
    assert!(world.path.cache().usage().1 <= 8 * MIB as u64);
}
