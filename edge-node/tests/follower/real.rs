//! The real registry: what it says, a node runs.

use std::time::Duration;

use bytes::Bytes;
use selvedge_edge::deployments::{FollowerConfig, Link};
use selvedge_origin::api::wire::{NewDeployment, NewVersion, NodeState, Promoted, Rollback, WorkerNodes};
use selvedge_origin::bundle::{ModuleKind, PackModule, pack};
use selvedge_origin::client::Client;
use selvedge_origin::registry::{Share, VersionRecord};
use selvedge_origin::{Origin, OriginConfig};

use crate::registry::TestNode;

pub(crate) fn config(origin: &Origin, data: &std::path::Path, name: &str) -> FollowerConfig {
    FollowerConfig {
        origin: Some(origin.url()),
        token_file: Some(origin.node_token_path()),
        data: data.to_path_buf(),
        name: name.parse().unwrap(),
        region: "here".into(),
        address: Some("127.0.0.1:443".into()),
        peer: None,
        peers: std::sync::Arc::default(),
    }
}

/// What `selvedge deploy` does.
async fn deploy(client: &Client, text: &str) -> (VersionRecord, Promoted) {
    let module = PackModule {
        specifier: "index.js".into(),
        kind: ModuleKind::EsModule,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
        source_map: None,
    };
    let packed = pack("index.js", vec![module]).unwrap();
    client.upload(&packed).await.unwrap();
    let version = NewVersion {
        bundle: packed.digest.clone(),
        cordon: None,
        vars: Default::default(),
        compatibility_date: "2026-01-01".into(),
        compatibility_flags: Vec::new(),
        cpu_ms: None,
        subrequests_max: None,
        message: None,
        request_id: None,
    };
    let version = client.create_version(&"shop".parse().unwrap(), &version).await.unwrap();
    let route = serde_json::from_value(serde_json::json!({ "pattern": "shop.example/*" })).unwrap();
    let deployment = NewDeployment {
        versions: vec![Share { version: version.id.clone(), percentage: 100.0 }],
        routes: Some(vec![route]),
        take_over: false,
        message: None,
        request_id: None,
    };
    let promoted = client.promote(&"shop".parse().unwrap(), &deployment).await.unwrap();
    (version, promoted)
}

/// Waits as `selvedge deploy` does.
async fn settled(client: &Client, seq: u64) -> WorkerNodes {
    let mut seen = None;
    for _ in 0..20 {
        let nodes = client.worker_nodes(&"shop".parse().unwrap(), seq, Duration::from_secs(5), seen.as_ref()).await.unwrap();
        if nodes.settled {
            return nodes;
        }
        seen = Some(nodes);
    }
    panic!("not settled: {seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_reaches_every_node_over_cleartext_and_over_tls() {
    for force_tls in [false, true] {
        let (home, data) = (tempfile::tempdir().unwrap(), [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]);
        let origin = Origin::start(OriginConfig { force_tls, ..OriginConfig::loopback(home.path()) }).await.unwrap();
        let client = Client::connect(&origin.url(), origin.admin_token()).unwrap();
        let first = TestNode::start(config(&origin, data[0].path(), "first")).await;
        let second = TestNode::start(config(&origin, data[1].path(), "second")).await;
        for node in [&first, &second] {
            node.until(|status| status.link == Link::Following).await;
        }
        let mut slowest = 0;
        for round in 0..10 {
            let (version, promoted) = deploy(&client, &format!("export default {round}")).await;
            let nodes = settled(&client, promoted.seq).await;
            assert_eq!(nodes.nodes.iter().filter(|node| node.state == NodeState::Active).count(), 2, "{nodes:#?}");
            slowest = nodes.nodes.iter().filter_map(|node| node.ms).max().unwrap_or_default().max(slowest);
            for node in [&first, &second] {
                assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()));
            }
        }
        assert!(slowest < 10_000, "a deploy took {slowest} ms");
        origin.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_deploy_is_named_and_a_rollback_is_followed() {
    let (home, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let origin = Origin::start(OriginConfig::loopback(home.path())).await.unwrap();
    let client = Client::connect(&origin.url(), origin.admin_token()).unwrap();
    let node = TestNode::start(config(&origin, data.path(), "first")).await;
    let (good, promoted) = deploy(&client, "export default {}").await;
    settled(&client, promoted.seq).await;
    let (_, promoted) = deploy(&client, "throw 1").await;
    let nodes = settled(&client, promoted.seq).await;
    let said = nodes.nodes.first().unwrap();
    assert_eq!(said.state, NodeState::Refused, "{nodes:#?}");
    assert!(said.reason.as_ref().is_some_and(|reason| reason.contains("SyntaxError: as asked")), "{nodes:#?}");
    assert_eq!(node.serves("shop").as_deref(), Some(good.id.as_str()));
    let rolled_back = client.rollback(&"shop".parse().unwrap(), &Rollback::default()).await.unwrap();
    let nodes = settled(&client, rolled_back.seq).await;
    assert_eq!(nodes.nodes.first().unwrap().state, NodeState::Active, "{nodes:#?}");
    assert_eq!(node.serves("shop").as_deref(), Some(good.id.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_restarts_finds_its_nodes_back() {
    let (home, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let origin = Origin::start(OriginConfig::loopback(home.path())).await.unwrap();
    let listen = origin.address();
    let client = Client::connect(&origin.url(), origin.admin_token()).unwrap();
    let node = TestNode::start(config(&origin, data.path(), "first")).await;
    let (version, promoted) = deploy(&client, "export default {}").await;
    settled(&client, promoted.seq).await;
    origin.shutdown().await;
    node.until(|status| matches!(status.link, Link::Disconnected(_))).await;
    assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()));
    let _origin = Origin::start(OriginConfig { listen, ..OriginConfig::loopback(home.path()) }).await.unwrap();
    node.until(|status| status.link == Link::Following).await;
    let (version, promoted) = deploy(&client, "export default 2").await;
    settled(&client, promoted.seq).await;
    assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_the_registry_removes_knows_it_also_after_a_restart() {
    let (home, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let origin = Origin::start(OriginConfig::loopback(home.path())).await.unwrap();
    let client = Client::connect(&origin.url(), origin.admin_token()).unwrap();
    let node = TestNode::start(config(&origin, data.path(), "first")).await;
    let (version, promoted) = deploy(&client, "export default {}").await;
    settled(&client, promoted.seq).await;
    client.remove_node(&"first".parse().unwrap(), &Default::default()).await.unwrap();
    node.until(|status| matches!(status.link, Link::Removed(_))).await;
    assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()));
    node.follower.stop().await;
    let node = TestNode::start(config(&origin, data.path(), "first")).await;
    node.until(|status| matches!(status.link, Link::Removed(_))).await;
    assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()));
}
