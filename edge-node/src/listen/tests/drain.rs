//! A drain: nothing new, GOAWAY, what runs ends, and what does not end is cancelled.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::h2::{connect, get};
use super::server::{PATIENCE, Server, all, soon};
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
