//! HTTP/2 over TLS, with hyper's client.

use bytes::Bytes;
use http::Request;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_runtime::BodyError;

use super::server::{Server, all, pieces, soon};
use crate::limits::{GIVEN_UP_RUNNING_MAX, RESETS_MAX};

pub(super) type Sent = BoxBody<Bytes, BodyError>;

pub(super) fn nothing() -> Sent {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// Gives the client and a task that ends with its connection.
pub(super) async fn connect(server: &Server) -> (SendRequest<Sent>, tokio::task::JoinHandle<hyper::Result<()>>) {
    let stream = server.connect_tls("localhost", &[b"h2"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (client, tokio::spawn(connection))
}

pub(super) fn get(server: &Server, path: &str) -> Request<Sent> {
    Request::get(format!("https://localhost:{}{path}", server.https.port())).body(nothing()).unwrap()
}

#[tokio::test]
async fn requests_are_answered_and_h3_is_announced() {
    let server = Server::start();
    let (mut client, _connection) = connect(&server).await;
    let response = soon(client.send_request(get(&server, "/uri"))).await.unwrap();
    assert_eq!(response.headers()["alt-svc"], format!("h3=\":{}\"; ma=86400", server.https.port()));
    assert!(response.headers().contains_key("date"));
    let body = all(response.into_body()).await.unwrap();
    assert_eq!(String::from_utf8(body).unwrap(), format!("https://localhost:{}/uri HTTP/2", server.https.port()));
}

#[tokio::test]
async fn a_body_with_trailers_is_as_long_as_it_says_too() {
    let server = Server::start();
    let (mut client, _connection) = connect(&server).await;
    let error = match soon(client.send_request(get(&server, "/trailers"))).await {
        Ok(response) => soon(all(response.into_body())).await.unwrap_err(),
        Err(reset_at_once) => reset_at_once,
    };
    // A client's own check would name another error.
    assert!(format!("{error:?}").contains("INTERNAL_ERROR"), "{error:?}");
}

#[tokio::test]
async fn interim_responses_come_before_the_final_one() {
    let server = Server::start();
    let stream = server.connect_tls("localhost", &[b"h2"]).await.unwrap();
    let (client, connection) = ::h2::client::handshake(stream).await.unwrap();
    let _connection = tokio::spawn(connection);
    let mut client = soon(client.ready()).await.unwrap();
    let request = Request::get("https://localhost/hints").body(()).unwrap();
    let (mut answer, _) = client.send_request(request, true).unwrap();
    let mut links = Vec::new();
    for _ in 0..2 {
        let head = soon(std::future::poll_fn(|cx| answer.poll_informational(cx))).await.unwrap().unwrap();
        links.push((head.status().as_u16(), head.headers()["link"].to_str().unwrap().to_owned()));
    }
    assert_eq!(links, [(103, "</first>".to_owned()), (103, "</second>".to_owned())]);
    assert_eq!(soon(answer).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_response_is_as_long_as_it_says_or_reset() {
    let server = Server::start();
    let (mut client, _connection) = connect(&server).await;
    for path in ["/longer", "/shorter"] {
        if let Ok(response) = soon(client.send_request(get(&server, path))).await {
            assert!(soon(all(response.into_body())).await.is_err(), "{path}");
        }
    }
    let response = soon(client.send_request(get(&server, "/big"))).await.unwrap();
    assert_eq!(soon(all(response.into_body())).await.unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let server = Server::start();
    let (mut client, _connection) = connect(&server).await;
    let request = Request::post("https://localhost/echo").body(pieces(64, 32 << 10).boxed()).unwrap();
    let response = soon(client.send_request(request)).await.unwrap();
    let body = soon(all(response.into_body())).await.unwrap();
    assert_eq!(body.len(), 2 << 20);
    assert_eq!(server.metrics.received_bytes.get(), 2 << 20);
}

#[tokio::test]
async fn head_has_no_body() {
    let server = Server::start();
    let (mut client, _connection) = connect(&server).await;
    let request = Request::head("https://localhost/hello").body(nothing()).unwrap();
    let response = soon(client.send_request(request)).await.unwrap();
    assert_eq!(response.headers()["content-length"], "5");
    assert!(all(response.into_body()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_body_that_fails_resets_its_stream_only() {
    let server = Server::start();
    let (mut client, _connection) = connect(&server).await;
    // The reset may overtake the head.
    if let Ok(response) = soon(client.send_request(get(&server, "/cut"))).await {
        assert!(soon(all(response.into_body())).await.is_err());
    }
    let response = soon(client.send_request(get(&server, "/hello"))).await.unwrap();
    assert_eq!(all(response.into_body()).await.unwrap(), b"hello");
}

#[tokio::test]
async fn a_dropped_request_is_cancelled() {
    let server = Server::start();
    let (mut client, _connection) = connect(&server).await;
    let waiting = client.send_request(get(&server, "/wait"));
    tokio::select! {
        _ = waiting => panic!("it must wait"),
        () = soon(server.site.waiting.notified()) => {}
    }
    soon(server.site.cancelled.notified()).await;
    let response = soon(client.send_request(get(&server, "/endless"))).await.unwrap();
    drop(response);
    soon(server.site.cancelled.notified()).await;
}

#[tokio::test]
async fn another_authority_in_the_host_field_is_refused() {
    let server = Server::start();
    let (mut client, _connection) = connect(&server).await;
    let request = Request::get("https://localhost/hello").header("host", "other.example").body(nothing()).unwrap();
    let response = soon(client.send_request(request)).await.unwrap();
    assert_eq!(response.headers()["x-refusal"], "host_mismatch");
}

/// Asks for `path` and gives up as soon as that has begun, until the connection ends or `most` have been given up. Gives how many were, and how it ended.
async fn give_up(server: &Server, path: &str, most: u64) -> (u64, ::h2::Error) {
    let stream = server.connect_tls("localhost", &[b"h2"]).await.unwrap();
    let (client, connection) = ::h2::client::handshake(stream).await.unwrap();
    let mut connection = tokio::spawn(connection);
    let mut client = soon(client.ready()).await.unwrap();
    for given_up in 0..most {
        let request = Request::get(format!("https://localhost{path}")).body(()).unwrap();
        let Ok((_, mut stream)) = client.send_request(request, true) else {
            return (given_up, soon(connection).await.unwrap().unwrap_err());
        };
        tokio::select! {
            () = soon(server.site.waiting.notified()) => {}
            ended = &mut connection => return (given_up, ended.unwrap().unwrap_err()),
        }
        stream.send_reset(::h2::Reason::CANCEL);
        match soon(client.ready()).await {
            Ok(ready) => client = ready,
            Err(_) => return (given_up + 1, soon(connection).await.unwrap().unwrap_err()),
        }
    }
    panic!("{most} requests were given up, and the connection goes on");
}

fn is_told_to_calm_down(error: &::h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(::h2::Reason::ENHANCE_YOUR_CALM)
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let server = Server::start();
    let (given_up, ended) = give_up(&server, "/wait", RESETS_MAX * 2).await;
    assert!(is_told_to_calm_down(&ended), "{ended:?}");
    assert!(given_up > RESETS_MAX, "{given_up}");
    // None of them is left.
    server.holds_none().await;
}

#[tokio::test]
async fn requests_that_run_on_after_they_were_given_up_end_the_connection() {
    let server = Server::start();
    let (given_up, ended) = give_up(&server, "/stay", RESETS_MAX).await;
    assert!(is_told_to_calm_down(&ended), "{ended:?}");
    let bound = GIVEN_UP_RUNNING_MAX as u64;
    assert!(given_up > bound && given_up < bound * 2, "{given_up}");
}
