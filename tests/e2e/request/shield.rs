//! A region's nodes and their shields: the upstream sees one fetch, whatever becomes of a shield.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use selvedge_edge::config::NodeConfig;
use selvedge_origin::api::wire::NewPurge;
use selvedge_tests::client::{self, Answer, Over};
use selvedge_tests::{Cluster, Upstream, eventually, fixture, route};

use super::interim;

const NODES: usize = 4;

pub(super) fn with_peers(config: &mut NodeConfig) {
    config.cache_disk = None;
    config.peer = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
}

/// Nodes that know one another, with an upstream behind `site.test/*`.
pub(super) async fn region(
    adjust: impl Fn(&mut NodeConfig),
    answer: impl Fn(http::Request<Bytes>) -> http::Response<Bytes> + Send + Sync + 'static,
) -> (Cluster, Upstream) {
    let cluster = Cluster::start_with(NODES, adjust).await;
    let upstream = Upstream::start(answer).await;
    // The addresses come with reports, and what is applied afterwards comes after them in the feed.
    eventually("every node has told its address", Duration::from_secs(10), async || {
        let nodes = cluster.client.nodes().await.ok()?;
        nodes.iter().all(|node| node.report.as_ref().is_some_and(|report| report.seq >= NODES as u64)).then_some(())
    })
    .await;
    cluster.apply(vec![route("site.test/*", None, Some(&upstream.url()))]).await;
    (cluster, upstream)
}

pub(super) fn cacheable(text: String) -> http::Response<Bytes> {
    http::Response::builder().header("cache-control", "max-age=60").header("etag", "\"a\"").body(text.into()).expect("an answer")
}

pub(super) async fn ask(cluster: &Cluster, node: usize, path: &str) -> Answer {
    cluster.edges[node].send(Over::Cleartext, client::get("site.test", path)).await.expect("an answer")
}

pub(super) async fn ask_all(cluster: &Cluster, path: &str) -> Vec<Answer> {
    join_all((0..cluster.edges.len()).map(|node| ask(cluster, node, path))).await
}

pub(super) fn members(answer: &Answer) -> Vec<String> {
    let lines = answer.headers.get_all("cache-status").iter().map(|line| line.to_str().expect("text"));
    lines.flat_map(|line| line.split(',')).map(|member| member.trim().to_owned()).collect()
}

