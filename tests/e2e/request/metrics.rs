//! What a node counts of each route, as a scraper reads it.

use std::time::Duration;

use selvedge_edge::config::NodeConfig;
use selvedge_origin::api::wire::NewPurge;
use selvedge_tests::client::{self, Over};
use selvedge_tests::{Cluster, Deploy, Edge, Exposition, Upstream, eventually, route};

use super::shield;

async fn scrape(edge: &Edge) -> Exposition {
    let page = client::send(Over::Cleartext, edge.admin, client::get("admin", "/metrics")).await.expect("metrics");
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    Exposition::read(&page.text()).unwrap_or_else(|error| panic!("{error}"))
}

/// Scrapes until a series has this value.
async fn counted(edge: &Edge, name: &str, labels: &[(&str, &str)], value: f64) -> Exposition {
    eventually(&format!("{name}{labels:?} is {value}"), Duration::from_secs(10), async || {
        let page = scrape(edge).await;
        (page.get(name, labels) == Some(value)).then_some(page)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_reader_finds_every_route_with_what_its_cache_and_tiers_did() {
    let cluster = Cluster::start(1).await;
    let upstream = Upstream::start(|request| {
        let fresh = if request.uri().path() == "/own" { "private" } else { "max-age=600" };
        http::Response::builder().header("cache-control", fresh).body("0123456789".into()).expect("an answer")
    })
    .await;
    // A pattern may have whatever a path may have.
    let odd = "odd.test/\"q\\\"*";
    // The same server, asked in another way.
    let mut hosted = route("hosted.test/*", None, Some(&upstream.url()));
    hosted.upstream.as_mut().expect("an upstream").host = Some("own.test".into());
    let routes = || vec![route("site.test/*", None, Some(&upstream.url())), route(odd, None, Some(&upstream.url())), hosted.clone()];
    cluster.apply(routes()).await;
    let script = "export default { fetch(request) { return fetch(request); } };";
    let behind = vec![route("front.test/*", Some("front"), Some(&upstream.url()))];
    cluster.deploy_with("front", script, Deploy { routes: Some(behind), ..Deploy::default() }).await;
    for path in ["/", "/", "/", "/own"] {
        assert_eq!(cluster.get("site.test", path).await.status, 200);
    }
    for _ in 0..2 {
        assert_eq!(cluster.get("front.test", "/").await.text(), "0123456789");
    }
    let edge = &cluster.edges[0];
    let requests = |route, asker, cache| [("route", route), ("asker", asker), ("cache", cache)];
    counted(edge, "selvedge_route_requests_total", &requests("site.test/*", "client", "hit"), 2.0).await;
    counted(edge, "selvedge_route_sent_bytes_total", &[("route", "front.test/*"), ("tier", "memory")], 10.0).await;
    let page = counted(edge, "selvedge_route_sent_bytes_total", &[("route", "front.test/*"), ("tier", "worker")], 20.0).await;
    for (name, labels, value) in [
        ("selvedge_route_requests_total", &requests("site.test/*", "client", "miss")[..], 2.0),
        ("selvedge_route_requests_total", &requests("front.test/*", "client", "bypass"), 2.0),
        ("selvedge_route_requests_total", &requests("front.test/*", "worker", "miss"), 1.0),
        ("selvedge_route_requests_total", &requests("front.test/*", "worker", "hit"), 1.0),
        ("selvedge_route_sent_bytes_total", &[("route", "site.test/*"), ("tier", "memory")], 20.0),
        ("selvedge_route_sent_bytes_total", &[("route", "site.test/*"), ("tier", "upstream")], 20.0),
        ("selvedge_route_sent_bytes_total", &[("route", "front.test/*"), ("tier", "upstream")], 10.0),
        ("selvedge_route_fill_seconds_count", &[("route", "site.test/*")], 1.0),
        ("selvedge_route_fill_first_byte_seconds_count", &[("route", "site.test/*")], 2.0),
        ("selvedge_route_waits_total", &[("route", "site.test/*")], 0.0),
    ] {
        assert_eq!(page.get(name, labels), Some(value), "{name} {labels:?}");
    }
    assert!(!page.has_label("route", odd), "nobody asked for it");

    // A worker's deployment and a site swap the table: what was counted stays.
    cluster.get("odd.test", "/\"q\\\"").await;
    counted(edge, "selvedge_route_requests_total", &requests(odd, "client", "miss"), 1.0).await;
    cluster.apply([routes(), vec![route("new.test/*", None, Some(&upstream.url()))]].concat()).await;
    cluster.get("site.test", "/").await;
    counted(edge, "selvedge_route_requests_total", &requests("site.test/*", "client", "hit"), 3.0).await;
    // A pattern that is gone is shown no more.
    cluster.apply(vec![route("other.test/*", None, Some(&upstream.url()))]).await;
    let page = scrape(edge).await;
    assert!(!page.has_label("route", "site.test/*") && page.has_label("route", "front.test/*"));
    let told = include_str!("../../../edge-node/CACHE.md");
    for name in page.families().filter_map(|name| name.strip_prefix("selvedge_route_")) {
        assert!(told.contains(&format!("`{name}`")), "CACHE.md does not tell of {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shields_disks_and_purges_do_is_counted_by_the_node_that_does_it() {
    let on_disk = |config: &mut NodeConfig| {
        let disk = config.cache_disk.take();
        shield::with_peers(config);
        config.cache_disk = disk;
    };
    let (mut cluster, _upstream) = shield::region(on_disk, |_| shield::cacheable("0123456789".into())).await;
    // The first page of node 0 that another node fetches for it.
    let (path, shield) = {
        let mut number = 0;
        loop {
            let path = format!("/{number}");
            let members = shield::members(&shield::ask(&cluster, 0, &path).await);
            if let [behind, _] = members.as_slice() {
                let name = behind.split(';').next().and_then(|name| name.strip_prefix("node-")).expect("a name");
                break (path, name.parse::<usize>().expect("a number"));
            }
            number += 1;
        }
    };
    let tier = |tier| [("route", "site.test/*"), ("tier", tier)];
    let peer = [("route", "site.test/*"), ("asker", "peer"), ("cache", "miss")];
    counted(&cluster.edges[0], "selvedge_route_sent_bytes_total", &tier("shield"), 10.0).await;
    let page = counted(&cluster.edges[shield], "selvedge_route_requests_total", &peer, 1.0).await;
    assert_eq!(page.get("selvedge_route_sent_bytes_total", &tier("upstream")), Some(10.0), "the shield has asked it");
    assert_eq!(page.get("selvedge_route_sent_bytes_total", &tier("shield")), Some(0.0));

    // A node that has just started has its disk only. (It is stored a moment after its client has it.)
    let is_stored = async || shield::members(&shield::ask(&cluster, 0, &path).await).last()?.contains("; hit;").then_some(());
    eventually("it is stored", Duration::from_secs(10), is_stored).await;
    cluster.edges.remove(0).node.drain().await;
    let again = cluster.start_edge(0, on_disk).await;
    cluster.edges.insert(0, again);
    let recalled = shield::members(&shield::ask(&cluster, 0, &path).await);
    assert!(recalled.last().is_some_and(|last| last.ends_with("detail=disk")), "{recalled:?}");
    let page = counted(&cluster.edges[0], "selvedge_route_sent_bytes_total", &tier("disk"), 10.0).await;
    let removed = [("route", "site.test/*"), ("cause", "purged")];
    assert_eq!(page.get("selvedge_route_removals_total", &removed), Some(0.0));

    cluster.purge(&NewPurge { urls: vec![format!("http://site.test{path}")], ..NewPurge::default() }).await;
    assert!(shield::ask(&cluster, 0, &path).await.header("cache-status").contains("fwd=uri-miss"));
    counted(&cluster.edges[0], "selvedge_route_removals_total", &removed, 1.0).await;
}
