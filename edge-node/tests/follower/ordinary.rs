//! A registry that tells the truth, or is away.

use std::os::unix::fs::PermissionsExt;

use http::StatusCode;
use selvedge_edge::deployments::{FollowError, Follower, FollowerConfig, Link};
use selvedge_edge::routes::ActiveRoutes;
use selvedge_origin::api::wire::WorkerState;
use selvedge_origin::registry::Change;
use selvedge_runtime::Outcome;
use tokio::net::TcpListener;

use crate::heard::Heard;
use crate::registry::{Registry, Runs, TestNode, promotion};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_joins_takes_the_snapshot_and_runs_what_is_wanted() {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    let version = registry.version("shop", "export default {}");
    registry.promote(&version);
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    assert_eq!(registry.settled("shop", &version).await, None, "active");
    assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()));
    assert_eq!(*node.runs.warmed.lock(), [version.id.to_string()], "warmed before it was active");
    let report = registry.reported(|report| report.seq() == 1).await;
    assert_eq!(report.position.as_ref(), Some(&registry.book.lock().position));
    for file in ["node.key", "node.json", "state.json"] {
        let mode = std::fs::metadata(data.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_promotion_takes_the_traffic_and_a_deletion_ends_it() {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    for round in 0..20 {
        let version = registry.version("shop", &format!("export default {round}"));
        registry.promote(&version);
        assert_eq!(registry.settled("shop", &version).await, None);
        assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()), "reported active only when the route has moved");
    }
    registry.commit(vec![Change::WorkerDeleted { worker: "shop".parse().unwrap() }]);
    let deleted = registry.book.lock().position.seq;
    registry.reported(|report| report.seq() == deleted && report.unsettled.is_empty()).await;
    assert_eq!(node.serves("shop"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_start_is_refused_and_the_old_one_goes_on() {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    let (good, bad) = (registry.version("shop", "export default {}"), registry.version("shop", "throw 1"));
    registry.promote(&good);
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    registry.settled("shop", &good).await;
    registry.promote(&bad);
    let said = registry.settled("shop", &bad).await.unwrap();
    assert!(matches!(&said.state, WorkerState::Refused(reason) if reason.contains("SyntaxError: as asked")), "{said:?}");
    assert_eq!(said.active, std::slice::from_ref(&good.id));
    assert_eq!(node.serves("shop").as_deref(), Some(good.id.as_str()));

    // Also after a restart without the registry; then a version that works takes over.
    node.follower.stop().await;
    let config = TestNode::config(&registry, data.path());
    let alone = TestNode::start(FollowerConfig { origin: None, token_file: None, ..config.clone() }).await;
    assert_eq!(alone.serves("shop").as_deref(), Some(good.id.as_str()));
    alone.follower.stop().await;
    let node = TestNode::start(config).await;
    let better = registry.version("shop", "export default 2");
    registry.promote(&better);
    assert_eq!(registry.settled("shop", &better).await, None);
    assert_eq!(node.serves("shop").as_deref(), Some(better.id.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_version_that_cannot_start_takes_no_route() {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    let bad = registry.version("shop", "throw 1");
    registry.promote(&bad);
    assert!(registry.settled("shop", &bad).await.is_some());
    assert_eq!(node.serves("shop"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_from_its_disk_while_the_registry_is_away_and_catches_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start_on(listener);
    let version = registry.version("shop", "export default {}");
    registry.promote(&version);
    let config = TestNode::config(&registry, data.path());
    let node = TestNode::start(config.clone()).await;
    registry.settled("shop", &version).await;
    node.until(|status| status.link == Link::Following).await;
    let key = std::fs::read(data.path().join("node.key")).unwrap();
    node.follower.stop().await;

    registry.book.lock().refusal = Some((StatusCode::SERVICE_UNAVAILABLE, "away"));
    let node = TestNode::start(FollowerConfig { token_file: None, ..config }).await;
    assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()), "at once, without the registry");
    assert!(node.runs.warmed.lock().is_empty());
    let next = registry.version("shop", "export default 2");
    registry.append(promotion(&next));
    registry.book.lock().refusal = None;
    registry.settled("shop", &next).await;
    assert_eq!(node.serves("shop").as_deref(), Some(next.id.as_str()));
    assert_eq!(std::fs::read(data.path().join("node.key")).unwrap(), key, "the identity stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_joined_joins_as_soon_as_the_registry_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start_on(listener);
    registry.book.lock().refusal = Some((StatusCode::SERVICE_UNAVAILABLE, "away"));
    let version = registry.version("shop", "export default {}");
    registry.append(promotion(&version));
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    node.until(|status| matches!(&status.link, Link::Disconnected(reason) if reason.contains("away"))).await;
    assert_eq!(node.serves("shop"), None);
    registry.book.lock().refusal = None;
    registry.settled("shop", &version).await;
    assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_refuses_the_join_fails_the_start_by_name() {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    registry.book.lock().refusal = Some((StatusCode::CONFLICT, "node_name_taken"));
    let config = TestNode::config(&registry, data.path());
    let started = Follower::start(config.clone(), Runs::default(), ActiveRoutes::default().into(), Default::default()).await;
    let error = started.err().expect("the name is taken");
    assert!(matches!(&error, FollowError::Join { reason, .. } if reason.contains("node_name_taken")), "{error}");
    let started =
        Follower::start(FollowerConfig { token_file: None, ..config }, Runs::default(), ActiveRoutes::default().into(), Default::default())
            .await;
    assert!(matches!(started.err(), Some(FollowError::Token { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_comes_back_with_an_earlier_clock_is_heard() {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    node.until(|status| status.link == Link::Following).await;
    let position = registry.book.lock().position.clone();
    registry.say(registry.signer().heartbeat(&position, 1 << 40).unwrap());
    registry.say("nonsense, so that the feed is opened again\n".into());
    // Disconnected for a moment only: but it was that before it opened the second feed, and is so until it has heard something there.
    node.until(|_| registry.book.lock().opened == 2).await;
    node.until(|status| status.link == Link::Following).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_follows_no_more_and_goes_on_serving() {
    for by_feed in [true, false] {
        let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
        let version = registry.version("shop", "export default {}");
        registry.promote(&version);
        let node = TestNode::start(TestNode::config(&registry, data.path())).await;
        registry.settled("shop", &version).await;
        if by_feed {
            registry.commit(vec![Change::NodeRemoved { node: "node-1".parse().unwrap() }]);
        } else {
            registry.book.lock().refusal = Some((StatusCode::UNAUTHORIZED, "node_revoked"));
            registry.say("nonsense, so that the feed is opened again\n".into());
        }
        node.until(|status| matches!(status.link, Link::Removed(_))).await;
        assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_cannot_be_fetched_now_is_fetched_later() {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    // The last two: its clock is wrong for a while, or a body did not come in time.
    for away_with in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::UNAUTHORIZED, StatusCode::REQUEST_TIMEOUT] {
        let version = registry.version("shop", &format!("export default '{away_with}'"));
        {
            let mut book = registry.book.lock();
            (book.blobs_away, book.away_with) = (2, away_with);
        }
        registry.promote(&version);
        assert_eq!(registry.settled("shop", &version).await, None, "{away_with}");
        assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_versions_own_fault_is_said_and_tried_again_until_it_runs() {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    let version = registry.version("shop", "export default {}");
    node.runs.hindered.lock().extend([Outcome::LoadShed, Outcome::RunnerLost, Outcome::InternalError, Outcome::LoadShed]);
    registry.promote(&version);
    let why = |heard: &Heard| heard.unsettled.values().next().and_then(|line| line.state.reason().map(str::to_owned));
    let waits = registry.reported(|heard| why(heard).is_some()).await;
    let line = waits.unsettled.values().next().unwrap();
    assert!(matches!(&line.state, WorkerState::Waiting(reason) if reason.contains("as asked")), "{line:?}");
    registry.reported(|heard| heard.seq() == 1 && heard.unsettled.is_empty()).await;
    assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()));
    assert_eq!(node.runs.warmed.lock().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_was_damaged_on_disk_is_fetched_again() {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    let version = registry.version("shop", "export default {}");
    registry.promote(&version);
    let config = TestNode::config(&registry, data.path());
    let node = TestNode::start(config.clone()).await;
    registry.settled("shop", &version).await;
    node.until(|status| status.link == Link::Following).await;
    node.follower.stop().await;
    for file in std::fs::read_dir(data.path().join("bundles")).unwrap() {
        std::fs::write(file.unwrap().path(), "damaged").unwrap();
    }
    let node = TestNode::start(config).await;
    node.until(|status| status.link == Link::Following && status.unsettled.is_empty()).await;
    assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_of_a_large_registry_activates_everything() {
    const WORKERS: usize = 1_000;
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    for number in 0..WORKERS {
        // Two modules for all of them: what is pulled once is not pulled again.
        let version = registry.version(&format!("w{number}"), ["export default 1", "export default 2"][number % 2]);
        registry.append(promotion(&version));
    }
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    registry.reported(|report| report.seq() == WORKERS as u64 && report.unsettled.is_empty()).await;
    assert_eq!(node.routes.load().len(), WORKERS);
    node.follower.stop().await;
    let alone = TestNode::start(FollowerConfig { origin: None, ..TestNode::config(&registry, data.path()) }).await;
    assert_eq!(alone.routes.load().len(), WORKERS);
    assert!(alone.serves("w999").is_some());
}
