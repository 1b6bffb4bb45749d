//! Malformed input to a listener ends in a clear 4xx or a closed connection, and the next request is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use selvedge_tests::client::{self, Over};
use selvedge_tests::{Built, Cluster, fixture};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sends bytes as they are; gives what comes back until the connection closes.
pub(super) async fn raw(address: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("the listener accepts");
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await.expect("the listener answers or closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_http1_is_refused() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("echo", &fixture("echo")).await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: echo.test\r\n\r\n", "x".repeat(200_000));
    let fields = format!("GET / HTTP/1.1\r\nHost: echo.test\r\n{}\r\n", "a: b\r\n".repeat(5_000));
    let cases: Vec<(&str, u16, Vec<u8>)> = vec![
        ("no request at all", 400, b"\x00\x01\x02\x03\r\n\r\n".to_vec()),
        ("a TLS hello on the cleartext port", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("a Host that differs from the target", 400, b"GET http://echo.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n".to_vec()),
        ("a target that is too long", 414, long.into_bytes()),
        ("too many fields", 431, fields.into_bytes()),
        ("HTTP/2 without TLS", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
    ];
    for (what, status, bytes) in cases {
        let answer = raw(cluster.edges[0].http, &bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains("\r\nconnection: close\r\n"), "{what}: {answer}");
    }
    assert_eq!(cluster.get("echo.test", "/").await.status, 200);
}

/// Pieces of garbage to each socket.
const PIECES: u32 = 48;
/// How long a connection may take to end after garbage.
const END_WAIT: Duration = Duration::from_secs(20);

/// Bytes without sense, or a valid request with some of its bytes changed: the same in each run.
fn garbage(number: u32) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = move || {
        // George Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    if number.is_multiple_of(3) {
        let len = 1 + next() % 4096;
        return (0..len).map(|_| next() as u8).collect();
    }
    let preface: &[u8] = if number % 3 == 1 { b"" } else { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" };
    let text = b"POST /v1/status?a=%20 HTTP/1.1\r\nHost: hello.test\r\nAuthorization: Bearer x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    let mut bytes = [preface, text].concat();
    for _ in 0..1 + next() % 8 {
        let at = next() as usize % bytes.len();
        bytes[at] = next() as u8;
    }
    bytes
}

/// Sends bytes and then the end; gives what came back, within [`END_WAIT`].
async fn pour(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let talk = async {
        // Whoever has heard enough may close before all is sent.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut answer).await;
    };
    tokio::time::timeout(END_WAIT, talk).await.expect("the listener answers or closes");
    answer
}

/// A closed connection, a TLS alert, frames of HTTP/2, or a status that blames the client (or says what is not implemented; where the damage did no
/// harm, any other that is no failure of ours).
fn is_clear(sent: &[u8], answer: &[u8]) -> bool {
    let status = std::str::from_utf8(answer.get(9..12).unwrap_or_default()).unwrap_or_default();
    answer.is_empty()
        || answer[0] == 21
        || sent.starts_with(b"PRI")
        || answer.starts_with(b"HTTP/1.") && (status.starts_with(['2', '4']) || ["501", "505"].contains(&status))
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_to_every_socket_is_refused_and_nothing_panics() {
    let Built { cluster, edge, origin, .. } = Built::start().await;
    cluster.deploy("hello", &fixture("hello")).await;
    let https = edge.address("https");
    let registry: SocketAddr = origin.url().trim_start_matches("http://").parse().unwrap();
    let tcp = [("https", https), ("http", edge.address("http")), ("admin", edge.address("admin")), ("the registry", registry)];
    let pieces = futures::stream::iter(0..PIECES).for_each_concurrent(8, async |number| {
        let bytes = garbage(number);
        for (what, address) in tcp {
            let answer = pour(tokio::net::TcpStream::connect(address).await.unwrap(), &bytes).await;
            assert!(is_clear(&bytes, &answer), "{what}: {:?} to {:?}", answer.escape_ascii().to_string(), bytes.escape_ascii().to_string());
        }
        for alpn in [b"h2", &b"http/1.1"[..]] {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client::anyone(alpn)));
            let stream =
                connector.connect("hello.test".try_into().unwrap(), tokio::net::TcpStream::connect(https).await.unwrap()).await.unwrap();
            let answer = pour(stream, &bytes).await;
            assert!(alpn == b"h2" || is_clear(&bytes, &answer), "inside TLS: {:?}", answer.escape_ascii().to_string());
        }
        let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        udp.send_to(&bytes, https).await.unwrap();
        // With the fixed bit and a version of QUIC, as a first packet has them.
        udp.send_to(&[&b"\xc3\0\0\0\x01\x08"[..], &bytes, &[0; 1200]].concat(), https).await.unwrap();
        inside_quic(https, &bytes).await;
    });
    pieces.await;
    for over in [Over::Cleartext, Over::H1, Over::H2, Over::H3] {
        let address = if over == Over::Cleartext { edge.address("http") } else { https };
        assert_eq!(client::send(over, address, client::get("hello.test", "/")).await.unwrap().status, 200, "{over:?}");
    }
    assert!(cluster.client.status().await.is_ok());
    for (what, log) in [("the node", edge.log()), ("the registry", origin.log())] {
        assert!(!log.contains("panicked"), "{what}: {log}");
    }
}

/// Garbage on streams of each kind, and as a datagram; the connection may end of it.
async fn inside_quic(address: SocketAddr, bytes: &[u8]) {
    // Open until the end: dropping it closes.
    let connection = client::H3Connection::open(address, "hello.test").await.expect("a handshake");
    let quic = &connection.quic;
    if let Ok((mut sending, mut receiving)) = quic.open_bi().await {
        let _ = sending.write_all(bytes).await;
        let _ = sending.finish();
        let _ = tokio::time::timeout(END_WAIT, receiving.read_to_end(1 << 20)).await.expect("the stream ends, or its connection");
    }
    if let Ok(mut sending) = quic.open_uni().await {
        let _ = sending.write_all(bytes).await;
        let _ = sending.finish();
    }
    let _ = quic.send_datagram(bytes::Bytes::copy_from_slice(bytes.get(..200).unwrap_or(bytes)));
}
