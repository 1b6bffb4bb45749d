//! Promote, roll back, delete.

use selvedge_origin::api::wire::{NodeState, Rollback};
use selvedge_tests::{Cluster, Deploy, fixture};

fn says(text: &str) -> String {
    format!("export default {{ fetch: () => new Response('{text}') }};")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_answers_with_the_new_version_once_it_says_so() {
    let cluster = Cluster::start(3).await;
    for text in ["one", "two", "three"] {
        cluster.deploy("page", &says(text)).await;
        for edge in &cluster.edges {
            let answer = edge.send(selvedge_tests::client::Over::Cleartext, selvedge_tests::client::get("page.test", "/")).await.unwrap();
            assert_eq!(answer.text(), text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_run_is_refused_and_the_old_one_goes_on() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("page", &says("good")).await;
    let broken = [
        ("a syntax error", fixture("syntax_error")),
        ("an exception at start-up", "throw new Error('not today'); export default {};".to_owned()),
        ("no handler", "export const x = 1;".to_owned()),
        ("an import that is not there", "import x from './missing.js'; export default { fetch() { return x; } };".to_owned()),
        ("an endless start-up", "while (true) {} export default {};".to_owned()),
    ];
    for (what, script) in broken {
        let (_, promoted) = cluster.promote("page", &script, Deploy::default()).await;
        let nodes = cluster.settled("page", promoted.seq).await;
        let node = &nodes.nodes[0];
        assert_eq!(node.state, NodeState::Refused, "{what}: {node:?}");
        assert!(node.reason.as_deref().is_some_and(|reason| !reason.is_empty()), "{what}: {node:?}");
        assert_eq!(cluster.get("page.test", "/").await.text(), "good", "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_a_new_deployment_of_an_older_version() {
    let cluster = Cluster::start(1).await;
    let first = cluster.deploy("page", &says("one")).await;
    cluster.deploy("page", &says("two")).await;
    let worker = "page".parse().unwrap();
    let back = Rollback { version: None, message: None, request_id: None };
    let promoted = cluster.client.rollback(&worker, &back).await.expect("there is an older version");
    assert_eq!(promoted.deployment.versions[0].version, first.id);
    cluster.settled("page", promoted.seq).await;
    assert_eq!(cluster.get("page.test", "/").await.text(), "one");
    assert_eq!(cluster.client.deployments(&worker).await.unwrap().deployments.len(), 3, "history is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_worker_answers_no_more() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("page", &says("here")).await;
    cluster.client.delete_worker(&"page".parse().unwrap(), &Default::default()).await.expect("it exists");
    let gone = async || (cluster.get("page.test", "/").await.status == 404).then_some(());
    selvedge_tests::eventually("the route is gone", std::time::Duration::from_secs(10), gone).await;
    let again = cluster.client.delete_worker(&"page".parse().unwrap(), &Default::default()).await;
    assert!(again.unwrap_err().to_string().contains("page"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_picks_up_what_it_missed() {
    let mut cluster = Cluster::start(2).await;
    cluster.deploy("page", &says("one")).await;
    cluster.edges.remove(1).node.drain().await;
    cluster.promote("page", &says("two"), Deploy::default()).await;
    let edge = cluster.start_edge(1, |_| {}).await;
    let caught_up = async || {
        let answer = edge.send(selvedge_tests::client::Over::Cleartext, selvedge_tests::client::get("page.test", "/")).await.ok()?;
        (answer.text() == "two").then_some(())
    };
    selvedge_tests::eventually("the node runs what it missed", std::time::Duration::from_secs(10), caught_up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_learns_nothing_new_and_goes_on() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("page", &says("one")).await;
    cluster.client.remove_node(&"node-0".parse().unwrap(), &Default::default()).await.expect("it exists");
    cluster.promote("page", &says("two"), Deploy::default()).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await; // time in which a node that still followed would change
    assert_eq!(cluster.get("page.test", "/").await.text(), "one");
    assert!(cluster.client.nodes().await.unwrap().is_empty());
}
