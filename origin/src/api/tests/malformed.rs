//! What is malformed ends in a clear 4xx or a closed connection, and the registry goes on.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends bytes, then the end of the stream; gives what came back (nothing: closed).
async fn pour(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    exchange_and(address, bytes, true).await
}

/// Sends a request; gives what came back until the registry closed the connection.
pub(super) async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    String::from_utf8_lossy(&exchange_and(address, bytes, false).await).into_owned()
}

/// An answer of HTTP/1.1 with a status of the client's fault, or nothing at all; over HTTP/2 a goodbye that says what was wrong.
fn is_clear(asked: &[u8], answer: &[u8]) -> bool {
    if answer.is_empty() || answer.starts_with(b"HTTP/1.1 4") {
        return true;
    }
    asked.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") && last_goodbye(answer).is_some_and(|code| code != 0)
}

/// The code of the GOAWAY that frames of HTTP/2 end in (RFC 9113, section 6.8).
fn last_goodbye(mut frames: &[u8]) -> Option<u32> {
    let mut code = None;
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = frames {
        let (payload, next) = rest.split_at_checked(u32::from_be_bytes([0, *a, *b, *c]) as usize)?;
        code = (*kind == 7).then(|| payload.get(4..8)?.try_into().ok().map(u32::from_be_bytes)).flatten();
        frames = next;
    }
    code
}

async fn exchange_and(address: SocketAddr, bytes: &[u8], shutdown: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let mut answer = Vec::new();
    let talk = async {
        // The registry may close before it has taken everything.
        let _ = stream.write_all(bytes).await;
        if shutdown {
            let _ = stream.shutdown().await;
        }
        let _ = stream.read_to_end(&mut answer).await;
    };
    tokio::time::timeout(Duration::from_secs(20), talk).await.expect("ends");
    answer
}

pub(super) fn request(token: &str, method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").into_bytes()
}

