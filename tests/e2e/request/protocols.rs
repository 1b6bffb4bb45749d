//! One path for three protocols.

use selvedge_tests::client::{self, Over};
use selvedge_tests::{Cluster, fixture, route};

const ALL: [Over; 4] = [Over::Cleartext, Over::H1, Over::H2, Over::H3];

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_answers_over_every_protocol() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("hello", &fixture("hello")).await;
    for over in ALL {
        let answer = cluster.send(over, client::get("hello.test", "/there")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello from /there\n"), "{over:?}");
        assert_eq!(answer.header("content-type"), "text/plain", "{over:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_travel_both_ways_over_every_protocol() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("echo", &fixture("echo")).await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    for over in ALL {
        let answer = cluster.send(over, client::request("POST", "echo.test", "/", body.clone())).await;
        assert_eq!(answer.status, 200, "{over:?}");
        assert!(answer.body == body, "{over:?}: {} bytes came back", answer.body.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_the_fields_and_no_body() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("hello", &fixture("hello")).await;
    for over in ALL {
        let answer = cluster.send(over, client::request("HEAD", "hello.test", "/", "")).await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{over:?}");
        assert_eq!(answer.header("content-type"), "text/plain", "{over:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_over_tcp_announces_http3() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("hello", &fixture("hello")).await;
    let port = cluster.edges[0].https.port();
    for over in [Over::H1, Over::H2] {
        let answer = cluster.send(over, client::get("hello.test", "/")).await;
        assert!(answer.header("alt-svc").contains(&format!("h3=\":{port}\"")), "{over:?}: {:?}", answer.headers);
    }
    assert_eq!(cluster.get("hello.test", "/").await.header("alt-svc"), "", "cleartext announces nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_route_the_answer_is_404_with_the_reason() {
    let cluster = Cluster::start(1).await;
    for over in [Over::Cleartext, Over::H2] {
        let answer = cluster.send(over, client::get("localhost", "/")).await;
        assert_eq!(answer.status, 404);
        assert!(answer.header("proxy-status").starts_with("node-0"), "{:?}", answer.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_can_send_cleartext_to_https() {
    let cluster = Cluster::start(1).await;
    let mut secure = route("secure.test/*", None, Some("http://127.0.0.1:9"));
    secure.redirect_to_https = true;
    cluster.apply(vec![secure]).await;
    let answer = cluster.get("secure.test", "/a?b=c").await;
    assert!([301, 308].contains(&answer.status), "{}", answer.status);
    assert!(answer.header("location").starts_with("https://secure.test"), "{:?}", answer.headers);
    assert!(answer.header("location").ends_with("/a?b=c"), "{:?}", answer.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_specific_route_wins() {
    let cluster = Cluster::start(1).await;
    let upstream =
        selvedge_tests::Upstream::start(|request| http::Response::new(format!("upstream {}", request.uri().path()).into())).await;
    cluster.deploy("hello", &fixture("hello")).await;
    cluster
        .apply(vec![route("hello.test/assets/*", None, Some(&upstream.url())), route("/everywhere/*", None, Some(&upstream.url()))])
        .await;
    assert_eq!(cluster.get("hello.test", "/x").await.text(), "hello from /x\n");
    assert_eq!(cluster.get("hello.test", "/assets/x").await.text(), "upstream /assets/x");
    assert_eq!(cluster.get("any.test", "/everywhere/x").await.text(), "upstream /everywhere/x");
    assert_eq!(
        cluster.get("HELLO.test:1234", "/y").await.text(),
        "hello from /y\n",
        "the port and the case of the authority do not matter"
    );
}
