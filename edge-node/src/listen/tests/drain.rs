//! A drain: nothing new, GOAWAY, what runs ends, and what does not end is cancelled.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::h2::{connect, get};
use super::server::{PATIENCE, Server, all, soon};
use crate::limits::Limits;
use crate::listen::quic::client::Client;

#[tokio::test]
async fn h2_gets_goaway_and_its_running_requests_end() {
    let server = Server::start();
    let (mut client, connection) = connect(&server).await;
    let running = client.send_request(get(&server, "/wait"));
    soon(server.site.waiting.notified()).await;
    let tasks = server.tasks.clone();
    let drained = tokio::spawn(async move { tasks.drain(PATIENCE).await });
    // GOAWAY: no further request on this connection.
    soon(async { while client.send_request(get(&server, "/hello")).await.is_ok() {} }).await;
    server.site.go.open();
    let response = soon(running).await.unwrap();
    assert_eq!(soon(all(response.into_body())).await.unwrap(), b"waited");
    soon(connection).await.unwrap().unwrap();
    assert!(soon(drained).await.unwrap(), "everything ended by itself");
    assert!(TcpStream::connect(server.https).await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn h3_gets_goaway_and_its_running_requests_end() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let quic = client.quic.clone();
    let tasks = server.tasks.clone();
    let running = client.get("/wait");
    tokio::pin!(running);
    tokio::select! {
        _ = &mut running => panic!("it must wait"),
        () = soon(server.site.waiting.notified()) => {}
    }
    let drained = tokio::spawn(async move { tasks.drain(PATIENCE).await });
    tokio::select! {
        _ = &mut running => panic!("it must wait"),
        () = server.tasks.draining().cancelled() => {}
    }
    server.site.go.open();
    assert_eq!(soon(&mut running).await.unwrap().body, b"waited");
    let closed = soon(quic.closed()).await;
    assert!(matches!(&closed, quinn::ConnectionError::ApplicationClosed(close) if close.error_code.into_inner() == 0x100), "{closed}");
    assert!(soon(drained).await.unwrap(), "everything ended by itself");
}

/// Numbers of one byte are all that these frames have (RFC 9000, section 16).
fn frames(mut control: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [kind, length, rest @ ..] = control {
        // A reserved type, which is longer than a byte, comes after what is looked for, or not at all.
        let Some((payload, next)) = rest.split_at_checked(usize::from(*length)) else { break };
        frames.push((*kind, payload.to_vec()));
        control = next;
    }
    frames
}

#[tokio::test]
async fn a_client_of_h3_without_requests_gets_goaway_before_the_end() {
    let server = Server::start();
    let client = Client::without_h3(server.https, server.client_tls(&[b"h3"])).await;
    // The control stream is the one of type 0 (RFC 9114, section 6.2.1).
    let mut control = soon(async {
        loop {
            let mut stream = client.accept_uni().await.unwrap();
            let mut kind = [0xff];
            stream.read_exact(&mut kind).await.unwrap();
            if kind == [0] {
                return stream;
            }
        }
    })
    .await;
    let (settings, draining) = (Arc::new(Notify::new()), server.tasks.clone());
    let seen = settings.clone();
    let reading = tokio::spawn(async move {
        let mut bytes = Vec::new();
        while let Ok(Some(chunk)) = control.read_chunk(1 << 10, true).await {
            bytes.extend_from_slice(&chunk.bytes);
            seen.notify_one();
        }
        bytes
    });
    soon(settings.notified()).await;
    let drained = tokio::spawn(async move { draining.drain(PATIENCE).await });
    let closed = soon(client.closed()).await;
    assert!(matches!(&closed, quinn::ConnectionError::ApplicationClosed(close) if close.error_code.into_inner() == 0x100), "{closed}");
    let control = frames(&soon(reading).await.unwrap());
    assert!(control.iter().any(|(kind, _)| *kind == 0x04), "SETTINGS: {control:?}");
    assert!(control.iter().any(|(kind, payload)| *kind == 0x07 && payload.len() == 1), "GOAWAY: {control:?}");
    assert!(soon(drained).await.unwrap(), "everything ended by itself");
}

#[tokio::test]
async fn h3_answers_what_it_accepted_before_the_drain() {
    let server = Server::start();
    let client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let before = server.tasks.running();
    let (mut sending, mut receiving) = soon(client.quic.open_bi()).await.unwrap();
    // HEADERS of 23 bytes: GET, https, localhost, /hello; by RFC 9204's static table, without Huffman's code.
    let head = b"\x01\x17\x00\x00\xd1\xd7\x50\x09localhost\x51\x06/hello";
    let (first, rest) = head.split_at(7);
    sending.write_all(first).await.unwrap();
    soon(async {
        while server.tasks.running() == before {
            tokio::task::yield_now().await
        }
    })
    .await;
    let tasks = server.tasks.clone();
    let drained = tokio::spawn(async move { tasks.drain(PATIENCE).await });
    soon(server.tasks.draining().cancelled()).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    sending.write_all(rest).await.unwrap();
    sending.finish().unwrap();
    let answer = soon(receiving.read_to_end(1 << 10)).await.unwrap();
    assert!(answer.windows(5).any(|part| part == b"hello"), "{answer:?}");
    assert!(soon(drained).await.unwrap(), "everything ended by itself");
}

#[tokio::test]
async fn handshakes_do_not_hold_a_drain() {
    let server = Server::with(Limits { handshake_timeout_ms: 60_000, ..Limits::default() }, Vec::new());
    let _silent = TcpStream::connect(server.https).await.unwrap();
    let _silent_after_tls = server.connect_tls("localhost", &[b"h2"]).await.unwrap();
    assert!(soon(server.tasks.drain(PATIENCE / 2)).await, "everything ended by itself");
}

#[tokio::test]
async fn h1_ends_its_request_and_closes() {
    let server = Server::start();
    let mut idle = TcpStream::connect(server.http).await.unwrap();
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    soon(server.site.waiting.notified()).await;
    let tasks = server.tasks.clone();
    let drained = tokio::spawn(async move { tasks.drain(PATIENCE).await });
    let mut nothing = Vec::new();
    soon(idle.read_to_end(&mut nothing)).await.unwrap();
    assert!(nothing.is_empty());
    server.site.go.open();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("waited"), "{answer}");
    drop((idle, stream));
    assert!(soon(drained).await.unwrap(), "everything ended by itself");
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cancelled() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    soon(server.site.waiting.notified()).await;
    tokio::select! {
        _ = client.get("/wait") => panic!("it must wait"),
        () = soon(server.site.waiting.notified()) => {}
    }
    assert!(!soon(server.tasks.drain(Duration::from_millis(50))).await, "something had to be cancelled");
    assert_eq!(server.tasks.running(), 0);
    assert_eq!(server.site.held.load(Relaxed), 0);
}
