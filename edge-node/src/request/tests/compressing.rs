//! Compression on the fly, as clients see it.

use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request, Response};
use selvedge_origin::registry::{CacheSettings, Coding};
use selvedge_runtime::Body;

use super::world::*;
use crate::listen::Interim;
use crate::request::compress::encoder::tests::decode;
use crate::request::context::Context;
use crate::request::lookup::{self, Fetched, Question};
use crate::request::route;
use crate::request::trail::{Origin, Trail};

const PAGE: &str = include_str!("compressing.rs");

type Fields = &'static [(&'static str, &'static str)];

const STORED: Fields = &[("content-type", "text/html"), ("cache-control", "max-age=60"), ("etag", "\"a\"")];
const PRIVATE: Fields = &[("content-type", "text/html"), ("etag", "\"a\"")];

fn accepting(coding: &str) -> Request<Body> {
    get("/", &[("accept-encoding", coding)])
}

/// Content-Encoding and what the body decodes to.
async fn plain(response: Response<Body>) -> (String, Vec<u8>) {
    let name = field(response.headers(), "content-encoding");
    let stated = response.headers().get("content-length").map(|length| length.to_str().expect("text").parse::<usize>().expect("a number"));
    let bytes = response.into_body().collect(64 << 20).await.expect("a whole body");
    assert!(stated.is_none_or(|stated| stated == bytes.len()), "{name}: {stated:?} is said, {} came", bytes.len());
    match Coding::ALL.iter().find(|coding| coding.name() == name) {
        None => (name, bytes.to_vec()),
        Some(coding) => {
            let (plain, whole) = decode(*coding, &bytes);
            assert!(whole, "{name} ends as it should");
            assert!(bytes.len() < plain.len(), "{name}: {} bytes of {}", bytes.len(), plain.len());
            (name, plain)
        }
    }
}

#[tokio::test]
async fn a_stored_page_is_compressed_once_for_each_coding() {
    let server = Server::fixed(STORED, PAGE).await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    for _ in 0..3 {
        for name in ["br", "zstd", "gzip"] {
            let response = world.send(accepting(name)).await;
            assert_eq!(field(response.headers(), "vary"), "Accept-Encoding");
            assert_eq!(field(response.headers(), "etag"), "W/\"a\"");
            assert_eq!(plain(response).await, (name.to_owned(), PAGE.into()));
        }
        let response = world.get("/").await;
        assert_eq!((field(response.headers(), "vary"), field(response.headers(), "etag")), ("Accept-Encoding".into(), "\"a\"".into()));
        assert_eq!(plain(response).await, (String::new(), PAGE.into()));
    }
    assert_eq!((world.metrics.compressions.get(), server.requests()), (3, 1));
}

#[tokio::test]
async fn what_was_stored_since_the_first_look_is_compressed_too() {
    let server = Server::fixed(STORED, PAGE).await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    world.get("/").await;
    let (path, request) = (&world.path, accepting("br"));
    let trail = Trail::new(Context::of_client(&request, &connection(false), &[]), Origin::Client, path.sinks.clone(), Interim::none());
    let aim = route::resolve(&trail.context, &path.routes.load()).expect("a route");
    let question = Question::new(request.headers(), &aim, &trail.context).expect("a cache");
    let Ok(Fetched::Response(response)) = lookup::fetch(path, &question, request.headers(), &aim, &trail).await else {
        panic!("no response")
    };
    assert!(field(response.headers(), "cache-status").contains("hit"));
    assert_eq!(plain(response).await, ("br".to_owned(), PAGE.into()));
}

