//! SIGTERM: finish what runs, then go.

use selvedge_tests::client::{self, Over};
use selvedge_tests::{Built, Cluster, fixture};

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_finishes_what_it_has_begun() {
    let mut cluster = Cluster::start(1).await;
    let script = "export default { async fetch() { await scheduler.wait(500); return new Response('finished'); } };";
    cluster.deploy("slow", script).await;
    let address = cluster.edges[0].http;
    let running = tokio::spawn(client::send(Over::Cleartext, address, client::get("slow.test", "/")));
    let inside = async || {
        let metrics = client::send(Over::Cleartext, cluster.edges[0].admin, client::get("admin", "/metrics")).await.ok()?;
        metrics.text().lines().any(|line| line.starts_with("selvedge_requests_running") && !line.ends_with(" 0")).then_some(())
    };
    selvedge_tests::eventually("the request is inside", std::time::Duration::from_secs(5), inside).await;
    let node = cluster.edges.remove(0).node;
    assert!(node.drain().await, "everything ended by itself");
    assert_eq!(running.await.unwrap().expect("an answer").text(), "finished");
    assert!(client::send(Over::Cleartext, address, client::get("slow.test", "/")).await.is_err(), "nothing new is accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_every_daemon_with_zero() {
    let Built { cluster, mut edge, mut origin, .. } = Built::start().await;
    cluster.deploy("hello", &fixture("hello")).await;
    assert!(client::send(Over::H3, edge.address("https"), client::get("hello.test", "/")).await.is_ok());
    let runners = edge.children();
    assert!(!runners.is_empty());
    assert_eq!(edge.terminate().code(), Some(0), "{}", edge.log());
    assert_eq!(origin.terminate().code(), Some(0), "{}", origin.log());
    let gone = async || runners.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(());
    selvedge_tests::eventually("no runner is left", std::time::Duration::from_secs(5), gone).await;
}
