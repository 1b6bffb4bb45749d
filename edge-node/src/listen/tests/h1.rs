//! HTTP/1.1, byte by byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::{Server, soon};
use crate::limits::{self, Limits};

/// Sends bytes, and reads until the server closes.
async fn exchange(server: &Server, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(request).await.unwrap();
    read_all(&mut stream).await
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is as good as a close.
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

/// Reads until what was read ends with `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let mut byte = [0];
        soon(stream.read_exact(&mut byte)).await.unwrap();
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn requests_are_answered_one_after_the_other() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        let answer = read_until(&mut stream, "hello").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("content-length: 5\r\n"), "{answer}");
        assert!(answer.contains("date: ") && !answer.contains("server: ") && !answer.contains("alt-svc"), "{answer}");
    }
}

#[tokio::test]
async fn uri_is_absolute_with_the_clients_authority() {
    let server = Server::start();
    let answer = exchange(&server, b"GET /uri?q HTTP/1.1\r\nHost: a.example:81\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with("http://a.example:81/uri?q HTTP/1.1"), "{answer}");
    let answer = exchange(&server, b"GET http://A.example/uri HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with("http://A.example/uri HTTP/1.1"), "{answer}");
    let answer = exchange(&server, b"GET /uri HTTP/1.0\r\n\r\n").await;
    assert!(answer.ends_with(&format!("http://{}/uri HTTP/1.1", server.http)), "{answer}");
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await.unwrap();
    let first = read_until(&mut stream, "3\r\none\r\n").await;
    assert!(first.contains("transfer-encoding: chunked\r\n"), "{first}");
    stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut stream, "3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(server.metrics.received_bytes.get(), 6);
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let server = Server::start();
    let answer = exchange(&server, b"HEAD /hello HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_body_that_fails_is_cut_short_visibly() {
    let server = Server::start();
    let answer = exchange(&server, b"GET /cut HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert!(answer.ends_with("4\r\nhalf\r\n"), "no last chunk: {answer}");
}

#[tokio::test]
async fn malformed_requests_end_in_400_or_a_closed_connection() {
    let server = Server::start();
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a.example\r\n\r\n", "a".repeat(limits::TARGET_BYTES_MAX));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{}\r\n", "X: y\r\n".repeat(limits::FIELDS_MAX + 10));
    let long_field = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {}\r\n\r\n", "a".repeat(limits::HEAD_BYTES_MAX));
    let huge = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {}", "a".repeat(limits::H1_HEAD_BYTES_MAX * 2));
    for request in [
        "GET /hello HTTP/1.1\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
        "GET http://a.example/hello HTTP/1.1\r\nHost: b.example\r\n\r\n",
        "GET https://a.example/hello HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET http://u@a.example/hello HTTP/1.1\r\nHost: u@a.example\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: u@a.example\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: \r\n\r\n",
        "GET hello HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
        "POST /echo HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: -1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a.example\r\n folded: x\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost : a.example\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a.example\r\nX\0: y\r\n\r\n",
        "GET /hello HTTP/1.1\nHost: a.example\n\n",
        "GET /hello HTTP/1.1\r\nHost: a.example\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /hello HTTP/3.1\r\nHost: a.example\r\n\r\n",
        "GET /hel\u{7f}lo HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "\u{16}\u{3}\u{1}\0\u{2}hello\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &long_target,
        &many_fields,
        &long_field,
        &huge,
    ] {
        let answer = exchange(&server, request.as_bytes()).await;
        let shown: String = request.chars().take(80).collect();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4"), "{shown:?}: {answer}");
    }
    let answer = exchange(&server, b"GET /hello HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "the server goes on: {answer}");
}

#[tokio::test]
async fn a_malformed_chunk_ends_the_connection() {
    let server = Server::start();
    let answer =
        exchange(&server, b"POST /count HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\nGET /hello").await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn an_early_answer_survives_an_upload_that_nobody_reads() {
    let server = Server::start();
    let mut request = b"POST /refuse HTTP/1.1\r\nHost: a.example\r\nContent-Length: 200000\r\n\r\n".to_vec();
    request.extend_from_slice(&[b'x'; 100_000]);
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let answer = read_until(&mut stream, "too large").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(read_all(&mut stream).await.is_empty(), "closed, since the rest of the body may be taken for a request");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    soon(server.site.waiting.notified()).await;
    drop(stream);
    soon(server.site.cancelled.notified()).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_response() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    read_until(&mut stream, "....").await;
    drop(stream);
    soon(server.site.cancelled.notified()).await;
}

#[tokio::test]
async fn a_slow_head_ends_the_connection() {
    let server = Server::with(Limits { head_timeout_ms: 200, ..Limits::default() }, Vec::new());
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost:").await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.contains("x-refusal: slow_head\r\n") && answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn connections_of_one_address_are_bounded() {
    let server = Server::with(Limits { connections_per_address_max: 2, ..Limits::default() }, Vec::new());
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.http).await.unwrap();
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        read_until(&mut stream, "hello").await;
        held.push(stream);
    }
    assert!(exchange(&server, b"GET /hello HTTP/1.1\r\nHost: a.example\r\n\r\n").await.is_empty());
    held.clear();
    // The server learns of the closed ones in its own time.
    soon(async {
        while !exchange(&server, b"GET /hello HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await.ends_with("hello") {}
    })
    .await;
}
