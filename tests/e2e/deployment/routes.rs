//! Who owns a route, and what a site file changes.

use selvedge_origin::api::wire::SiteApply;
use selvedge_tests::{Cluster, Upstream, fixture, route};

fn site(routes: Vec<selvedge_origin::api::wire::RouteSpec>, take_over: bool, dry_run: bool) -> SiteApply {
    SiteApply { routes, take_over, dry_run, message: None, request_id: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_another_owns_is_refused_and_the_owner_named() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("hello", &fixture("hello")).await;
    let upstream = Upstream::start(|_| http::Response::new("upstream".into())).await;
    let name = "www".parse().unwrap();
    let wanted = || vec![route("hello.test/*", None, Some(&upstream.url()))];
    let refused = cluster.client.apply_site(&name, &site(wanted(), false, false)).await.unwrap_err().to_string();
    assert!(refused.contains("hello.test/*") && refused.contains("worker") && refused.contains("hello"), "{refused}");
    assert_eq!(cluster.get("hello.test", "/").await.status, 200);
    let taken = cluster.client.apply_site(&name, &site(wanted(), true, false)).await.expect("taken over");
    assert_eq!(taken.diff.taken_over.len(), 1);
    let moved = async || (cluster.get("hello.test", "/").await.text() == "upstream").then_some(());
    selvedge_tests::eventually("the route has moved", std::time::Duration::from_secs(10), moved).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_the_difference_and_changes_nothing() {
    let cluster = Cluster::start(0).await;
    let name = "www".parse().unwrap();
    let routes = vec![route("a.test/*", None, Some("http://127.0.0.1:1"))];
    let dry = cluster.client.apply_site(&name, &site(routes.clone(), false, true)).await.unwrap();
    assert_eq!((dry.seq, dry.diff.added.len()), (None, 1));
    assert!(cluster.client.sites().await.unwrap().is_empty());
    assert!(cluster.client.apply_site(&name, &site(routes, false, false)).await.unwrap().seq.is_some());
    let removed = cluster.client.apply_site(&name, &site(Vec::new(), false, false)).await.unwrap();
    assert_eq!(removed.diff.removed.len(), 1, "a route that is no longer in the file is removed");
}
