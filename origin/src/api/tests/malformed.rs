//! What is malformed ends in a clear 4xx or a closed connection, and the registry goes on.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends bytes, then the end of the stream; gives what came back (nothing: closed).
async fn pour(address: SocketAddr, bytes: &[u8]) -> String {
    exchange_and(address, bytes, true).await
}

/// Sends a request; gives what came back until the registry closed the connection.
pub(super) async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    exchange_and(address, bytes, false).await
}

async fn exchange_and(address: SocketAddr, bytes: &[u8], shutdown: bool) -> String {
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
    String::from_utf8_lossy(&answer).into_owned()
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
        b"PUT /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n".to_vec(),
        b"PUT /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        [0u8, 255].repeat(500),
    ];
    for bytes in cases {
        let answer = pour(fixture.origin.address(), &bytes).await;
        let shown = String::from_utf8_lossy(bytes.get(..60).unwrap_or(&bytes)).into_owned();
        // An HTTP/2 answer is frames: GOAWAY is a clear end too.
        let is_clear = answer.is_empty() || answer.starts_with("HTTP/1.1 4") || bytes.starts_with(b"PRI");
        assert!(is_clear, "{shown:?}: {answer:?}");
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
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
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
