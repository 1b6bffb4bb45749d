//! A worker's `fetch()`: through the edge, with every check on that side.

use selvedge_tests::client::{self, Over};
use selvedge_tests::{Cluster, Upstream, fixture, route};

#[tokio::test(flavor = "multi_thread")]
async fn its_own_route_means_the_routes_upstream_through_the_cache() {
    let cluster = Cluster::start(1).await;
    let upstream = Upstream::start(|request| {
        http::Response::builder().header("cache-control", "max-age=60").body(format!("upstream {}", request.uri().path()).into()).unwrap()
    })
    .await;
    let own = fixture("own_route");
    let deploy =
        selvedge_tests::Deploy { routes: Some(vec![route("own.test/*", Some("own"), Some(&upstream.url()))]), ..Default::default() };
    cluster.deploy_with("own", &own, deploy).await;
    for _ in 0..3 {
        assert_eq!(cluster.get("own.test", "/a").await.text(), "worker saw: upstream /a");
    }
    assert_eq!(upstream.asked(), 1, "the second and third time the cache answers the worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_upstream_its_own_route_fails_by_name() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("own", &fixture("own_route")).await;
    let answer = cluster.get("own.test", "/").await;
    assert_eq!(answer.status, 599);
    assert!(answer.text().contains("own.test") && answer.text().contains("upstream"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_route_is_answered_inside_the_node() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("hello", &fixture("hello")).await;
    cluster.deploy("fetch", &fixture("fetch")).await;
    let answer = cluster.get("fetch.test", "/?url=http://hello.test/inner").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello from /inner\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_call_each_other_for_ever_are_stopped() {
    let cluster = Cluster::start(1).await;
    let script = |other: &str| format!("export default {{ async fetch() {{ return await fetch('http://{other}.test/'); }} }};");
    cluster.deploy("ping", &script("pong")).await;
    cluster.deploy("pong", &script("ping")).await;
    let answer = cluster.get("ping.test", "/").await;
    assert!(answer.status >= 500, "{} {}", answer.status, answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_reached_only_by_the_allow_list() {
    let upstream = Upstream::start(|_| http::Response::new("private".into())).await;
    let closed = Cluster::start(1).await;
    closed.deploy("fetch", &fixture("fetch")).await;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"] {
        let answer = closed.get("fetch.test", &format!("/?url=http://{host}:{}/", upstream.address().port())).await;
        assert_eq!(answer.status, 599, "{host}: {}", answer.text());
    }
    assert_eq!(upstream.asked(), 0);

    let open = Cluster::start_with(1, |config| config.fetch_allow = vec!["127.0.0.0/8".parse().unwrap()]).await;
    open.deploy("fetch", &fixture("fetch")).await;
    let answer = open.get("fetch.test", &format!("/?url={}/", upstream.url())).await;
    assert_eq!(answer.text(), "private");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_given_or_refused_as_asked() {
    let cluster = Cluster::start(1).await;
    let upstream = Upstream::start(|request| {
        if request.uri().path() == "/from" {
            http::Response::builder().status(302).header("location", "/to").body("".into()).unwrap()
        } else {
            http::Response::new("arrived".into())
        }
    })
    .await;
    cluster.apply(vec![route("data.test/*", None, Some(&upstream.url()))]).await;
    cluster.deploy("fetch", &fixture("fetch")).await;
    let ask = async |mode: &str| {
        cluster.send(Over::Cleartext, client::get("fetch.test", &format!("/?url=http://data.test/from&redirect={mode}"))).await
    };
    let followed = ask("follow").await;
    assert_eq!((followed.status, followed.text().as_str(), followed.header("x-fetched")), (200, "arrived", "http://data.test/to"));
    assert_eq!(ask("manual").await.status, 302);
    assert_eq!(ask("error").await.status, 599);
}
