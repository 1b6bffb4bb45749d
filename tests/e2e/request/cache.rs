//! The cache in front of upstreams.

use std::sync::atomic::{AtomicUsize, Ordering};

use selvedge_origin::api::wire::RouteSpec;
use selvedge_origin::registry::{HealthCheck, Server};
use selvedge_tests::client::{self, Over};
use selvedge_tests::{Cluster, Upstream, fixture, route};

async fn behind(
    answer: impl Fn(http::Request<bytes::Bytes>) -> http::Response<bytes::Bytes> + Send + Sync + 'static,
) -> (Cluster, Upstream) {
    let cluster = Cluster::start(1).await;
    let upstream = Upstream::start(answer).await;
    cluster.apply(vec![route("site.test/*", None, Some(&upstream.url()))]).await;
    (cluster, upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_answer_is_served_without_the_upstream_and_says_so() {
    let (cluster, upstream) = behind(|_| http::Response::builder().header("cache-control", "max-age=60").body("x".into()).unwrap()).await;
    let first = cluster.get("site.test", "/").await;
    assert!(
        first.header("cache-status").contains("fwd=uri-miss") && first.header("cache-status").contains("stored"),
        "{:?}",
        first.headers
    );
    for over in [Over::Cleartext, Over::Cleartext] {
        let hit = cluster.send(over, client::get("site.test", "/")).await;
        assert!(hit.header("cache-status").contains("hit"), "{:?}", hit.headers);
        assert!(!hit.header("age").is_empty(), "{:?}", hit.headers);
    }
    assert_eq!(upstream.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_is_another_entry() {
    let (cluster, upstream) = behind(|request| {
        let host = request.headers()["host"].to_str().unwrap_or_default().to_owned();
        http::Response::builder().header("cache-control", "max-age=60").body(host.into()).unwrap()
    })
    .await;
    cluster.apply(vec![route("/*", None, Some(&upstream.url()))]).await;
    let (one, two) = (cluster.get("one.test", "/").await.text(), cluster.get("two.test", "/").await.text());
    assert_ne!(one, two);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_freshness_is_not_kept() {
    let (cluster, upstream) = behind(|_| http::Response::new("x".into())).await;
    cluster.get("site.test", "/").await;
    cluster.get("site.test", "/").await;
    assert_eq!(upstream.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_varies_is_kept_apart() {
    let (cluster, upstream) = behind(|request| {
        let language = request.headers().get("accept-language").cloned().unwrap_or_else(|| http::HeaderValue::from_static("none"));
        http::Response::builder()
            .header("cache-control", "max-age=60")
            .header("vary", "accept-language")
            .body(bytes::Bytes::copy_from_slice(language.as_bytes()))
            .unwrap()
    })
    .await;
    let ask = async |language: &'static str| {
        let mut request = client::get("site.test", "/");
        request.headers_mut().insert("accept-language", http::HeaderValue::from_static(language));
        cluster.send(Over::Cleartext, request).await.text()
    };
    for _ in 0..2 {
        assert_eq!(ask("de").await, "de");
        assert_eq!(ask("fr").await, "fr");
    }
    assert_eq!(upstream.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_it_gets_304() {
    let (cluster, upstream) =
        behind(|_| http::Response::builder().header("cache-control", "max-age=60").header("etag", "\"1\"").body("x".into()).unwrap()).await;
    cluster.get("site.test", "/").await;
    let mut request = client::get("site.test", "/");
    request.headers_mut().insert("if-none-match", "\"1\"".parse().unwrap());
    let answer = cluster.send(Over::Cleartext, request).await;
    assert_eq!((answer.status, answer.body.len(), upstream.asked()), (304, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_is_validated_not_fetched_again() {
    static FULL: AtomicUsize = AtomicUsize::new(0);
    let (cluster, upstream) = behind(|request| {
        let answer = http::Response::builder().header("cache-control", "max-age=0").header("etag", "\"1\"");
        if request.headers().contains_key("if-none-match") {
            return answer.status(304).body("".into()).unwrap();
        }
        FULL.fetch_add(1, Ordering::SeqCst);
        answer.body("x".into()).unwrap()
    })
    .await;
    for _ in 0..3 {
        let answer = cluster.get("site.test", "/").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "x"));
    }
    assert_eq!((upstream.asked(), FULL.load(Ordering::SeqCst)), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_cost_one_fetch() {
    let (cluster, upstream) = behind(|_| {
        std::thread::sleep(std::time::Duration::from_millis(200)); // a slow upstream, so that all requests meet
        http::Response::builder().header("cache-control", "max-age=60").body("x".into()).unwrap()
    })
    .await;
    let asks = (0..20).map(|_| cluster.get("site.test", "/"));
    for answer in futures::future::join_all(asks).await {
        assert_eq!((answer.status, answer.text().as_str()), (200, "x"));
    }
    assert_eq!(upstream.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_cached_only_where_its_route_says_so() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("plain", &fixture("cached")).await;
    let mut with_cache = route("kept.test/*", Some("kept"), None);
    with_cache.cache.enabled = Some(true);
    let deploy = selvedge_tests::Deploy { routes: Some(vec![with_cache]), ..Default::default() };
    cluster.deploy_with("kept", &fixture("cached"), deploy).await;
    let asked_twice = async |host: &'static str| (cluster.get(host, "/").await.text(), cluster.get(host, "/").await.text());
    let (first, second) = asked_twice("plain.test").await;
    assert_ne!(first, second, "the worker ran twice");
    let (first, second) = asked_twice("kept.test").await;
    assert_eq!(first, second, "the second answer is the stored one");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_all_servers_of_an_upstream_are_down_what_is_stored_stands_in_as_far_as_it_may() {
    let answer = |request: http::Request<bytes::Bytes>| {
        let control = if request.uri().path() == "/strict" { "max-age=1, must-revalidate" } else { "max-age=1" };
        http::Response::builder().header("cache-control", control).body("page".into()).unwrap()
    };
    let (one, two) = (Upstream::start(answer).await, Upstream::start(answer).await);
    let servers = [&one, &two].map(|server| Server::at(server.url())).to_vec();
    let health = Some(HealthCheck { interval_ms: 100, up_after: 1, down_after: 1, ..HealthCheck::default() });
    let upstream = selvedge_origin::registry::Upstream { name: Some("shop".into()), servers, health, ..Default::default() };
    let cluster = Cluster::start(1).await;
    cluster.apply(vec![RouteSpec { upstream: Some(upstream), ..route("site.test/*", None, None) }]).await;
    for path in ["/strict", "/lenient"] {
        assert_eq!(cluster.get("site.test", path).await.text(), "page");
    }
    drop(one);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    for path in ["/strict", "/lenient"] {
        assert_eq!(cluster.get("site.test", path).await.status, 200, "{path}: the other one answers");
    }
    drop(two);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let mut said = std::collections::BTreeSet::new();
    // While they are found out to be down, and when they are known to be.
    for round in 0..20 {
        let stale = cluster.get("site.test", "/lenient").await;
        assert_eq!((stale.status, stale.text().as_str()), (200, "page"), "{round}");
        assert!(stale.header("cache-status").ends_with("detail=stale-if-error"), "{round}: {:?}", stale.headers);
        let strict = cluster.get("site.test", "/strict").await;
        assert_eq!(strict.status, 504, "{round}: {:?}", strict.headers);
        said.insert(strict.header("proxy-status").split("; ").nth(1).unwrap_or_default().to_owned());
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    assert!(said.contains("error=destination_unavailable"), "{said:?}");
    assert_eq!(cluster.get("site.test", "/never").await.status, 503, "nothing is stored");
}
