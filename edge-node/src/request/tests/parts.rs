//! Parts of responses: stored, served, widened, completed; several ranges at once; lengths that lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use selvedge_runtime::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::*;

const BYTES: &str = "0123456789abcdefghij";

/// Answers ranges of [`BYTES`] as a server should; notes `Range` and `If-Range` of each request.
async fn ranged(etag: &'static str) -> (Server, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = asked.clone();
    let server = Server::start(move |request: Request<Incoming>| {
        let range = field(request.headers(), "range");
        noted.lock().push(format!("{range} {}", field(request.headers(), "if-range")).trim().to_owned());
        async move { part_of(&range, etag) }
    })
    .await;
    (server, asked)
}

fn part_of(range: &str, etag: &'static str) -> Response<Body> {
    let all = BYTES.len();
    let cut = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).map(|(first, last)| match (first, last) {
        ("", suffix) => (all - suffix.parse::<usize>().expect("a number"), all - 1),
        (first, "") => (first.parse().expect("a number"), all - 1),
        (first, last) => (first.parse().expect("a number"), last.parse::<usize>().expect("a number").min(all - 1)),
    });
    let mut response = Response::builder().header("cache-control", "max-age=60").header("content-type", "text/plain");
    if !etag.is_empty() {
        response = response.header("etag", etag);
    }
    match cut {
        None => response.body(Body::full(BYTES)),
        Some((first, last)) => response
            .status(206)
            .header("content-range", format!("bytes {first}-{last}/{all}"))
            .body(Body::full(BYTES.get(first..=last).expect("inside"))),
    }
    .expect("a response")
}

async fn range(world: &World, range: &str) -> (u16, String, String) {
    let response = world.send(get("/", &[("range", range)])).await;
    (response.status().as_u16(), field(response.headers(), "content-range"), text(response).await)
}

#[tokio::test]
async fn a_part_is_stored_and_answers_ranges_inside_it() {
    let (server, asked) = ranged("\"a\"").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    assert_eq!(range(&world, "bytes=4-9").await, (206, "bytes 4-9/20".into(), "456789".into()));
    assert_eq!(range(&world, "bytes=4-9").await, (206, "bytes 4-9/20".into(), "456789".into()));
    assert_eq!(range(&world, "bytes=6-7").await, (206, "bytes 6-7/20".into(), "67".into()));
    assert_eq!(*asked.lock(), ["bytes=4-9"], "the range is passed on as it is, and then not asked for again");
    assert_eq!(range(&world, "bytes=8-11").await.2, "89ab");
    assert_eq!(range(&world, "bytes=4-11").await.2, "456789ab", "parts that touch are one");
    assert_eq!(asked.lock().len(), 2);
    assert_eq!(world.look("/").await.2, BYTES);
    assert_eq!(asked.lock().last().map(String::as_str), Some(""), "two gaps: all of it is asked for");
}

#[tokio::test]
async fn a_part_is_completed_by_what_it_lacks() {
    for (first, rest) in [("bytes=0-4", "bytes=5- \"a\""), ("bytes=-5", "bytes=0-14 \"a\"")] {
        let (server, asked) = ranged("\"a\"").await;
        let world = World::new(vec![to_upstream("/*", &server)]);
        range(&world, first).await;
        let whole = world.get("/").await;
        assert_eq!((whole.status().as_u16(), field(whole.headers(), "content-length")), (200, "20".into()), "{first}");
        assert!(field(whole.headers(), "cache-status").contains("fwd=partial") && !whole.headers().contains_key("content-range"));
        assert_eq!(text(whole).await, BYTES);
        assert_eq!(*asked.lock(), [first, rest]);
        let again = world.look("/").await;
        assert!(again.1.contains("hit") && again.2 == BYTES, "{again:?}");
    }
}

