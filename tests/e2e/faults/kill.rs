//! kill -9 of each process.

use std::time::{Duration, Instant};

use selvedge_origin::OriginConfig;
use selvedge_origin::client::Client;
use selvedge_tests::client::{self, Over};
use selvedge_tests::{Built, Cluster, Daemon, Upstream, eventually, fixture, route};

async fn ask(address: std::net::SocketAddr, host: &str) -> Option<client::Answer> {
    client::send(Over::Cleartext, address, client::get(host, "/")).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_go_on_without_the_origin_and_it_keeps_what_it_acknowledged() {
    let Built { cluster, mut edge, mut origin, origin_data, edge_data } = Built::start().await;
    let (url, client) = (origin.url(), cluster.client.clone());
    cluster.deploy("hello", &fixture("hello")).await;
    let upstream = Upstream::start(|request| {
        let fresh = if request.uri().path() == "/" { "max-age=600" } else { "no-store" };
        http::Response::builder().header("cache-control", fresh).body("page".into()).unwrap()
    })
    .await;
    cluster.apply(vec![route("page.test/*", None, Some(&upstream.url()))]).await;
    assert_eq!(ask(edge.address("http"), "page.test").await.unwrap().text(), "page");
    assert_eq!(ask(edge.address("http"), "hello.test").await.unwrap().status, 200);

    origin.kill();
    assert_eq!(ask(edge.address("http"), "hello.test").await.unwrap().status, 200, "the worker goes on");
    assert_eq!(ask(edge.address("http"), "page.test").await.unwrap().text(), "page", "the cache goes on");
    assert_eq!(upstream.asked(), 1, "and needs no upstream");
    let page = client::send(Over::Cleartext, edge.address("http"), client::get("page.test", "/news")).await.unwrap();
    assert_eq!((page.text().as_str(), upstream.asked()), ("page", 2), "upstreams go on");
    let error = client.status().await.unwrap_err().to_string();
    assert!(error.contains(&url), "the error names the registry: {error}");

    // A node that is killed too comes back with its last state, without the registry.
    let (https, http) = (edge.address("https"), edge.address("http"));
    edge.kill();
    let start = Instant::now();
    let edge = Daemon::edge_at("node-0", &edge_data, &url, &origin_data, &https.to_string(), &http.to_string());
    let back = async || ask(edge.address("http"), "hello.test").await.filter(|answer| answer.status == 200);
    eventually("the node answers again", Duration::from_secs(10), back).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());

    let listen = url.trim_start_matches("http://").to_owned();
    let origin = Daemon::origin(&origin_data, &listen);
    let client = origin.client(&origin_data);
    let versions = client.versions(&"hello".parse().unwrap()).await.expect("what was acknowledged is there");
    assert_eq!(versions.versions.len(), 1);
    let returned = async || client.nodes().await.ok().filter(|nodes| nodes.iter().any(|node| node.online));
    eventually("the node follows again", Duration::from_secs(20), returned).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_is_back_within_two_seconds_beside_its_origin_and_follows_it() {
    let Built { cluster, mut edge, origin, origin_data, edge_data } = Built::start().await;
    cluster.deploy("hello", &fixture("hello")).await;
    let (https, http) = (edge.address("https").to_string(), edge.address("http").to_string());
    edge.kill();
    let start = Instant::now();
    let edge = Daemon::edge_at("node-0", &edge_data, &origin.url(), &origin_data, &https, &http);
    let back = async || ask(edge.address("http"), "hello.test").await.filter(|answer| answer.status == 200);
    eventually("the node answers again", Duration::from_secs(10), back).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    cluster.deploy("next", &fixture("hello")).await;
    assert_eq!(ask(edge.address("http"), "next.test").await.unwrap().status, 200, "what is deployed now reaches it, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runner_costs_only_what_ran_inside_it() {
    let Built { cluster, edge, origin: _origin, .. } = Built::start().await;
    cluster.deploy("hello", &fixture("hello")).await;
    for round in 0..5 {
        for pid in edge.children() {
            // SAFETY: kill takes no memory; the ids are those of runners of a node that this test started.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
        let start = Instant::now();
        let answer = ask(edge.address("http"), "hello.test").await.expect("an answer, never a hang");
        assert!(answer.status == 200 || answer.status == 503, "round {round}: {}", answer.status);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let back = async || ask(edge.address("http"), "hello.test").await.filter(|answer| answer.status == 200);
        eventually("the worker answers again", Duration::from_secs(10), back).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_inside_a_killed_runner_are_all_answered_and_the_cache_goes_on() {
    const INSIDE: usize = 8;
    let Built { cluster, edge, origin: _origin, .. } = Built::start().await;
    let waits =
        "export default { async fetch() { console.log('is inside'); await scheduler.wait(20_000); return new Response('late'); } };";
    cluster.deploy("waits", waits).await;
    let upstream = Upstream::start(|_| http::Response::builder().header("cache-control", "max-age=600").body("page".into()).unwrap()).await;
    cluster.apply(vec![route("page.test/*", None, Some(&upstream.url()))]).await;
    let http = edge.address("http");
    assert_eq!(ask(http, "page.test").await.unwrap().status, 200);
    let post = |_| tokio::spawn(client::send(Over::Cleartext, http, client::request("POST", "waits.test", "/", "some bytes")));
    let inside: Vec<_> = (0..INSIDE).map(post).collect();
    let begun = async || (edge.log().matches("is inside").count() == INSIDE).then_some(());
    eventually("all handlers have begun", Duration::from_secs(10), begun).await;
    for pid in edge.children() {
        // SAFETY: kill takes no memory; the ids are those of runners of a node that this test started.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    }
    let killed = Instant::now();
    assert_eq!(ask(http, "page.test").await.unwrap().text(), "page");
    for request in inside {
        let answer = tokio::time::timeout(Duration::from_secs(5), request).await.expect("none hangs").unwrap().unwrap();
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{:?} {}", answer.headers, answer.text());
    }
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    assert_eq!(upstream.asked(), 1, "the page came from the cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_stops_in_process_restarts_with_everything() {
    let mut cluster = Cluster::start(1).await;
    cluster.deploy("hello", &fixture("hello")).await;
    cluster.stop_origin().await;
    assert_eq!(cluster.get("hello.test", "/").await.status, 200);
    let origin = selvedge_origin::Origin::start(OriginConfig::loopback(cluster.dir.path().join("origin"))).await.expect("it starts again");
    let client = Client::connect(&origin.url(), origin.admin_token()).unwrap();
    assert_eq!(client.workers().await.unwrap().len(), 1);
}