#[tokio::test]
async fn malformed_bytes_end_in_400_or_a_closed_connection() {
    let fixture = super::fixture().await;
    let long = "a".repeat(70_000);
    let many: String = (0..200).map(|n| format!("f{n}: x\r\n")).collect();
    let cases: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"\r\n\r\n".to_vec(),
        b"nonsense\r\n\r\n".to_vec(),
        b"GET /v1/health HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /v1/health HTTP/1.1\r\nhost a\r\n\r\n".to_vec(),
        b"GET /v1/health HTTP/1.1\r\nho\0st: a\r\n\r\n".to_vec(),
        b"GET /v1/he\xffalth HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes(),
        format!("GET /v1/health HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n").into_bytes(),
        format!("GET /v1/health HTTP/1.1\r\nhost: a\r\n{many}\r\n").into_bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a settings frame at all".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nXX".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM".to_vec(),
        b"PUT /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n".to_vec(),
        b"PUT /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        [0u8, 255].repeat(500),
    ];
    for bytes in cases {
        let answer = pour(fixture.origin.address(), &bytes).await;
        let shown = String::from_utf8_lossy(bytes.get(..60).unwrap_or(&bytes)).into_owned();
        assert!(is_clear(&bytes, &answer), "{shown:?}: {:?}", answer.escape_ascii().to_string());
        fixture.admin.status().await.expect("the registry goes on");
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_by_name() {
    let fixture = super::fixture().await;
    let token = fixture.origin.admin_token().token.secret().to_owned();
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let digest = "0".repeat(64);
    let blob = format!("/v1/blobs/{digest}");
    let table: Vec<(&str, &str, &str, &str, &str)> = vec![
        ("GET", "/", "", "404", "no_endpoint"),
        ("GET", "/v2/status", "", "404", "no_endpoint"),
        ("GET", "/v1/status/", "", "404", "no_endpoint"),
        ("POST", "/v1/status", "", "405", "method"),
        ("PATCH", "/v1/workers/shop", "", "405", "method"),
        ("GET", "/v1/workers/SHOP/versions", "", "400", "worker name"),
        ("GET", "/v1/workers/..%2f/versions", "", "400", "worker name"),
        ("GET", "/v1/workers/shop/versions", "", "404", "no_worker"),
        ("GET", "/v1/blobs/xyz", "", "400", "digest"),
        ("GET", &blob, "", "404", "no_blob"),
        ("PUT", &blob, "bytes", "422", "digest"),
        ("POST", "/v1/blobs/missing", "", "400", "malformed"),
        ("POST", "/v1/blobs/missing", "{}", "400", "digests"),
        ("POST", "/v1/blobs/missing", &deep, "400", "malformed"),
        ("POST", "/v1/workers/shop/versions", "{\"extra\":1}", "400", "extra"),
        ("POST", "/v1/workers/shop/deployments", "{\"versions\":[{\"version\":\"1\",\"percentage\":100}]}", "400", "version id"),
        ("POST", "/v1/workers/shop/deployments", "{\"versions\":[]}", "404", "no_worker"),
        ("POST", "/v1/workers/shop/rollback", "[]", "400", "malformed"),
        ("GET", "/v1/workers/shop/nodes?seq=x", "", "400", "seq"),
        ("GET", "/v1/workers/shop/nodes?color=red", "", "400", "color"),
        ("GET", "/v1/workers/shop/nodes?seq=1&seq=2", "", "400", "twice"),
        ("PUT", "/v1/sites/www", "{\"routes\":[{\"pattern\":\"a\",\"upstream\":\"https://b\"}]}", "422", "no path"),
        ("POST", "/v1/nodes", "{}", "403", "forbidden"),
        ("GET", "/v1/feed", "", "403", "forbidden"),
        ("GET", "/v1/health", "a body", "413", "body_too_large"),
    ];
    for (method, path, body, status, word) in table {
        let answer = exchange(fixture.origin.address(), &request(&token, method, path, body)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
        assert!(answer.contains(word), "{method} {path}: {answer}");
        assert!(answer.contains("\"code\":"), "{method} {path}: {answer}");
    }
    let too_large = format!(
        "POST /v1/blobs/missing HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        17 << 20
    );
    let answer = exchange(fixture.origin.address(), too_large.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let cut = format!("POST /v1/blobs/missing HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-length: 100\r\n\r\n{{");
    let answer = pour(fixture.origin.address(), cut.as_bytes()).await;
    assert!(is_clear(cut.as_bytes(), &answer), "{:?}", answer.escape_ascii().to_string());
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_400_and_ends_the_connection() {
    let fixture = super::fixture().await;
    let token = fixture.origin.admin_token().token.secret().to_owned();
    let hidden = format!("DELETE /v1/workers/shop HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
    for (first, fields, after) in [
        ("HTTP/1.1\r\n", "", ""),
        ("HTTP/1.0\r\n", "", ""),
        ("HTTP/1.1\r\n", "host: a\r\nhost: a\r\n", ""),
        ("HTTP/1.1\r\n", "host: a\r\nHOST: b\r\n", ""),
        ("HTTP/1.1\r\n", "host: a, b\r\n", ""),
        ("HTTP/1.1\r\n", "host: u@a\r\n", ""),
        ("HTTP/1.1\r\n", "host:\r\n", ""),
        ("HTTP/1.1\n", "host: a\r\n", ""),
        ("HTTP/1.1\r\n", "host: a\n", ""),
        ("HTTP/1.1\r\n", "x: y\nhost: a\r\n", ""),
        ("HTTP/1.1\r\n", "host: a\r\nx: y\r\n z\r\n", ""),
        ("HTTP/1.1\r\n", "host: a\r\n\tx: y\r\n", ""),
        ("HTTP/1.1\r\n", "host: a\r\nx : y\r\n", ""),
        ("HTTP/1.1\r\n", "host: a\r\n: y\r\n", ""),
        ("HTTP/1.1\r\n", "host: a\r\nx: y\rz: a\r\n", ""),
        ("HTTP/1.1\r\n", "host: a\r\ncontent-length: 0\r\ncontent-length: 0\r\n", ""),
        ("HTTP/1.1\r\n", "host: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n", "x"),
        ("HTTP/1.1\r\n", "host: a\r\ncontent-length: 0, 0\r\n", ""),
        ("HTTP/1.1\r\n", "host: a\r\ncontent-length: +0\r\n", ""),
        ("HTTP/1.1\r\n", "host: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        ("HTTP/1.1\r\n", "host: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n"),
        ("HTTP/1.1\r\n", "host: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        ("HTTP/1.1\r\n", "host: a\r\ntransfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ("HTTP/1.0\r\n", "host: a\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        ("HTTP/1.1 HTTP/1.1\r\n", "host: a\r\n", ""),
    ] {
        let sent = format!("GET /v1/health {first}{fields}\r\n{after}{hidden}");
        let answer = exchange(fixture.origin.address(), sent.as_bytes()).await;
        let row = format!("{first:?} {fields:?}: {answer}");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.matches("HTTP/1.1 ").count() == 1, "{row}");
    }
    // Nothing behind the first request of a connection is one.
    let good = format!("GET /v1/health HTTP/1.1\r\nhost: a\r\n\r\n{hidden}");
    let answer = exchange(fixture.origin.address(), good.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn without_a_token_nothing_is_shown() {
    let fixture = super::fixture().await;
    for authorization in
        ["", "authorization: Bearer\r\n", "authorization: Basic YTpi\r\n", "authorization: Bearer x\r\nauthorization: Bearer y\r\n"]
    {
        let bytes = format!("GET /v1/status HTTP/1.1\r\nhost: a\r\n{authorization}connection: close\r\n\r\n");
        let answer = exchange(fixture.origin.address(), bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("www-authenticate"), "{authorization:?}: {answer}");
    }
    let answer = exchange(fixture.origin.address(), b"GET /v1/health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
