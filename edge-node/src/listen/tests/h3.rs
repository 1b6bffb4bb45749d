//! HTTP/3, with quinn's and h3's client.

use super::server::{Server, pieces, soon};
use crate::limits::{self, Limits};
use crate::listen::quic::client::Client;
use std::sync::atomic::Ordering::Relaxed;

#[tokio::test]
async fn requests_are_answered() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let answer = soon(client.get("/uri")).await.unwrap();
    assert_eq!(answer.head.status(), 200);
    assert!(answer.head.headers().contains_key("date") && !answer.head.headers().contains_key("alt-svc"));
    assert_eq!(String::from_utf8(answer.body).unwrap(), "https://localhost/uri HTTP/3");
    let answer = soon(client.get("/big")).await.unwrap();
    assert_eq!(answer.body.len(), 1 << 20);
}

#[tokio::test]
async fn interim_responses_come_before_the_final_one() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let answer = soon(client.get("/hints")).await.unwrap();
    let links: Vec<_> = answer.interim.iter().map(|head| (head.status().as_u16(), head.headers()["link"].to_str().unwrap())).collect();
    assert_eq!(links, [(103, "</first>"), (103, "</second>")]);
    assert_eq!((answer.head.status().as_u16(), answer.body.as_slice()), (200, &b"hinted"[..]));
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let answer = soon(client.send("POST", "/echo", &[], pieces(64, 32 << 10))).await.unwrap();
    assert_eq!(answer.body.len(), 2 << 20);
    let answer = soon(client.send("POST", "/count", &[], pieces(3, 5))).await.unwrap();
    assert_eq!(answer.body, b"15");
}

#[tokio::test]
async fn empty_pieces_do_not_end_a_body() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let pieces = futures::stream::iter(["one", "", "two", ""].map(|piece| Ok(http_body::Frame::data(bytes::Bytes::from(piece)))));
    let answer = soon(client.send("POST", "/count", &[], http_body_util::StreamBody::new(pieces))).await.unwrap();
    assert_eq!(answer.body, b"6");
}

#[tokio::test]
async fn a_get_whose_end_comes_in_a_later_packet_has_no_body() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let late_end = Box::pin(futures::stream::poll_fn({
        let mut delay = Box::pin(tokio::time::sleep(std::time::Duration::from_millis(20)));
        move |cx| std::future::Future::poll(delay.as_mut(), cx).map(|()| None)
    }));
    let answer = soon(client.send("GET", "/whole", &[], http_body_util::StreamBody::new(late_end))).await.unwrap();
    assert_eq!(answer.body, b"Some(b\"\")");
    // One with a body keeps it.
    assert_eq!(soon(client.send("GET", "/count", &[], pieces(2, 3))).await.unwrap().body, b"6");
}

#[tokio::test]
async fn head_has_no_body() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let answer = soon(client.send("HEAD", "/hello", &[], pieces(0, 0))).await.unwrap();
    assert_eq!(answer.head.headers()["content-length"], "5");
    assert!(answer.body.is_empty());
}

#[tokio::test]
async fn a_body_that_fails_resets_its_stream_only() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    assert!(soon(client.get("/cut")).await.is_err());
    assert_eq!(soon(client.get("/hello")).await.unwrap().body, b"hello");
}

#[tokio::test]
async fn a_response_whose_task_panics_does_not_look_whole() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    assert!(soon(client.get("/panic")).await.is_err());
    assert_eq!(soon(client.get("/hello")).await.unwrap().body, b"hello");
}

#[tokio::test]
async fn a_body_of_another_length_than_it_says_is_an_error() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    for said in ["4", "6"] {
        let answer = soon(client.send("POST", "/count", &[("content-length", said)], pieces(1, 5))).await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.head.status() == 502), "{said}");
    }
}

#[tokio::test]
async fn connection_fields_are_refused() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let answer = soon(client.send("GET", "/hello", &[("connection", "close")], pieces(0, 0))).await.unwrap();
    assert_eq!(answer.head.headers()["x-refusal"], "connection_fields");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let large = "x".repeat(limits::HEAD_BYTES_MAX * 2);
    let answer = soon(client.send("GET", "/hello", &[("cookie", &large)], pieces(0, 0))).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.head.status() == 431));
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    assert_eq!(soon(client.get("/hello")).await.unwrap().body, b"hello");
}

