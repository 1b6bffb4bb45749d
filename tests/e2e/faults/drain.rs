//! SIGTERM: finish what runs, then go.

use std::time::{Duration, Instant};

use selvedge_tests::client::{self, Over};
use selvedge_tests::{Built, Cluster, eventually, fixture};

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

/// Of the next test's node, in milliseconds: one request ends within it, the other does not.
const DRAIN_TIMEOUT_MS: u64 = 2_000;
/// What may be added to it: tasks that are dropped, runners that are ended, a busy machine.
const DRAIN_SLACK: Duration = Duration::from_millis(2_500);

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_finish_what_ends_in_time_cancels_the_rest_and_exits_with_zero() {
    let Built { cluster, mut edge, origin: _origin, .. } = Built::start_with(&format!("drain_timeout_ms = {DRAIN_TIMEOUT_MS}\n")).await;
    let script = "export default { async fetch(request) { console.log('is inside'); await scheduler.wait(+new URL(request.url).pathname.slice(1)); \
                  return new Response('finished'); } };";
    cluster.deploy("slow", script).await;
    let http = edge.address("http");
    let ask = |path: String| tokio::spawn(client::send(Over::Cleartext, http, client::get("slow.test", &path)));
    let (short, long) = (ask(format!("/{}", DRAIN_TIMEOUT_MS / 2)), ask("/60000".into()));
    let begun = async || (edge.log().matches("is inside").count() == 2).then_some(());
    eventually("both are inside", Duration::from_secs(10), begun).await;
    let told = Instant::now();
    let status = edge.terminate();
    let took = told.elapsed();
    assert_eq!(status.code(), Some(0), "{}", edge.log());
    assert_eq!(short.await.unwrap().expect("an answer").text(), "finished");
    // An answer that names it, or the end of the connection: never the worker's.
    assert!(long.await.unwrap().map_or(true, |answer| answer.status == 503), "it was not cancelled");
    let timeout = Duration::from_millis(DRAIN_TIMEOUT_MS);
    assert!(took >= timeout && took < timeout + DRAIN_SLACK, "{took:?}");
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
