//! Malformed input to a listener ends in a clear 4xx or a closed connection, and the next request is answered.

use std::time::Duration;

use selvedge_tests::{Cluster, fixture};
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

#[tokio::test(flavor = "multi_thread")]
async fn garbage_to_every_socket_changes_nothing() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("hello", &fixture("hello")).await;
    let edge = &cluster.edges[0];
    let garbage: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for address in [edge.https, edge.http, edge.admin, cluster.origin.as_ref().unwrap().address()] {
        raw(address, &garbage).await;
    }
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for size in [1, 20, 1200, 4096] {
        udp.send_to(&garbage[..size], edge.https).await.unwrap();
    }
    for over in [selvedge_tests::client::Over::Cleartext, selvedge_tests::client::Over::H3] {
        assert_eq!(cluster.send(over, selvedge_tests::client::get("hello.test", "/")).await.status, 200);
    }
    assert!(cluster.client.status().await.is_ok());
}
