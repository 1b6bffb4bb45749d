//! Each limit of a worker, at its bound and on both sides of it.

use selvedge_tests::client;
use selvedge_tests::{Cluster, Deploy, Upstream, fixture, route};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_subrequests_and_not_one_more() {
    let cluster = Cluster::start(1).await;
    let upstream = Upstream::start(|_| http::Response::new("x".into())).await;
    cluster.apply(vec![route("data.test/*", None, Some(&upstream.url()))]).await;
    cluster.deploy("many", &fixture("fetch_many")).await;
    let ask = async |n: u32| cluster.get("many.test", &format!("/?n={n}&url=http://data.test/")).await;
    assert_eq!(ask(49).await.text(), "49");
    assert_eq!(ask(50).await.text(), "50");
    let answer = ask(51).await;
    assert!(answer.text().starts_with("50 then ") && answer.status == 599, "{} {}", answer.status, answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_can_set_its_own_number_of_subrequests() {
    let cluster = Cluster::start(1).await;
    let upstream = Upstream::start(|_| http::Response::new("x".into())).await;
    cluster.apply(vec![route("data.test/*", None, Some(&upstream.url()))]).await;
    cluster.deploy_with("few", &fixture("fetch_many"), Deploy { subrequests_max: Some(2), ..Deploy::default() }).await;
    assert_eq!(cluster.get("few.test", "/?n=2&url=http://data.test/").await.text(), "2");
    assert_eq!(cluster.get("few.test", "/?n=3&url=http://data.test/").await.status, 599);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_100_mib_is_refused_and_one_below_is_not() {
    let cluster = Cluster::start(1).await;
    let script = "export default { async fetch(request) { let n = 0; for await (const chunk of request.body) n += chunk.length; return new Response(String(n)); } };";
    cluster.deploy_with("count", script, Deploy { cpu_ms: Some(20_000), ..Deploy::default() }).await;
    let most = 100 << 20;
    for len in [most - 1, most] {
        let body = bytes::Bytes::from(vec![0_u8; len]);
        let answer = cluster.send(client::Over::Cleartext, client::request("POST", "count.test", "/", body)).await;
        assert_eq!(answer.text(), len.to_string());
    }
    // One byte more is refused when it is announced, without waiting for it ...
    let head = format!("POST / HTTP/1.1\r\nHost: count.test\r\nContent-Length: {}\r\n\r\n", most + 1);
    let answer = super::malformed::raw(cluster.edges[0].http, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // ... and when it comes unannounced, whatever the client still sends.
    let chunk = [b"10000\r\n".to_vec(), vec![0; 0x10000], b"\r\n".to_vec()].concat();
    let mut chunked = b"POST / HTTP/1.1\r\nHost: count.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    (0..most / 0x10000).for_each(|_| chunked.extend_from_slice(&chunk));
    chunked.extend_from_slice(b"1\r\nx\r\n0\r\n\r\n");
    let answer = super::malformed::raw(cluster.edges[0].http, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}
