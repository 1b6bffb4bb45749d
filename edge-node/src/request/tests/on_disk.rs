//! What is stored on disk, as clients see it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::Response;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use selvedge_origin::registry::CacheSettings;
use selvedge_runtime::Body;
use tokio::sync::mpsc;

use super::world::*;
use crate::cache::disk::tests::hanging;

const MIB: usize = 1 << 20;

fn piece(number: usize) -> Bytes {
    (0..64 << 10).map(|at| (number * 7 + at % 253) as u8).collect::<Vec<u8>>().into()
}

/// The first bytes of an endless body.
fn begin(bytes: usize) -> Vec<u8> {
    let mut all: Vec<u8> = (0..bytes.div_ceil(64 << 10)).flat_map(piece).collect();
    all.truncate(bytes);
    all
}

type Sender = mpsc::Sender<Bytes>;

/// An upstream whose one body comes as the test sends it; later requests get nothing.
pub(super) async fn fed() -> (Server, Sender) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let server = Server::start(move |_| {
        let receiver = receiver.lock().take();
        async move {
            let Some(receiver) = receiver else { return response(500, &[], "asked again") };
            let chunks =
                futures::stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|chunk| (Ok(chunk), receiver)) });
            Response::builder().header("cache-control", "max-age=60").body(Body::chunks(chunks)).expect("a response")
        }
    })
    .await;
    (server, sender)
}

async fn read(body: &mut Body, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < bytes {
        let frame = body.frame().await.expect("more").expect("a good body");
        all.extend_from_slice(&frame.into_data().expect("data"));
    }
    all
}

