//! HTTP/1.1, byte by byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::{Server, soon};
use crate::limits::{self, Limits};
use crate::metrics::Readings;

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
async fn connections_are_counted() {
    let server = Server::start();
    let counted = |line: &str| server.metrics.render(&Readings::default()).lines().any(|counted| counted == line);
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    read_until(&mut stream, "hello").await;
    assert!(counted("selvedge_connections_total{protocol=\"HTTP/1.1\"} 1"));
    assert!(counted("selvedge_connections_open{protocol=\"HTTP/1.1\"} 1"));
    drop(stream);
    soon(async {
        while !counted("selvedge_connections_open{protocol=\"HTTP/1.1\"} 0") {
            tokio::task::yield_now().await
        }
    })
    .await;
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
    let answer = exchange(&server, b"GET /uri HTTP/1.0\r\nHost: a.example\r\n\r\n").await;
    assert!(answer.ends_with("http://a.example/uri HTTP/1.1"), "{answer}");
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

const HOST: &str = "Host: a.example\r\n";

#[tokio::test]
async fn requests_that_come_together_are_answered_in_order() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\n{HOST}\r\n");
    let post = format!("POST /echo HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nfirst");
    let chunked = format!("POST /count HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\nX: y\r\n\r\n");
    let all = [post, get("/hello"), get("/wait"), chunked, get("/hello")].concat();
    stream.write_all(all.as_bytes()).await.unwrap();
    soon(server.site.waiting.notified()).await;
    // What is ready is sent before anything is waited for.
    let ready = read_until(&mut stream, "hello").await;
    assert!(ready.contains("\r\n\r\nfirstHTTP/1.1 200 OK\r\n"), "{ready}");
    server.site.go.open();
    let rest = read_until(&mut stream, "hello").await;
    let bodies: Vec<_> = rest.split("HTTP/1.1 200 OK").filter_map(|answer| answer.split("\r\n\r\n").nth(1)).collect();
    assert_eq!(bodies, ["waited", "4", "hello"]);
}