/// The node that fetched `path` from the upstream for the others, by what they say.
async fn shield_of(cluster: &Cluster, path: &str) -> usize {
    let answers = ask_all(cluster, path).await;
    let behind = answers.iter().map(members).find(|members| members.len() == 2).expect("one of them asked another");
    let name = behind[0].split(';').next().expect("a name").to_owned();
    name.strip_prefix("node-").and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_sees_one_fetch_for_all_nodes_of_a_region() {
    let (cluster, upstream) = region(with_peers, |request| {
        let field = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or_default().to_owned()).unwrap_or_default();
        cacheable(format!("{} {} {} {}", request.uri().path(), field("cf-connecting-ip"), field("x-forwarded-for"), field("host")))
    })
    .await;
    for number in 0..10 {
        let path = format!("/{number}");
        let answers = ask_all(&cluster, &path).await;
        for (node, answer) in answers.iter().enumerate() {
            assert_eq!(answer.text(), format!("{path} 127.0.0.1 127.0.0.1 site.test"), "the client is who it is");
            let members = members(answer);
            assert!(members.len() <= 2 && members.last().is_some_and(|last| last.starts_with(&format!("node-{node};"))), "{members:?}");
        }
        assert_eq!(upstream.asked(), number + 1, "one fetch for {NODES} nodes");
        eventually("each has its own copy", Duration::from_secs(5), async || {
            let answers = ask_all(&cluster, &path).await;
            answers.iter().all(|answer| members(answer).last().is_some_and(|last| last.contains("; hit"))).then_some(())
        })
        .await;
        assert_eq!(upstream.asked(), number + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shield_is_of_its_own_region() {
    const REGIONS: [&str; NODES] = ["near", "near", "far", "far"];
    let of = |name: &str| name.strip_prefix("node-").and_then(|number| REGIONS.get(number.parse::<usize>().ok()?)).expect("a node");
    let adjust = |config: &mut NodeConfig| {
        with_peers(config);
        config.region = (*of(config.name.as_str())).to_owned();
    };
    let (cluster, upstream) = region(adjust, |request| cacheable(request.uri().path().to_owned())).await;
    let mut shielded = [0, 0];
    for number in 0..12 {
        let answers = ask_all(&cluster, &format!("/{number}")).await;
        assert_eq!(upstream.asked(), 2 * (number + 1), "one fetch for each region");
        for (node, answer) in answers.iter().enumerate() {
            let members = members(answer);
            let behind = members.first().and_then(|member| member.split(';').next()).expect("a name");
            assert_eq!(of(behind), &REGIONS[node], "{members:?}");
            shielded[node / 2] += usize::from(members.len() == 2);
        }
    }
    assert!(shielded.iter().all(|count| *count > 0), "{shielded:?}: each region has its shields");
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_come_by_way_of_a_shield_too() {
    let (cluster, _upstream) = region(with_peers, |_| cacheable("page".into())).await;
    let (hinting, _hinting) = interim::listening(interim::http1).await;
    cluster.apply(vec![route("hints.test/*", None, Some(&hinting))]).await;
    let mut shielded = 0;
    for number in 0..10 {
        let asked = client::get("hints.test", &format!("/{number}"));
        let answer = cluster.edges[0].send(Over::Cleartext, asked).await.expect("an answer");
        let statuses: Vec<u16> = answer.interim.iter().map(|(status, _)| *status).collect();
        assert_eq!((statuses, answer.text()), (vec![102, 103], "page".into()), "{:?}", members(&answer));
        assert_eq!(answer.interim[1].1["link"], "</a.css>; rel=preload");
        shielded += usize::from(members(&answer).len() == 2);
    }
    assert!(shielded > 0, "some of them have another node for their shield");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_shield_costs_a_fetch_and_then_another_takes_its_place() {
    let (mut cluster, upstream) = region(with_peers, |request| cacheable(request.uri().path().to_owned())).await;
    let shield = shield_of(&cluster, "/first").await;
    let dead = cluster.edges.remove(shield);
    drop(dead);
    // Keys of which the dead one was the shield are among these; every one is answered.
    let before = upstream.asked();
    for number in 0..20 {
        let path = format!("/{number}");
        assert!(ask_all(&cluster, &path).await.iter().all(|answer| answer.text() == path));
    }
    let once = upstream.asked() - before;
    // The remaining nodes each found out by one request, and agree again on what comes after.
    assert!((20..=20 + cluster.edges.len()).contains(&once), "{once} fetches for 20 pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_go_without_and_so_may_a_worker() {
    let (cluster, upstream) = region(with_peers, |_| cacheable("page".into())).await;
    let mut alone = route("alone.test/*", None, Some(&upstream.url()));
    alone.cache.shield = false;
    cluster.apply(vec![alone]).await;
    for edge in &cluster.edges {
        let answer = edge.send(Over::Cleartext, client::get("alone.test", "/")).await.expect("an answer");
        assert_eq!(members(&answer).len(), 1);
    }
    assert_eq!(upstream.asked(), NODES);
    // What a worker fetches from behind its own route is shielded; the worker runs where it is asked.
    let routes = Some(vec![route("worker.test/*", Some("own"), Some(&upstream.url()))]);
    cluster.deploy_with("own", &fixture("own_route"), selvedge_tests::Deploy { routes, ..Default::default() }).await;
    for edge in &cluster.edges {
        let answer = edge.send(Over::Cleartext, client::get("worker.test", "/")).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(upstream.asked(), NODES + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_node_is_not_answered_and_a_removed_node_no_more() {
    let (cluster, upstream) = region(with_peers, |_| cacheable("page".into())).await;
    let peer = cluster.edges[0].node.addresses().peer.expect("it has an address");
    // Without a key: TLS ends before anything is asked.
    assert!(client::exchange_h2(peer, client::get("site.test", "/")).await.is_err());
    let shield = shield_of(&cluster, "/x").await;
    let asker = (0..NODES).find(|node| *node != shield).expect("another");
    cluster.client.remove_node(&format!("node-{asker}").parse().expect("a name"), &Default::default()).await.expect("it is removed");
    eventually("the shield has heard of it", Duration::from_secs(10), async || {
        let nodes = cluster.client.nodes().await.ok()?;
        let seq = cluster.client.status().await.ok()?.seq;
        nodes.iter().all(|node| node.report.as_ref().is_some_and(|report| report.seq >= seq)).then_some(())
    })
    .await;
    let before = upstream.asked();
    for number in 0..10 {
        let answer = ask(&cluster, asker, &format!("/removed/{number}")).await;
        assert_eq!((answer.status, members(&answer).len()), (200, 1), "it serves on, by itself");
    }
    assert_eq!(upstream.asked(), before + 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shield_that_cannot_reach_the_upstream_hides_nothing() {
    let broken = Arc::new(AtomicBool::new(false));
    let fails = broken.clone();
    let (cluster, upstream) = region(with_peers, move |request| {
        if fails.load(Ordering::SeqCst) {
            return http::Response::builder().status(503).body(Bytes::from_static(b"down")).expect("an answer");
        }
        cacheable(request.uri().path().to_owned())
    })
    .await;
    shield_of(&cluster, "/x").await;
    broken.store(true, Ordering::SeqCst);
    let answers = ask_all(&cluster, "/down").await;
    assert!(answers.iter().all(|answer| answer.status == 503 && answer.text() == "down"), "the upstream's own answer");
    drop(upstream);
    let answers = ask_all(&cluster, "/gone").await;
    // Connections to it that were open still are.
    let own = |answer: &Answer| matches!(answer.status, 502 | 503) && answer.headers.get("selvedge-peer").is_none();
    assert!(answers.iter().all(own), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_again_is_a_shield_again() {
    let (mut cluster, upstream) = region(with_peers, |request| cacheable(request.uri().path().to_owned())).await;
    let shield = shield_of(&cluster, "/first").await;
    cluster.edges.remove(shield).node.drain().await;
    let again = cluster.start_edge(shield, with_peers).await;
    cluster.edges.insert(shield, again);
    // Its address is another one now, of which the others hear; and they may have found out that the old one is dead.
    eventually("one fetch for all nodes again", Duration::from_secs(30), async || {
        let (path, before) = (format!("/first?{}", upstream.asked()), upstream.asked());
        let answers = ask_all(&cluster, &path).await;
        (upstream.asked() == before + 1 && answers.iter().any(|answer| members(answer).len() == 2)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_post_makes_invalid_does_not_come_back_from_the_shield() {
    let version = AtomicUsize::new(0);
    let (cluster, _upstream) = region(with_peers, move |request| {
        let number = version.fetch_add((request.method() == "POST").into(), Ordering::SeqCst);
        cacheable(format!("version {}", number + usize::from(request.method() == "POST")))
    })
    .await;
    for path in ["/a", "/b", "/c", "/d"] {
        ask_all(&cluster, path).await;
        for node in 0..NODES {
            let posted =
                cluster.edges[node].send(Over::Cleartext, client::request("POST", "site.test", path, "")).await.expect("an answer");
            assert_eq!(ask(&cluster, node, path).await.text(), posted.text(), "{path} of node {node}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_node_has_purged_does_not_come_back_from_a_shield_that_hears_of_it_late() {
    let version = Arc::new(AtomicUsize::new(0));
    let shown = version.clone();
    let (cluster, _upstream) = region(with_peers, move |_| {
        let answer = http::Response::builder().header("cache-control", "max-age=60").header("cache-tag", "page");
        answer.body(shown.load(Ordering::SeqCst).to_string().into()).expect("an answer")
    })
    .await;
    let stop = AtomicBool::new(false);
    // Readers at every node, so that fetches by way of shields are under way whenever a purge arrives anywhere.
    let read = join_all((0..NODES).map(|node| {
        let (cluster, stop) = (&cluster, &stop);
        async move {
            while !stop.load(Ordering::SeqCst) {
                ask(cluster, node, "/page").await;
            }
        }
    }));
    let purge = async {
        for round in 1..=20 {
            version.store(round, Ordering::SeqCst);
            let purge = match round % 2 {
                0 => NewPurge { urls: vec!["http://site.test/page".into()], ..NewPurge::default() },
                _ => NewPurge { tags: vec!["page".into()], ..NewPurge::default() },
            };
            cluster.purge(&purge).await;
            for (node, answer) in ask_all(&cluster, "/page").await.iter().enumerate() {
                assert_eq!(answer.text(), round.to_string(), "node {node} after purge {round}: {:?}", members(answer));
            }
        }
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(read, purge);
}
