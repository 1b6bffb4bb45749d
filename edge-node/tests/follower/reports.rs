//! What a node's reports cost: what has changed, not what it runs.

use std::time::Duration;

use selvedge_edge::deployments::Link;

use crate::registry::{Registry, TestNode, promotion};

const WORKERS: usize = 2_000;
/// A worker's line, its quotes and its ids.
const LINE_BYTES: usize = 200;
/// What a report says beside its lines.
const REPORT_BYTES: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_workers_are_reported_once_as_pending_and_once_as_settled_and_then_no_more() {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    for number in 0..WORKERS {
        registry.append(promotion(&registry.version(&format!("w{number}"), "export default 1")));
    }
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    let all = registry.reported(|heard| heard.seq() == WORKERS as u64 && heard.unsettled.is_empty()).await;
    println!("{} reports, {} lines, {} bytes until {WORKERS} workers were active", all.reports, all.lines, all.bytes);
    assert!(all.lines <= 2 * WORKERS, "{} lines", all.lines);
    assert!(all.bytes <= all.lines * LINE_BYTES + all.reports * REPORT_BYTES, "{} bytes", all.bytes);
    assert_eq!(all.whole, 1);

    let one_more = registry.version("w7", "export default 2");
    registry.promote(&one_more);
    assert_eq!(registry.settled("w7", &one_more).await, None);
    let bad = registry.version("w8", "throw 1");
    registry.promote(&bad);
    assert!(registry.settled("w8", &bad).await.is_some());
    let after = registry.heard.borrow().clone();
    println!("{} lines and {} bytes for a deployment and a refusal", after.lines - all.lines, after.bytes - all.bytes);
    assert!(after.lines - all.lines <= 4 && after.bytes - all.bytes <= 4 * LINE_BYTES + (after.reports - all.reports) * REPORT_BYTES);
    // Nothing happens: the next report is the one of every 5 s.
    let steady = registry.reported(|heard| heard.reports > after.reports && heard.lines == after.lines).await;
    assert!(steady.last_bytes <= REPORT_BYTES, "{} bytes", steady.last_bytes);

    // A registry that knows nothing any more is told what is not as it should be, and nothing else.
    registry.heard.send_modify(|heard| heard.forget());
    let told = registry.reported(|heard| heard.seq() == WORKERS as u64 + 2).await;
    assert_eq!((told.unsettled.len(), told.whole - steady.whole), (1, 1));
    assert!(told.bytes - steady.bytes <= LINE_BYTES + 2 * REPORT_BYTES, "{} bytes", told.bytes - steady.bytes);
    node.follower.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_with_what_it_cannot_load_does_not_say_that_it_runs() {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    let version = registry.version("shop", "export default 1");
    registry.promote(&version);
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    assert_eq!(registry.settled("shop", &version).await, None);
    node.until(|status| status.link == Link::Following).await;
    node.follower.stop().await;
    std::fs::remove_dir_all(data.path().join("bundles")).unwrap();
    registry.heard.send_modify(|heard| heard.forget());
    registry.book.lock().blobs_away = usize::MAX;
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    let heard = registry.reported(|heard| heard.seq() == 1).await;
    assert_eq!((node.serves("shop"), heard.unsettled.len()), (None, 1), "pending");
    registry.book.lock().blobs_away = 0;
    assert_eq!(registry.settled("shop", &version).await, None);
    assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wanted_again_and_still_runs_is_settled() {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    let (good, bad) = (registry.version("shop", "export default 1"), registry.version("shop", "throw 1"));
    registry.promote(&good);
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    assert_eq!(registry.settled("shop", &good).await, None);
    for _ in 0..2 {
        registry.promote(&bad);
        assert!(registry.settled("shop", &bad).await.is_some());
        // The deployment that runs, once more: nothing has to be activated.
        registry.promote(&good);
        assert_eq!(registry.settled("shop", &good).await, None);
        assert_eq!(node.serves("shop").as_deref(), Some(good.id.as_str()));
    }
    let warmed = node.runs.warmed.lock().iter().filter(|version| **version == good.id.to_string()).count();
    assert_eq!(warmed, 1);
    tokio::time::timeout(Duration::from_secs(5), node.follower.stop()).await.unwrap();
}
