//! What goes out to an upstream over HTTP/1.1, byte by byte: whatever a client or a worker says, each request has one framing, one Host, and an end.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Version};
use parking_lot::Mutex;
use selvedge_runtime::{Body, BodyError, Redirect, Subrequest};

use super::world::*;

/// Fields of the request; whether its body is a stream; the body; the framing that the upstream sees, or nothing where it sees as
/// much as the length says.
type Row = (&'static [(&'static str, &'static str)], bool, &'static str, Option<&'static str>);

const LENGTH: Option<&str> = Some("content-length: 4");
const CHUNKED: Option<&str> = Some("transfer-encoding: chunked");

const ROWS: &[Row] = &[
    (&[], false, "body", LENGTH),
    (&[], true, "body", CHUNKED),
    (&[("content-length", "4")], true, "body", LENGTH),
    (&[("content-length", "9")], false, "body", LENGTH),
    (&[("content-length", "4"), ("content-length", "4")], true, "body", CHUNKED),
    (&[("content-length", "4, 4")], true, "body", CHUNKED),
    (&[("content-length", "+4")], true, "body", CHUNKED),
    (&[("transfer-encoding", "chunked")], false, "body", LENGTH),
    (&[("transfer-encoding", "chunked")], true, "body", CHUNKED),
    (&[("transfer-encoding", "gzip"), ("content-length", "4")], true, "body", LENGTH),
    (&[("transfer-encoding", "chunked"), ("content-length", "4")], true, "body", LENGTH),
    (&[("transfer-encoding", "identity"), ("transfer-encoding", "chunked")], true, "body", CHUNKED),
    // What `Connection` names is taken off, but not what frames the message.
    (&[("connection", "content-length, host, close"), ("content-length", "4")], true, "body", LENGTH),
    (&[("connection", "x-secret"), ("x-secret", "1"), ("keep-alive", "1"), ("te", "gzip"), ("trailer", "x")], true, "body", CHUNKED),
    (&[("upgrade", "h2c"), ("http2-settings", "x"), ("proxy-connection", "x"), ("expect", "100-continue")], true, "body", CHUNKED),
    // A body that is longer than it says must not be the beginning of the next request. (None is shorter: listeners make that an error.)
    (&[("content-length", "2")], true, "body", None),
];

/// The connection-specific fields that may reach nobody.
const NEVER: [&str; 9] =
    ["x-secret", "keep-alive", "\r\nte:", "trailer", "upgrade", "http2-settings", "proxy-connection", "expect", "\r\nconnection: x"];

fn request(fields: &[(&'static str, &'static str)], body: Body) -> Request<Body> {
    let mut request = get("/", &[]).map(|_| body);
    (*request.method_mut(), *request.version_mut()) = (Method::POST, Version::HTTP_11);
    for (name, value) in fields {
        request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    request
}

fn stream(text: &'static str) -> Body {
    let halves = text.as_bytes().chunks(2).map(|half| Ok::<_, BodyError>(Bytes::from_static(half)));
    Body::chunks(futures::stream::iter(halves.collect::<Vec<_>>()))
}

#[tokio::test]
async fn requests_to_an_upstream_have_one_framing_and_one_host() {
    for (fields, streamed, body, framing) in ROWS {
        let seen = Arc::new(Mutex::new(String::new()));
        let upstream = Server::recording(&seen).await;
        let world = World::new(vec![to_upstream("www.example.org/*", &upstream)]);
        let content = if *streamed { stream(body) } else { Body::full(*body) };
        let response = world.send(request(fields, content)).await;
        let status = response.status();
        drop(response);
        let seen = seen.lock().to_lowercase();
        let row = format!("{fields:?} {streamed}: {status} {seen:?}");
        let (head, rest) = seen.split_once("\r\n\r\n").unwrap_or((&seen, ""));
        let count = |name: &str| head.matches(&format!("\r\n{name}:")).count();
        match framing {
            Some(framing) => {
                assert!(head.contains(framing) && status == 200, "{row}");
                let expected: &[&str] = if *framing == "content-length: 4" {
                    &["body"]
                } else {
                    &["4\r\nbody\r\n0\r\n\r\n", "2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"]
                };
                assert!(expected.contains(&rest), "{row}");
                assert_eq!(count("content-length") + count("transfer-encoding"), 1, "{row}");
                assert_eq!(count("host"), 1, "{row}");
            }
            None => assert_eq!(rest, "bo", "{row}"),
        }
        assert!(NEVER.iter().all(|name| !head.contains(name)), "{row}");
    }
}

#[tokio::test]
async fn a_request_whose_body_fails_has_no_end() {
    let seen = Arc::new(Mutex::new(String::new()));
    let upstream = Server::recording(&seen).await;
    let world = World::new(vec![to_upstream("www.example.org/*", &upstream)]);
    for fields in [&[][..], &[("content-length", "4")]] {
        let failing = [Ok(Bytes::from_static(b"bo")), Err(BodyError::Aborted("the client left".into()))];
        let response = world.send(request(fields, Body::chunks(futures::stream::iter(failing)))).await;
        assert_eq!(response.status(), 400, "{fields:?}");
        let seen = std::mem::take(&mut *seen.lock());
        assert!(!seen.contains("\r\n0\r\n") && !seen.ends_with("body"), "{seen:?}");
    }
}

#[tokio::test]
async fn a_workers_request_has_one_framing_too() {
    let seen = Arc::new(Mutex::new(String::new()));
    let upstream = Server::recording(&seen).await;
    let mut route = to_worker("www.example.org/*", "w");
    route.upstream = to_upstream("www.example.org/*", &upstream).upstream;
    let world = World::with_worker(vec![route], |invocation| async move {
        let fields =
            &[("transfer-encoding", "chunked"), ("content-length", "9"), ("connection", "content-length"), ("host", "other.example")];
        let mut asked = request(fields, stream("body"));
        *asked.uri_mut() = "http://www.example.org/behind".parse().expect("an address");
        let fetched = invocation.host.fetch(Subrequest { request: asked, redirect: Redirect::Manual, cache: None, redirects_max: 0 }).await;
        Ok(fetched.map_err(|error| error.message).expect("an answer").response)
    });
    assert_eq!(world.get("/").await.status(), 200);
    let seen = seen.lock().to_lowercase();
    assert!(seen.contains("\r\ntransfer-encoding: chunked\r\n") && !seen.contains("content-length:"), "{seen:?}");
    assert!(seen.contains("\r\nhost: www.example.org\r\n") && !seen.contains("other.example"), "{seen:?}");
}
