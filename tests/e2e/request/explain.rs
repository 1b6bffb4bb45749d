//! What nodes tell of a request that nobody makes.

use std::time::Duration;

use selvedge_origin::api::wire::{Answers, Ask, ExplainAction, ExplainAsk, Explanation, NewQuestion, Told, ToldState};
use selvedge_tests::client::{self, Over};
use selvedge_tests::{Cluster, Upstream, eventually, fixture, route};

async fn ask(cluster: &Cluster, ask: Ask, node: Option<&str>) -> Answers {
    let question = NewQuestion { ask, node: node.map(|name| name.parse().unwrap()), wait_ms: 10_000 };
    cluster.client.question(&question).await.expect("the origin answers")
}

async fn explain(cluster: &Cluster, url: &str, headers: &[(&str, &str)]) -> Vec<Explanation> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let answers = ask(cluster, Ask::Explain(ExplainAsk { url: url.to_owned(), method: "GET".to_owned(), headers }), None).await;
    let explained = |told| if let Some(Told::Explained(explanation)) = told { *explanation } else { panic!("{told:?}") };
    answers.nodes.into_iter().map(|node| explained(node.told)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_tells_what_it_would_do_and_no_upstream_is_asked() {
    let cluster = Cluster::start(2).await;
    let upstream = Upstream::start(|request| {
        let answer = http::Response::builder().header("vary", "x-kind");
        let answer = if request.uri().path() == "/private" {
            answer.header("cache-control", "private")
        } else {
            answer.header("cache-control", "s-maxage=60")
        };
        answer.header("cache-tag", "a,B").header("surrogate-key", "c b").body("page".into()).unwrap()
    })
    .await;
    cluster.apply(vec![route("site.test/*", None, Some(&upstream.url()))]).await;
    cluster.get("site.test", "/x").await;
    cluster.get("site.test", "/private").await;
    assert_eq!(upstream.asked(), 2);

    let told = explain(&cluster, "http://site.test/x", &[]).await;
    let verdicts: Vec<_> = told.iter().map(|node| node.layers[0].verdict.action).collect();
    assert_eq!(verdicts, [ExplainAction::Hit, ExplainAction::Forward]);
    let (here, there) = (&told[0].layers[0], &told[1].layers[0]);
    assert_eq!((here.key.as_str(), there.key.as_str()), ("u http site.test /x", "u http site.test /x"));
    let stored = here.stored.as_ref().expect("it is stored");
    assert_eq!((stored.lifetime_ms, stored.lifetime_from.as_str()), (60_000, "s-maxage"));
    assert_eq!((stored.tags.names.join(" ").as_str(), stored.tags.count), ("a B c", 3));
    assert_eq!(there.verdict.cache_status.as_deref(), Some("node-1; fwd=uri-miss"));
    let other = explain(&cluster, "http://site.test/x", &[("x-kind", "other")]).await;
    assert_eq!(other[0].layers[0].verdict.cache_status.as_deref(), Some("node-0; fwd=vary-miss"));
    let private = explain(&cluster, "http://site.test/private", &[]).await;
    assert_eq!(private[0].layers[0].refusal.as_ref().map(|refusal| refusal.reason.as_str()), Some("private"));
    assert_eq!(private[1].layers[0].refusal, None);
    assert_eq!(upstream.asked(), 2, "nobody was asked");
    // What was told is what happens.
    let hit = cluster.get("site.test", "/x").await;
    assert!(hit.header("cache-status").starts_with("node-0; hit; ttl="), "{:?}", hit.headers);
    let missed = cluster.edges[1].send(Over::Cleartext, client::get("site.test", "/x")).await.expect("an answer");
    assert!(missed.header("cache-status").starts_with("node-1; fwd=uri-miss"), "{:?}", missed.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_away_are_named_and_servers_are_told() {
    let mut cluster = Cluster::start(2).await;
    let upstream = Upstream::start(|_| http::Response::new("page".into())).await;
    cluster.apply(vec![route("site.test/*", None, Some(&upstream.url()))]).await;
    cluster.get("site.test", "/").await;
    let told = ask(&cluster, Ask::Upstreams {}, Some("node-0")).await;
    let [node] = &told.nodes[..] else { panic!("{told:?}") };
    let Some(Told::Upstreams(servers)) = &node.told else { panic!("{told:?}") };
    let server = &servers.servers[0];
    assert_eq!((server.up, server.requests), (true, 1));
    assert!(server.address.starts_with(&upstream.url()), "{server:?}");

    let gone = cluster.edges.pop().expect("two nodes");
    drop(gone);
    let away = async || {
        let states: Vec<_> = ask(&cluster, Ask::Upstreams {}, None).await.nodes.iter().map(|node| node.state).collect();
        (states == [ToldState::Answered, ToldState::Away]).then_some(())
    };
    eventually("the node that is gone is away", Duration::from_secs(20), away).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_keeps_is_told_beside_what_is_in_front_of_it() {
    let cluster = Cluster::start(1).await;
    let mut kept = route("kept.test/*", Some("kept"), None);
    kept.cache.enabled = Some(true);
    let deploy = selvedge_tests::Deploy { routes: Some(vec![kept]), ..Default::default() };
    let version = cluster.deploy_with("kept", &fixture("cached"), deploy).await;
    cluster.get("kept.test", "/").await;
    let told = explain(&cluster, "http://kept.test/", &[]).await.remove(0);
    let places: Vec<_> = told.layers.iter().map(|layer| (layer.place.as_str(), layer.verdict.action)).collect();
    assert_eq!(places, [("route", ExplainAction::Hit), ("caches.default", ExplainAction::Absent)]);
    assert_eq!(told.layers[0].key, format!("w{} http kept.test /", version.id));
}
