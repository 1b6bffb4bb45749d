//! Nodes sign their requests: what is not signed as it is sent, or by nobody who has joined, goes no further than its head.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Fixture, fixture, report};
use crate::api::wire::NodeReport;
use crate::client::{Client, NodeIdentity};

const REPORT: &str = "/v1/nodes/self/report";

async fn joined(fixture: &Fixture) -> NodeIdentity {
    let joining = Client::connect(&fixture.origin.url(), fixture.origin.node_token()).expect("a client");
    let identity = NodeIdentity::generate("edge-1".parse().expect("a name")).expect("a key");
    joining.join(&identity, "here", None).await.expect("joins");
    identity
}

/// Unix time in microseconds.
pub(super) fn now_us() -> u64 {
    u64::try_from(std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_micros()).expect("before 586524")
}

/// Sends a report that has `length` bytes, of which `body` are sent, and gives the answer.
async fn send(address: SocketAddr, authorization: &str, length: usize, body: &[u8]) -> String {
    let head = format!(
        "POST {REPORT} HTTP/1.1\r\nhost: {address}\r\nauthorization: {authorization}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    stream.write_all(&[head.as_bytes(), body].concat()).await.expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answers");
    answer
}

#[tokio::test]
async fn a_signed_request_holds_once_and_only_as_it_was_signed() {
    let fixture = fixture().await;
    let (identity, address) = (joined(&fixture).await, fixture.origin.address());
    let body = serde_json::to_vec(&report(None, vec![])).expect("JSON");
    let send = async |authorization: &str, body: &[u8]| send(address, authorization, body.len(), body).await;
    let good = identity.authorization("POST", REPORT, &body, now_us());
    assert!(send(&good, &body).await.starts_with("HTTP/1.1 200"));
    assert!(send(&good, &body).await.contains("made before"));
    let other = serde_json::to_vec(&NodeReport { build: "other".into(), ..report(None, vec![]) }).expect("JSON");
    let answer = send(&identity.authorization("POST", REPORT, &body, now_us()), &other).await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("not the one that was signed"), "{answer}");
    let answer = send(&identity.authorization("POST", "/v1/nodes/self", &body, now_us()), &body).await;
    assert!(answer.contains("does not belong to this request"), "{answer}");
    let late = send(&identity.authorization("POST", REPORT, &body, now_us() - 90_000_000), &body).await;
    assert!(late.starts_with("HTTP/1.1 401") && late.contains("90 s apart"), "{late}");
    for broken in ["Selvedge-Node", "Selvedge-Node node", "Selvedge-Node node=\"edge-1\"", "Selvedge-Node node=edge-1, ts=1, sig=2"] {
        assert!(send(broken, &body).await.starts_with("HTTP/1.1 401"), "{broken}");
    }
}

#[tokio::test]
async fn a_body_is_waited_for_only_when_a_node_has_signed_it() {
    let fixture = fixture().await;
    let (identity, address) = (joined(&fixture).await, fixture.origin.address());
    let stranger = NodeIdentity::generate("edge-1".parse().expect("a name")).expect("a key");
    let nobody = NodeIdentity::generate("edge-7".parse().expect("a name")).expect("a key");
    let signature = "0".repeat(128);
    let good = identity.authorization("POST", REPORT, b"", now_us());
    let forged = format!("{}sig=\"{signature}\"", good.split("sig=").next().expect("a signature"));
    let old = format!("Selvedge-Node node=\"edge-1\", ts=\"{}\", sig=\"{signature}\"", now_us());
    // None of the 16 MiB is sent.
    let refused = async |authorization: String| {
        let answer = tokio::time::timeout(std::time::Duration::from_secs(10), send(address, &authorization, 16 << 20, b"")).await;
        let answer = answer.unwrap_or_else(|_| panic!("{authorization}: the body is waited for"));
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        answer.split("\r\n\r\n").nth(1).expect("a body").to_owned()
    };
    refused(forged).await;
    refused(old).await;
    let known = refused(stranger.authorization("POST", REPORT, b"", now_us())).await;
    let unknown = refused(nobody.authorization("POST", REPORT, b"", now_us())).await;
    assert_eq!(known, unknown, "which names there are is not told");
}
