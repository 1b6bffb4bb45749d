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
    let mib_100 = 100 << 20;
    let body = bytes::Bytes::from(vec![0_u8; mib_100 + 1]);
    let answer =
        cluster.edges[0].send(client::Over::Cleartext, client::request("POST", "count.test", "/", body.slice(..mib_100))).await.unwrap();
    assert_eq!(answer.text(), mib_100.to_string());
    let answer = cluster.edges[0].send(client::Over::Cleartext, client::request("POST", "count.test", "/", body)).await.unwrap();
    assert_eq!(answer.status, 413, "{}", answer.text());
}