#[tokio::test]
async fn a_request_that_is_given_up_is_cancelled() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    tokio::select! {
        _ = client.get("/wait") => panic!("it must wait"),
        () = soon(server.site.waiting.notified()) => {}
    }
    soon(server.site.cancelled.notified()).await;
    assert_eq!(soon(client.get("/hello")).await.unwrap().body, b"hello");
    tokio::select! {
        _ = client.get("/endless") => panic!("it must not end"),
        () = soon(async { while server.site.pieces.load(Relaxed) < 16 { tokio::task::yield_now().await } }) => {}
    }
    soon(server.site.cancelled.notified()).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_requests() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let quic = client.quic.clone();
    tokio::select! {
        _ = client.get("/wait") => panic!("it must wait"),
        () = soon(server.site.waiting.notified()) => quic.close(0u32.into(), b""),
    }
    soon(server.site.cancelled.notified()).await;
}

#[tokio::test]
async fn a_frame_without_end_is_not_buffered() {
    let server = Server::start();
    // Frame type 0x21 is reserved (RFC 9114, section 7.2.8), type 0x01 is HEADERS; each says 2^30 bytes.
    for kind in [0x21, 0x01] {
        let client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
        let (mut stream, _) = soon(client.quic.open_bi()).await.unwrap();
        let mut frame = vec![kind];
        frame.extend_from_slice(&(0x8000_0000_u32 | (1 << 29)).to_be_bytes());
        let mut sent = 0;
        let closed = soon(async {
            if stream.write_all(&frame).await.is_err() {
                return true;
            }
            while sent < limits::H3_BUFFERED_BYTES_MAX * 8 {
                if stream.write_all(&[0; 4096]).await.is_err() {
                    return true;
                }
                sent += 4096;
            }
            false
        })
        .await;
        assert!(closed, "the server took {sent} bytes of one frame");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Server::with(Limits { idle_timeout_ms: 200, ..Limits::default() }, Vec::new());
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    soon(client.get("/hello")).await.unwrap();
    // However often the client is pinged.
    soon(client.quic.closed()).await;
}

#[tokio::test]
async fn a_connection_with_a_silent_request_is_not_idle() {
    let server = Server::with(Limits { idle_timeout_ms: 1_000, ..Limits::default() }, Vec::new());
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let quic = client.quic.clone();
    let waiting = client.get("/wait");
    tokio::pin!(waiting);
    tokio::select! {
        _ = &mut waiting => panic!("it must wait"),
        closed = quic.closed() => panic!("it must stay open: {closed}"),
        () = tokio::time::sleep(std::time::Duration::from_millis(2_500)) => {}
    }
    server.site.go.open();
    assert_eq!(soon(waiting).await.unwrap().body, b"waited");
}

#[tokio::test]
async fn keys_are_kept_over_restarts() {
    let server = Server::start();
    let file = server.data.path().join("quic.keys");
    let keys = std::fs::read(&file).unwrap();
    assert_eq!(keys.len(), 128);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Asks for `path` and gives up as soon as that has begun, until the connection ends or `most` have been given up. Gives how many were, and the code with
/// which the server closed it.
async fn give_up(server: &Server, path: &str, most: u64) -> (u64, u64) {
    let client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    // HEADERS: GET, https, localhost and the path; by RFC 9204's static table, without Huffman's code.
    let mut head = b"\x00\x00\xd1\xd7\x50\x09localhost\x51".to_vec();
    head.push(u8::try_from(path.len()).unwrap());
    head.extend_from_slice(path.as_bytes());
    head.splice(0..0, [1, u8::try_from(head.len()).unwrap()]);
    for given_up in 0..most {
        let begun = async {
            let (mut sending, receiving) = soon(client.quic.open_bi()).await?;
            let _ = sending.write_all(&head).await;
            // Without its end a request waits for a body.
            let _ = sending.finish();
            soon(server.site.waiting.notified()).await;
            Ok::<_, quinn::ConnectionError>(receiving)
        };
        let closed = tokio::select! {
            biased;
            closed = client.quic.closed() => closed,
            begun = begun => match begun {
                Ok(mut receiving) => {
                    // H3_REQUEST_CANCELLED.
                    let _ = receiving.stop(0x10c_u32.into());
                    continue;
                }
                Err(closed) => closed,
            },
        };
        let quinn::ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
        return (given_up, close.error_code.into_inner());
    }
    panic!("{most} requests were given up, and the connection goes on");
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let server = Server::start();
    let (given_up, code) = give_up(&server, "/wait", limits::RESETS_MAX * 2).await;
    assert_eq!(code, 0x107, "H3_EXCESSIVE_LOAD");
    assert!(given_up > limits::RESETS_MAX, "{given_up}");
    server.holds_none().await;
}

#[tokio::test]
async fn requests_that_run_on_after_they_were_given_up_end_the_connection() {
    let server = Server::start();
    let (given_up, code) = give_up(&server, "/stay", limits::RESETS_MAX).await;
    assert_eq!(code, 0x107, "H3_EXCESSIVE_LOAD");
    let bound = limits::GIVEN_UP_RUNNING_MAX as u64;
    assert!(given_up > bound && given_up < bound * 2, "{given_up}");
}