async fn send(sender: &Sender, pieces: std::ops::Range<usize>) {
    for number in pieces {
        sender.send(piece(number)).await.expect("the fetch goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_memory_goes_to_disk_while_readers_follow() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, sender) = fed().await;
    let world = World::on_disk(vec![to_upstream("/*", &server)], 16 * MIB as u64, folder.path());
    let all = begin(48 * MIB);
    let (mut quick, mut slow) = (world.get("/").await.into_body(), world.get("/").await.into_body());
    let sending = tokio::spawn(async move {
        send(&sender, 0..640).await;
        sender
    });
    // The slow one has read nothing, and holds nobody up.
    assert_eq!(read(&mut quick, 40 * MIB).await, all[..40 * MIB]);
    let sender = sending.await.expect("sent");
    // One that comes late reads from the first byte, too.
    let mut late = world.get("/").await.into_body();
    assert_eq!(read(&mut late, 20 * MIB).await, all[..20 * MIB]);
    send(&sender, 640..768).await;
    drop(sender);
    assert_eq!(quick.collect(u64::MAX).await.expect("the rest"), all[40 * MIB..]);
    assert_eq!(slow.frame().await.expect("more").expect("good").into_data().expect("data"), all[..64 << 10]);
    assert_eq!(slow.collect(u64::MAX).await.expect("the rest"), all[64 << 10..]);
    assert_eq!(late.collect(u64::MAX).await.expect("the rest"), all[20 * MIB..]);
    world.rest().await;
    let hit = world.get("/").await;
    assert!(field(hit.headers(), "cache-status").ends_with("detail=disk"), "{:?}", hit.headers());
    assert_eq!(hit.into_body().collect(u64::MAX).await.expect("all"), all);
    assert_eq!(server.requests(), 1);
    assert!(world.path.cache().usage().1 <= 16 * MIB as u64, "what was read again is in memory, as far as there is room");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_get_to_a_disk_that_hangs_is_sent_to_who_is_behind_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, sender) = fed().await;
    let world = World::on_disk(vec![to_upstream("/*", &server)], 16 * MIB as u64, folder.path());
    let (mut ahead, behind) = (world.get("/").await.into_body(), world.get("/").await.into_body());
    let all = begin(48 * MIB);
    let sending = tokio::spawn(async move { send(&sender, 0..768).await });
    assert_eq!(read(&mut ahead, 20 * MIB).await, all[..20 * MIB]);
    let hangs = hanging(world.path.cache());
    // As far as both may be apart, and further than a slice is waited for.
    let further = async {
        while let Ok(Some(frame)) = tokio::time::timeout(Duration::from_secs(3), ahead.frame()).await {
            frame.expect("a good body");
        }
    };
    further.await;
    drop(hangs);
    let both = futures::future::join(ahead.collect(u64::MAX), behind.collect(u64::MAX));
    let (_, behind) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("an end");
    assert!(behind.expect("to its end") == all, "nothing is missing");
    sending.await.expect("sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_proves_too_large_for_its_route_is_passed_on_and_not_stored_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, sender) = fed().await;
    let mut route = to_upstream("/*", &server);
    route.cache = CacheSettings { entry_bytes_max: 24 * MIB as u64, ..CacheSettings::default() };
    let world = World::on_disk(vec![route], 16 * MIB as u64, folder.path());
    let body = world.get("/").await.into_body();
    let sending = tokio::spawn(async move { send(&sender, 0..512).await });
    assert_eq!(body.collect(u64::MAX).await.expect("all of it"), begin(32 * MIB));
    sending.await.expect("sent");
    world.rest().await;
    assert_eq!(world.get("/").await.status(), 500, "it is asked for again");
    assert_eq!(server.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_answers_head_range_and_conditions_from_its_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let fields = &[("cache-control", "max-age=600"), ("etag", "\"1\""), ("vary", "accept-language")];
    let server = Server::fixed(fields, "0123456789").await;
    let before = World::on_disk(vec![to_upstream("/*", &server)], 16 * MIB as u64, folder.path());
    before.look("/").await;
    before.rest().await;
    drop(before);
    let restarted = || World::on_disk(vec![to_upstream("/*", &server)], 16 * MIB as u64, folder.path());
    for (method, field, value, status, body) in [
        ("GET", "x-a", "1", 200, "0123456789"),
        ("HEAD", "x-a", "1", 200, ""),
        ("GET", "range", "bytes=2-4", 206, "234"),
        ("GET", "if-none-match", "\"1\"", 304, ""),
        ("GET", "cache-control", "only-if-cached", 200, "0123456789"),
    ] {
        let world = restarted();
        world.path.cache().settled().await;
        let mut request = get("/", &[(field, value)]);
        *request.method_mut() = method.parse().expect("a method");
        let (got, cache, text) = look(world.send(request).await).await;
        assert_eq!((got, text.as_str()), (status, body), "{method} {field}");
        assert_eq!(cache, "edge-1; hit; ttl=600; detail=disk", "{method} {field}");
        assert_eq!(world.look("/").await.1, "edge-1; hit; ttl=600", "memory has it now");
        world.rest().await;
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_reads_none_of_what_is_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|_| async {
        http::Response::builder().header("cache-control", "max-age=600").body(Body::full(vec![b'x'; 40 << 10])).expect("a response")
    })
    .await;
    let world = || World::on_disk(vec![to_upstream("/*", &server)], 16 * MIB as u64, folder.path());
    let before = world();
    for number in 0..100 {
        before.look(&format!("/{number}")).await;
    }
    before.rest().await;
    drop(before);
    let after = world();
    after.path.cache().settled().await;
    let disk = &after.metrics.disk;
    assert_eq!((after.path.cache().disk_usage().entries, disk.reads.get(), disk.read_bytes.get()), (100, 0, 0));
    for number in 1..=3 {
        assert!(after.look(&format!("/{number}")).await.1.ends_with("detail=disk"));
        assert_eq!(disk.reads.get(), number, "each is read when it is asked for");
        assert!((number * (40 << 10)..number * (44 << 10)).contains(&disk.read_bytes.get()), "{}", disk.read_bytes.get());
    }
    assert_eq!(server.requests(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stale_on_disk_is_validated() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|request| async move {
        let fields = &[("cache-control", "max-age=60"), ("etag", "\"1\"")];
        if request.headers().contains_key("if-none-match") { response(304, fields, "") } else { response(200, fields, "page") }
    })
    .await;
    let before = World::on_disk(vec![to_upstream("/*", &server)], 16 * MIB as u64, folder.path());
    before.look("/").await;
    before.rest().await;
    drop(before);
    let after = World::on_disk(vec![to_upstream("/*", &server)], 16 * MIB as u64, folder.path());
    after.path.cache().settled().await;
    after.pass(100);
    assert_eq!(after.look("/").await, (200, "edge-1; fwd=stale; fwd-status=304; stored".into(), "page".into()));
    assert_eq!(after.look("/").await.2, "page");
    assert_eq!(server.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_request_reaches_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::fixed(&[("cache-control", "max-age=600")], "page").await;
    let before = World::on_disk(vec![to_upstream("/*", &server)], 16 * MIB as u64, folder.path());
    before.look("/").await;
    let mut post = get("/", &[]);
    *post.method_mut() = http::Method::POST;
    before.send(post).await;
    before.rest().await;
    drop(before);
    let after = World::on_disk(vec![to_upstream("/*", &server)], 16 * MIB as u64, folder.path());
    after.path.cache().settled().await;
    assert!(after.look("/").await.1.contains("fwd=uri-miss"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_is_not_stored_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|_| async {
        let chunks = futures::stream::iter((0..64).map(|number| Ok(piece(number))));
        let cut = chunks.chain(futures::stream::once(async { Err(selvedge_runtime::BodyError::Aborted("cut".into())) }));
        Response::builder().header("cache-control", "max-age=60").body(Body::chunks(cut)).expect("a response")
    })
    .await;
    let world = World::on_disk(vec![to_upstream("/*", &server)], 16 * MIB as u64, folder.path());
    for _ in 0..2 {
        assert!(world.get("/").await.into_body().collect(u64::MAX).await.is_err());
    }
    assert_eq!(server.requests(), 2);
    assert_eq!(world.path.cache().disk_usage().entries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_memory_does_not_take_goes_to_disk_and_comes_in_when_it_is_asked_for_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|_| async move {
        let body = Body::full(vec![b'x'; 64 << 10]);
        http::Response::builder().header("cache-control", "max-age=600").body(body).expect("a response")
    })
    .await;
    let world = World::on_disk(vec![to_upstream("/*", &server)], 16 * MIB as u64, folder.path());
    for number in 0..400 {
        world.look(&format!("/{number}")).await;
        world.rest().await;
    }
    for number in 0..200 {
        assert_eq!(world.look(&format!("/{number}")).await.1, "edge-1; hit; ttl=600", "{number} came first, and stays");
    }
    assert!(world.metrics.cache_strangers.get() > 100);
    let mut from = Vec::new();
    while from.last().is_none_or(|cache: &String| cache.ends_with("detail=disk")) && from.len() < 20 {
        from.push(world.look("/399").await.1);
    }
    assert!((2..20).contains(&from.len()), "{from:?}");
    assert_eq!(server.requests(), 400);
}
