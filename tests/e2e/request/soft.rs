//! Soft purges: what they reach is stale, wherever it is; it stands in while it is fetched anew, and is never fresh again.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use selvedge_edge::config::NodeConfig;
use selvedge_origin::api::wire::NewPurge;
use selvedge_tests::{Cluster, Upstream, eventually, fixture, route};

use super::shield;

/// What is said of a stale answer.
const STALE: &str = "; hit; ttl=0; detail=stale-while-revalidate";

/// Never says the same twice; what it says may be used for a minute after it is stale.
fn counting() -> impl Fn(http::Request<Bytes>) -> http::Response<Bytes> + Send + Sync + 'static {
    let number = AtomicUsize::new(0);
    move |_| {
        let answer = http::Response::builder().header("cache-control", "max-age=600, stale-while-revalidate=60").header("cache-tag", "t");
        answer.body(format!("edition {}", number.fetch_add(1, SeqCst)).into()).expect("an answer")
    }
}

fn of_host(host: &str) -> NewPurge {
    NewPurge { hosts: vec![host.to_owned()], soft: true, ..NewPurge::default() }
}

/// What a node answers now, and how it came to it.
async fn ask(cluster: &Cluster, node: usize, path: &str) -> (String, String) {
    let answer = shield::ask(cluster, node, path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    (answer.text(), shield::members(&answer).pop().unwrap_or_default())
}

/// The node has something newer than this in a while, and this, until then, stale only.
async fn is_renewed(cluster: &Cluster, node: usize, path: &str, before: &str) -> String {
    eventually("it is fetched anew", Duration::from_secs(10), async || {
        let (text, said) = ask(cluster, node, path).await;
        assert!(said.contains("; hit;") && (text != before || said.contains(STALE)), "node {node}: {text}, {said}");
        (text != before).then_some(text)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_softly_by_its_host_is_stale_in_memory_and_on_disk() {
    let mut cluster = Cluster::start(1).await;
    let upstream = Upstream::start(counting()).await;
    cluster.apply(vec![route("site.test/*", None, Some(&upstream.url()))]).await;
    let (first, _) = ask(&cluster, 0, "/page").await;
    cluster.purge(&of_host("other.test")).await;
    assert_eq!(ask(&cluster, 0, "/page").await.0, first, "another host's");
    cluster.purge(&of_host("site.test")).await;
    let stale = ask(&cluster, 0, "/page").await;
    assert!(stale.0 == first && stale.1.contains(STALE), "{stale:?}");
    let second = is_renewed(&cluster, 0, "/page", &first).await;
    // Purged while memory has nothing of it, and asked for after another restart.
    for _ in 0..2 {
        cluster.edges.remove(0).node.drain().await;
        let again = cluster.start_edge(0, |_| {}).await;
        cluster.edges.insert(0, again);
        if upstream.asked() == 2 {
            cluster.purge(&of_host("site.test")).await;
        }
    }
    let asked = upstream.asked();
    let stale = ask(&cluster, 0, "/page").await;
    assert!(stale.0 == second && stale.1.contains(STALE), "{stale:?}");
    is_renewed(&cluster, 0, "/page", &second).await;
    assert_eq!(upstream.asked(), asked + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_softly_does_not_come_fresh_from_a_shield() {
    let adjust = |config: &mut NodeConfig| shield::with_peers(config);
    let (cluster, upstream) = shield::region(adjust, counting()).await;
    for number in 0..6 {
        let path = format!("/{number}");
        let before = shield::ask_all(&cluster, &path).await[0].text();
        cluster.purge(&of_host("site.test")).await;
        // One node after the other: each asks the shield, which has it stale too.
        for node in 0..cluster.edges.len() {
            is_renewed(&cluster, node, &path, &before).await;
        }
        assert_eq!(upstream.asked(), 2 * (number + 1), "one fetch for all nodes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_has_put_is_no_match_once_it_is_purged_softly() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("own", &fixture("own_caches")).await;
    let status = async |path: &str| cluster.get("own.test", path).await.status;
    for cache in ["default", "pages"] {
        for (purge, there) in [(of_host("other.example"), 200), (of_host("keys.example"), 404)] {
            status(&format!("/put/{cache}?page")).await;
            cluster.purge(&purge).await;
            assert_eq!(status(&format!("/match/{cache}")).await, there, "{cache} {purge:?}");
        }
        status(&format!("/put/{cache}?anew")).await;
        assert_eq!(cluster.get("own.test", &format!("/match/{cache}")).await.text(), "anew");
    }
}