#[tokio::test]
async fn parts_without_a_strong_validator_or_of_another_version_are_not_put_together() {
    let (server, asked) = ranged("W/\"a\"").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    range(&world, "bytes=0-4").await;
    assert_eq!(world.look("/").await.2, BYTES);
    assert_eq!(*asked.lock(), ["bytes=0-4", "bytes=5-", ""]);

    // Changed in between: the server answers If-Range with all of it, or, if it is broken, with a part of the new one.
    let number = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |request: Request<Incoming>| {
        let tag = if number.fetch_add(1, SeqCst) == 0 { "\"a\"" } else { "\"b\"" };
        let range = field(request.headers(), "range");
        async move { part_of(&range, tag) }
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    range(&world, "bytes=0-4").await;
    let whole = world.get("/").await;
    assert_eq!(field(whole.headers(), "etag"), "\"b\"");
    assert_eq!(text(whole).await, BYTES);
}

#[tokio::test]
async fn a_part_with_other_bytes_than_it_says_is_not_stored() {
    let server = Server::fixed206("bytes 4-8/20", "456").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    for asked in ["bytes=4-8", "bytes=4-5", "bytes=4-8"] {
        assert_eq!(range(&world, asked).await.2, "456");
    }
    assert_eq!(server.requests(), 3, "none of it is given to others");
    let server = Server::fixed206("bytes 9-4/20", "456").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let response = world.send(get("/", &[("range", "bytes=4-8")])).await;
    assert!(field(response.headers(), "cache-status").ends_with("detail=range"), "{:?}", response.headers());
}

#[tokio::test]
async fn a_part_that_was_cut_is_not_the_whole_for_others() {
    // Without a length: the end of the connection is the end of the body, wherever it comes.
    let cut = "HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nContent-Range: bytes 0-9/10\r\nConnection: close\r\n\r\n01234";
    let (address, connections, _serving) = raw(cut).await;
    let server = Server::fixed(&[], "").await;
    let mut route = to_upstream("/*", &server);
    route.upstream = Some(group(&format!("http://{address}")));
    let world = World::new(vec![route]);
    for expected in 1..=2 {
        assert_eq!(range(&world, "bytes=0-9").await, (206, "bytes 0-9/10".into(), "01234".into()));
        world.rest().await;
        assert_eq!(connections.load(SeqCst), expected, "its client has got it, nobody else does");
    }
    assert_eq!(world.path.cache().usage().0, 0);
}

#[tokio::test]
async fn a_range_that_is_refused_poisons_nothing() {
    let server = Server::start(|request: Request<Incoming>| async move {
        let status = if request.headers().contains_key("range") { 416 } else { 200 };
        response(status, &[("cache-control", "max-age=60")], "page")
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    assert_eq!(range(&world, "bytes=999-").await.0, 416);
    assert_eq!(world.look("/").await.0, 200);
    for status in [400, 404, 500] {
        let server = Server::start(move |request: Request<Incoming>| async move {
            let status = if request.headers().contains_key("range") { status } else { 200 };
            response(status, &[("cache-control", "max-age=60")], "page")
        })
        .await;
        let world = World::new(vec![to_upstream("/*", &server)]);
        assert_eq!(range(&world, "bytes=0-1").await.0, status);
        assert_eq!(world.look("/").await.0, 200);
    }
}

#[tokio::test]
async fn several_ranges_are_parts_of_one_body_within_a_bound() {
    let (server, asked) = ranged("\"a\"").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    world.look("/").await;
    let response = world.send(get("/", &[("range", "bytes=0-1, 18-")])).await;
    let kind = field(response.headers(), "content-type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect(&kind).to_owned();
    assert_eq!(response.status(), 206);
    let length = field(response.headers(), "content-length");
    let body = text(response).await;
    assert_eq!(length, body.len().to_string());
    let part = |range: &str, bytes: &str| {
        format!("--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/20\r\n\r\n{bytes}\r\n")
    };
    assert_eq!(body, format!("{}{}--{boundary}--\r\n", part("0-1", "01"), part("18-19", "ij")));
    let many: Vec<String> = (0..19).map(|first| format!("{first}-{first}")).collect();
    for hostile in [format!("bytes={}", many.join(",")), "bytes=0-,0-,0-".into(), "bytes=0-5,3-9".into()] {
        assert_eq!(range(&world, &hostile).await, (200, String::new(), BYTES.into()), "{hostile}");
    }
    assert_eq!(asked.lock().len(), 1);
}

#[tokio::test]
async fn a_rest_with_other_bytes_than_its_range_says_makes_no_whole() {
    for rest in [&BYTES[5..19], &BYTES[4..20]] {
        let server = Server::start(move |request: Request<Incoming>| async move {
            let range = field(request.headers(), "range");
            let mut answer = part_of(&range, "\"a\"");
            if range == "bytes=5-" {
                *answer.body_mut() = Body::full(rest);
            }
            answer
        })
        .await;
        let world = World::new(vec![to_upstream("/*", &server)]);
        range(&world, "bytes=0-4").await;
        let whole = world.get("/").await;
        assert_eq!((whole.status().as_u16(), field(whole.headers(), "content-length")), (200, "20".into()));
        assert!(whole.into_body().collect(99).await.is_err(), "{rest}: the client sees that it is none");
        world.rest().await;
        let again = world.get("/").await;
        assert!(field(again.headers(), "cache-status").contains("fwd=partial"), "{rest}: it was not stored");
    }
}

#[tokio::test]
async fn a_length_that_a_response_without_a_body_says_is_not_stored() {
    let (address, connections, _serving) = raw("HTTP/1.1 204 No Content\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\n").await;
    let server = Server::fixed(&[], "").await;
    let mut route = to_upstream("/*", &server);
    route.upstream = Some(group(&format!("http://{address}")));
    let world = World::new(vec![route]);
    for expected in 1..=2 {
        assert_eq!(world.get("/").await.status(), 204);
        world.rest().await;
        assert_eq!(connections.load(SeqCst), expected);
    }
}

/// Sends these bytes to every connection, whatever it asks, and closes it.
pub(super) async fn raw(answer: &'static str) -> (std::net::SocketAddr, Arc<AtomicUsize>, tokio_util::task::AbortOnDropHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let serving = crate::tasks::owned("raw upstream", async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            let mut asked = [0; 4096];
            let _ = socket.read(&mut asked).await;
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
    });
    (address, connections, serving)
}

#[tokio::test]
async fn a_body_that_is_shorter_than_it_said_is_not_stored_and_a_longer_one_ends_where_it_said() {
    let (address, connections, _serving) = raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nshort").await;
    let server = Server::fixed(&[], "").await;
    let mut route = to_upstream("/*", &server);
    route.upstream = Some(group(&format!("http://{address}")));
    let world = World::new(vec![route.clone()]);
    for expected in 1..=2 {
        let cut = world.get("/").await.into_body().collect(99).await;
        assert!(cut.is_err(), "{cut:?}");
        assert_eq!(connections.load(SeqCst), expected);
    }
    assert_eq!(world.path.cache().usage().0, 0);

    let (address, connections, _serving) = raw(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\npageHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    )
    .await;
    route.upstream = Some(group(&format!("http://{address}")));
    let world = World::new(vec![route]);
    assert_eq!(world.look("/").await.2, "page");
    assert_eq!(world.look("/other").await.2, "page", "what came after the body is nobody's answer");
    assert_eq!(connections.load(SeqCst), 2);
}

#[tokio::test]
async fn a_range_of_another_version_is_not_answered_from_a_part() {
    let (server, asked) = ranged("\"a\"").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    range(&world, "bytes=4-9").await;
    let on = async |tag: &str| world.send(get("/", &[("range", "bytes=6-7"), ("if-range", tag)])).await;
    assert_eq!(text(on("\"a\"").await).await, "67");
    assert_eq!(asked.lock().len(), 1);
    on("\"old\"").await;
    assert_eq!(asked.lock().last().map(String::as_str), Some("bytes=6-7 \"old\""), "the upstream decides");
}

#[tokio::test]
async fn a_condition_comes_before_a_range_on_a_miss_as_on_a_hit() {
    let (server, _) = ranged("\"a\"").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    for _ in 0..2 {
        let response = world.send(get("/", &[("range", "bytes=4-9"), ("if-none-match", "\"a\"")])).await;
        assert_eq!((response.status().as_u16(), text(response).await.as_str()), (304, ""));
    }
    assert_eq!(range(&world, "bytes=4-9").await.2, "456789");
    assert_eq!(server.requests(), 1, "the part is stored all the same");
}
