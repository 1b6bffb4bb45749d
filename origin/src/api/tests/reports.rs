//! What a report may hold, and what a node gains by lying in one: nothing.

use std::time::Duration;

use super::*;
use crate::api::wire::WorkerState::Refused;
use crate::limits::{NODE_MOVES_BURST, REPORT_LINES_MAX, SHARES_MAX};
use crate::registry::{Epoch, VersionId};

#[tokio::test]
async fn a_position_that_is_not_in_the_log_counts_as_none() {
    let fixture = fixture().await;
    let node = join(&fixture, "edge-1").await;
    let version = upload(&fixture.admin, "shop", "export default 1").await;
    let promoted = fixture.admin.promote(&name("shop"), &all_to(&version, None)).await.expect("promoted");
    let mut feed = node.feed(None, 0).await.expect("the feed");
    let mut verifier = FeedVerifier::new(fixture.origin.admin_token().signing_key, None);
    verifier.accept(&feed.next().await.expect("a line").expect("not the end")).expect("signed");
    let true_one = verifier.position().expect("a snapshot").clone();
    let state = async || {
        let nodes = fixture.admin.worker_nodes(&name("shop"), promoted.seq, Duration::ZERO, None).await.expect("nodes");
        let said = fixture.admin.nodes().await.expect("nodes").remove(0).report.expect("reported");
        (nodes.nodes.first().expect("a node").state, said.seq)
    };
    let lies = [
        Position { epoch: Epoch::generate(), ..true_one.clone() },
        Position { chain: crate::registry::Digest::zero(), ..true_one.clone() },
        Position { seq: true_one.seq + 100, ..true_one.clone() },
        Position { seq: u64::MAX, ..true_one.clone() },
    ];
    for lie in &lies {
        node.report(&report(Some(lie), vec![])).await.expect("heard");
        assert_eq!(state().await, (NodeState::Pending, 0), "{lie:?}");
    }
    node.report(&report(Some(&true_one), vec![])).await.expect("heard");
    assert_eq!(state().await, (NodeState::Active, true_one.seq));
    fixture.origin.shutdown().await;
}

#[tokio::test]
async fn a_report_that_is_too_large_is_refused_by_name() {
    let fixture = fixture().await;
    let node = join(&fixture, "edge-1").await;
    let line = |active: usize| WorkerReport {
        worker: name("shop"),
        deployment: VersionId::generate(),
        state: Refused("no".into()),
        active: vec![VersionId::generate(); active],
    };
    let lines = |count: usize| report(None, vec![line(0); count]);
    let cases = [
        (lines(REPORT_LINES_MAX + 1), "names more than"),
        (NodeReport { settled: vec![name("shop")], ..lines(REPORT_LINES_MAX) }, "names more than"),
        (report(None, vec![line(SHARES_MAX + 1)]), "versions are active"),
        (NodeReport { build: "x".repeat(300), ..lines(0) }, "build"),
        (NodeReport { peer: Some("here".into()), ..lines(0) }, "peer"),
    ];
    for (report, named) in cases {
        let refused = node.report(&report).await.expect_err(named).to_string();
        assert!(refused.contains(named), "{named}: {refused}");
    }
    node.report(&NodeReport { settled: vec![name("shop")], ..lines(REPORT_LINES_MAX - 1) }).await.expect("as many as there may be");
    node.report(&report(None, vec![line(SHARES_MAX)])).await.expect("as many as there may be");
    fixture.origin.shutdown().await;
}

#[tokio::test]
async fn a_node_that_says_something_else_in_every_report_does_not_fill_the_log() {
    let fixture = fixture().await;
    let node = join(&fixture, "edge-1").await;
    let before = fixture.admin.status().await.expect("status").seq;
    for number in 0..100u16 {
        let peer = Some(format!("127.0.0.1:{}", 1_000 + number));
        node.report(&NodeReport { peer, ..report(None, vec![]) }).await.expect("heard");
    }
    let after = fixture.admin.status().await.expect("status").seq;
    assert_eq!(after - before, NODE_MOVES_BURST);
}