#[tokio::test]
async fn many_requests_at_once_are_bounded_by_what_the_client_reads() {
    let server = Server::start();
    let (mut reading, mut writing) = TcpStream::connect(server.http).await.unwrap().into_split();
    let asking = async {
        for _ in 0..20 {
            writing.write_all(format!("GET /big HTTP/1.1\r\n{HOST}\r\n").repeat(5).as_bytes()).await.unwrap();
        }
        writing.write_all(format!("GET /hello HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
    };
    let mut answer = Vec::new();
    let ((), read) = soon(async { tokio::join!(asking, reading.read_to_end(&mut answer)) }).await;
    read.unwrap();
    assert!(answer.len() > 100 << 20 && answer.ends_with(b"hello"), "{}", answer.len());
}

#[tokio::test]
async fn the_version_decides_whether_the_connection_goes_on() {
    let server = Server::start();
    let answer = exchange(&server, format!("GET /hello HTTP/1.0\r\n{HOST}\r\n").as_bytes()).await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("hello"), "{answer}");
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    for _ in 0..2 {
        stream.write_all(format!("GET /hello HTTP/1.0\r\n{HOST}Connection: keep-alive\r\n\r\n").as_bytes()).await.unwrap();
        assert!(read_until(&mut stream, "hello").await.contains("connection: keep-alive\r\n"));
    }
    // A body of unknown length ends with the connection, and one that fails with a reset.
    let endless = format!("GET /endless HTTP/1.0\r\n{HOST}\r\n");
    let echoed = exchange(&server, endless.as_bytes());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), echoed).await.is_err());
    stream.write_all(format!("GET /cut HTTP/1.0\r\n{HOST}Connection: keep-alive\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    assert!(soon(stream.read_to_end(&mut answer)).await.is_err(), "a reset");
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nhalf") && !answer.contains("chunked") && answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_is_told_to_send_when_its_body_is_wanted() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    let ask = |path: &str| format!("POST {path} HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    stream.write_all(ask("/count").as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"12345").await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n5").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // Nobody wants this one: what comes next may be the body, or a request.
    stream.write_all(ask("/refuse").as_bytes()).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn nobody_is_told_to_send_once_the_answer_has_begun() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(format!("POST /late HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n").as_bytes()).await.unwrap();
    read_until(&mut stream, "early").await;
    stream.write_all(b"12345").await.unwrap();
    soon(server.site.cancelled.notified()).await;
    stream.write_all(format!("GET /hello HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn interim_responses_come_before_the_final_one() {
    let server = Server::start();
    let answer = exchange(&server, format!("GET /hints HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n").as_bytes()).await;
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </first>\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </second>\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(answer.starts_with(hints) && answer.ends_with("hinted"), "{answer}");
    let answer = exchange(&server, format!("GET /hints HTTP/1.0\r\n{HOST}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "HTTP/1.0 knows none: {answer}");
}

#[tokio::test]
async fn a_response_is_as_long_as_it_says_or_cut() {
    let server = Server::start();
    for (path, end) in [("/longer", "\r\n\r\nlon"), ("/shorter", "\r\n\r\nshorter")] {
        // A second request must not be answered: what comes would be taken for the rest.
        let answer = exchange(&server, format!("GET {path} HTTP/1.1\r\n{HOST}\r\n").repeat(2).as_bytes()).await;
        assert!(answer.ends_with(end) && answer.matches("HTTP/1.1").count() == 1, "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_read_on_or_ends_the_connection() {
    let server = Server::start();
    let post = |length: usize, body: &str| format!("POST /hello HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n{body}");
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    for head in [post(100_000, ""), format!("POST /hello HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n186a0\r\n")] {
        stream.write_all(head.as_bytes()).await.unwrap();
        read_until(&mut stream, "hello").await;
        stream.write_all(&[b'G'; 100_000]).await.unwrap();
        if head.contains("chunked") {
            stream.write_all(b"\r\n0\r\n\r\n").await.unwrap();
        }
    }
    stream.write_all(format!("GET /uri HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await.unwrap();
    read_until(&mut stream, "http://a.example/uri HTTP/1.1").await;
    // One that says that it is too long ends the connection, and the answer says so; what looks like a request in it is none.
    let smuggled = format!("GET /uri HTTP/1.1\r\n{HOST}\r\n");
    let answer = exchange(&server, post(limits::UNREAD_BODY_BYTES_MAX as usize + 9999, &smuggled).as_bytes()).await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("hello"), "{answer}");
    // So does one whose chunks are none, after the answer.
    let bad = format!("POST /hello HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\nx\r\n{smuggled}");
    let answer = exchange(&server, bad.as_bytes()).await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn whoever_answered_may_read_the_rest_of_the_body() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(format!("POST /late HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    read_until(&mut stream, "early").await;
    for pieces in 1..=3 {
        stream.write_all(b"1\r\nx\r\n").await.unwrap();
        soon(async {
            while server.site.pieces.load(std::sync::atomic::Ordering::Relaxed) < pieces {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    stream.write_all(format!("0\r\n\r\nGET /hello HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await.unwrap();
    soon(server.site.cancelled.notified()).await;
    read_until(&mut stream, "hello").await;
}

#[tokio::test]
async fn a_client_that_closes_its_half_cancels_what_is_not_ready() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(format!("GET /hello HTTP/1.1\r\n{HOST}\r\nGET /wait HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await.unwrap();
    soon(server.site.waiting.notified()).await;
    stream.shutdown().await.unwrap();
    soon(server.site.cancelled.notified()).await;
    assert!(read_all(&mut stream).await.ends_with("hello"));
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Server::with(Limits { idle_timeout_ms: 200, ..Limits::default() }, Vec::new());
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(format!("GET /hello HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("hello"));
    assert!(exchange(&server, b"").await.is_empty());
}

#[tokio::test]
async fn large_uploads_reach_whoever_answers_and_come_back() {
    let server = Server::start();
    let (mut reading, mut writing) = TcpStream::connect(server.http).await.unwrap().into_split();
    let body: Vec<u8> = (0..5_000_000_u32).map(|n| n as u8).collect();
    let sending = async {
        let head = format!("POST /echo HTTP/1.1\r\n{HOST}Connection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        writing.write_all(head.as_bytes()).await.unwrap();
        writing.write_all(&body).await.unwrap();
        writing
    };
    let mut answer = Vec::new();
    let (_writing, read) = soon(async { tokio::join!(sending, reading.read_to_end(&mut answer)) }).await;
    read.unwrap();
    assert!(answer.ends_with(&body));
}

#[tokio::test]
async fn tls_carries_the_same() {
    let server = Server::start();
    let mut stream = server.connect_tls("localhost", &[b"http/1.1"]).await.unwrap();
    for (path, bytes) in [("/hello", 5), ("/big", 1 << 20)] {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(stream.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.contains(&format!("content-length: {bytes}\r\n")) && head.contains("alt-svc: h3="), "{head}");
        let mut body = vec![0; bytes];
        soon(stream.read_exact(&mut body)).await.unwrap();
    }
}