#[tokio::test]
async fn coded_bytes_survive_a_304_and_go_with_what_they_are_of() {
    let server = Server::start(|request| async move {
        match request.headers().contains_key("if-none-match") {
            true => response(304, &[("cache-control", "max-age=60"), ("x-new", "1")], ""),
            false => response(200, STORED, PAGE),
        }
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    plain(world.send(accepting("br")).await).await;
    world.pass(100);
    let fresh = world.send(accepting("br")).await;
    assert_eq!((field(fresh.headers(), "x-new"), field(fresh.headers(), "vary")), ("1".into(), "Accept-Encoding".into()));
    assert_eq!(plain(fresh).await.0, "br");
    assert_eq!(world.metrics.compressions.get(), 1, "the same bytes");
    let before = world.path.cache().usage().1;
    let mut post = accepting("br");
    *post.method_mut() = Method::POST;
    world.send(post).await;
    assert!(world.path.cache().usage().1 < before, "an unsafe method makes all of it invalid");
    assert_eq!(plain(world.send(accepting("br")).await).await.0, "br");
    assert_eq!(world.metrics.compressions.get(), 3, "the answer to POST, and the new entry");
}

#[tokio::test]
async fn a_condition_holds_in_every_coding_and_head_says_what_get_says() {
    for fields in [STORED, PRIVATE] {
        let server = Server::fixed(fields, PAGE).await;
        let world = World::new(vec![to_upstream("/*", &server)]);
        for tag in ["\"a\"", "W/\"a\""] {
            for coding in ["br", "gzip", "identity"] {
                let response = world.send(get("/", &[("accept-encoding", coding), ("if-none-match", tag)])).await;
                assert_eq!(response.status(), 304, "{coding} {tag}");
            }
        }
        let got = world.send(accepting("br")).await.into_parts().0.headers;
        let mut head = accepting("br");
        *head.method_mut() = Method::HEAD;
        let head = world.send(head).await;
        for name in ["content-encoding", "vary", "etag", "content-type"] {
            assert_eq!(field(head.headers(), name), field(&got, name), "{name}");
        }
    }
}

#[tokio::test]
async fn a_range_is_of_the_bytes_as_they_are() {
    let server = Server::fixed(STORED, PAGE).await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    plain(world.send(accepting("br")).await).await;
    let response = world.send(get("/", &[("accept-encoding", "br"), ("range", "bytes=0-9")])).await;
    assert_eq!((response.status().as_u16(), field(response.headers(), "etag")), (206, "\"a\"".into()));
    assert_eq!(plain(response).await, (String::new(), PAGE.as_bytes()[..10].to_vec()));
}

#[tokio::test]
async fn a_large_page_is_compressed_by_one_for_all_while_it_comes() {
    let large: &'static str = PAGE.repeat(60).leak();
    assert!(large.len() > 400_000);
    let server = Server::start(move |_| async move {
        let pieces = large.as_bytes().chunks(10_000).map(|piece| Ok(Bytes::from_static(piece)));
        response(200, STORED, "").map(|_| Body::chunks(futures::stream::iter(pieces)))
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let answers = join_all((0..20).map(|_| async { plain(world.send(accepting("zstd")).await).await })).await;
    assert!(answers.iter().all(|answer| *answer == ("zstd".into(), large.as_bytes().to_vec())));
    assert_eq!((world.metrics.compressions.get(), server.requests()), (1, 1));
    // What it gave is kept: the next one gets it with its length.
    let response = world.send(accepting("zstd")).await;
    assert!(response.headers().contains_key("content-length"));
    assert_eq!(plain(response).await.1, large.as_bytes());
    // Another coding of what is stored: again one for all.
    let answers = join_all((0..20).map(|_| async { plain(world.send(accepting("gzip")).await).await })).await;
    assert!(answers.iter().all(|answer| *answer == ("gzip".into(), large.as_bytes().to_vec())));
    assert_eq!((world.metrics.compressions.get(), server.requests()), (2, 1));
}

#[tokio::test]
async fn what_is_not_for_the_cache_is_compressed_too() {
    let server = Server::fixed(PRIVATE, PAGE).await;
    let mut off = to_upstream("off.org/*", &server);
    off.cache = CacheSettings { enabled: Some(false), ..CacheSettings::default() };
    let world = World::with_worker(vec![to_upstream("/*", &server), off, to_worker("w.org/*", "w")], |_| async {
        Ok(response(200, PRIVATE, PAGE))
    });
    for host in ["a.org", "off.org", "w.org"] {
        let mut request = accepting("gzip, br");
        request.headers_mut().insert("host", host.parse().expect("a host"));
        let response = world.send(request).await;
        assert_eq!(field(response.headers(), "vary"), "Accept-Encoding", "{host}");
        assert_eq!(plain(response).await, ("br".into(), PAGE.into()), "{host}");
    }
}

#[tokio::test]
async fn what_must_stay_as_it_is_does() {
    let keep: [Fields; 4] = [
        &[("content-type", "image/png"), ("cache-control", "max-age=60")],
        &[("content-type", "text/html"), ("cache-control", "max-age=60, no-transform")],
        &[("content-type", "text/html"), ("content-encoding", "x-own"), ("cache-control", "max-age=60")],
        &[("cache-control", "max-age=60")],
    ];
    for fields in keep {
        let server = Server::fixed(fields, PAGE).await;
        let world = World::new(vec![to_upstream("/*", &server)]);
        for _ in 0..2 {
            let response = world.send(accepting("br")).await;
            assert_eq!(field(response.headers(), "vary"), "", "{fields:?}");
            assert_eq!(plain(response).await.1, PAGE.as_bytes(), "{fields:?}");
        }
        assert_eq!(world.metrics.compressions.get(), 0);
    }
    let server = Server::fixed(STORED, "short").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    assert_eq!(plain(world.send(accepting("br")).await).await, (String::new(), b"short".to_vec()));
    let server = Server::fixed(STORED, PAGE).await;
    let mut route = to_upstream("/*", &server);
    route.compress.enabled = false;
    let world = World::new(vec![route]);
    let response = world.send(accepting("br")).await;
    assert_eq!((field(response.headers(), "vary"), plain(response).await.0), (String::new(), String::new()));
}

#[tokio::test]
async fn what_does_not_become_smaller_is_tried_once() {
    // No two of its bytes in a row are foreseeable.
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(5_000)
    .collect();
    let noise: &'static [u8] = noise.leak();
    let server = Server::start(move |_| async move { response(200, STORED, "").map(|_| Body::full(Bytes::from_static(noise))) }).await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    for _ in 0..3 {
        assert_eq!(plain(world.send(accepting("gzip")).await).await, (String::new(), noise.to_vec()));
    }
    assert_eq!(world.metrics.compressions.get(), 1);
}

#[tokio::test]
async fn a_condition_is_about_a_200_and_a_stored_error_is_sent_with_its_body() {
    let server = Server::start(|_| async { response(404, STORED, PAGE) }).await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    world.look("/").await;
    for coding in ["br", "identity"] {
        let response = world.send(get("/", &[("accept-encoding", coding), ("if-none-match", "\"a\"")])).await;
        assert_eq!(response.status(), 404);
        assert_eq!(plain(response).await.1, PAGE.as_bytes(), "{coding}");
    }
}
