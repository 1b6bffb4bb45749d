//! A registry, or somebody between it and the node, that lies: nothing of it is applied, each lie is named, and what ran goes on.

use std::sync::Arc;

use bytes::Bytes;
use selvedge_edge::deployments::Link;
use selvedge_origin::api::wire::WorkerState;
use selvedge_origin::feed::{FeedSigner, Position};
use selvedge_origin::keys::SigningKey;
use selvedge_origin::registry::{Desired, Digest, Epoch, VersionRecord};

use crate::registry::{Registry, TestNode, bundle, promotion};

/// A node that runs one version of `shop`.
async fn running() -> (Arc<Registry>, tempfile::TempDir, TestNode, VersionRecord) {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    let version = registry.version("shop", "export default {}");
    registry.promote(&version);
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    registry.settled("shop", &version).await;
    node.until(|status| status.link == Link::Following).await;
    (registry, data, node, version)
}

fn replaced(line: &Bytes, from: &str, to: &str) -> Bytes {
    let text = String::from_utf8(line.to_vec()).unwrap();
    assert!(text.contains(from), "{text}");
    text.replacen(from, to, 1).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_do_not_verify_change_nothing_are_named_and_the_true_ones_still_arrive() {
    let (registry, _data, node, version) = running().await;
    let stranger = SigningKey::generate().unwrap();
    let here = registry.book.lock().position.clone();
    let next = Position { seq: here.seq + 1, ..here.clone() };
    let elsewhere = Position { epoch: Epoch::generate(), ..next.clone() };
    let rewound = Position { seq: 0, chain: Digest::zero(), ..here.clone() };
    let empty_entry = serde_json::json!({ "at_ms": 0, "actor": "admin", "reason": null, "changes": [] }).to_string();
    let evil = registry.version("shop", "export default 'evil'");
    let true_line = registry.unsaid(promotion(&evil));
    let sent_twice = registry.signer().entry(&here, empty_entry.as_bytes()).unwrap();
    let gap = registry.signer().entry(&Position { seq: here.seq + 2, ..here.clone() }, empty_entry.as_bytes()).unwrap();
    let lies = [
        ("signed by another key", FeedSigner::new(&stranger).entry(&next, empty_entry.as_bytes()).unwrap(), "forged"),
        ("a snapshot signed by another key", FeedSigner::new(&stranger).reset(&next, &Desired::default()).unwrap(), "forged"),
        ("changed on the way", replaced(&true_line, "shop.example", "bank.example"), "tampered"),
        ("unsigned", replaced(&true_line, "\"sig\"", "\"gis\""), "malformed"),
        ("an entry again", sent_twice, "reordered"),
        ("an entry too early", gap, "reordered"),
        ("of another log", registry.signer().entry(&elsewhere, empty_entry.as_bytes()).unwrap(), "epoch"),
        ("does not follow", registry.signer().entry(&next, empty_entry.as_bytes()).unwrap(), "does not follow"),
        ("an older snapshot", registry.signer().reset(&rewound, &Desired::default()).unwrap(), "older"),
        ("nonsense", Bytes::from_static(b"{\"epoch\":1}\n"), "malformed"),
        ("not text", Bytes::from_static(b"\xff\xfe\0\n"), "malformed"),
    ];
    for (nth, (what, lie, named)) in (1..).zip(lies) {
        node.until(|status| status.link == Link::Following).await;
        registry.say(lie);
        let report = registry.reported(|report| report.feed_refusal.as_ref().is_some_and(|reason| reason.contains(named))).await;
        assert_eq!(report.seq(), here.seq, "{what}");
        assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()), "{what}");
        // The feed is opened again where the node stands, and its heartbeat clears the refusal, but nobody forgets that there was one.
        let report = registry.reported(|report| report.feed_refusal.is_none()).await;
        let last = report.last_refusal.expect("it is remembered");
        assert!(last.reason.contains(named) && last.count == nth, "{what}: {last:?}");
    }
    let after = registry.version("shop", "export default 'after'");
    node.until(|status| status.link == Link::Following).await;
    registry.promote(&after);
    assert_eq!(registry.settled("shop", &after).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_that_are_not_what_their_record_says_are_refused_and_the_old_version_goes_on() {
    let (registry, _data, node, version) = running().await;
    let other = registry.version("other", "export default 'other'");
    let mut lies = Vec::new();

    let packed = bundle("export default 'tampered'");
    let module = packed.manifest.modules[0].blob.digest.clone();
    let mut blobs = packed.blobs.clone();
    blobs.insert(module.clone(), "export default 'TAMPERED'".into());
    registry.book.lock().blobs.extend(blobs);
    lies.push((registry.version_of("shop", &packed), "tampered"));

    let packed = bundle("export default 'truncated'");
    let module = packed.manifest.modules[0].blob.digest.clone();
    let mut blobs = packed.blobs.clone();
    blobs.insert(module.clone(), "export default 'trun".into());
    registry.book.lock().blobs.extend(blobs);
    lies.push((registry.version_of("shop", &packed), "truncated"));

    let packed = bundle("export default 'manifest'");
    registry.book.lock().blobs.extend(packed.blobs.clone());
    registry.book.lock().blobs.insert(packed.digest.clone(), "{}".into());
    lies.push((registry.version_of("shop", &packed), "manifest"));

    let packed = bundle("export default 'missing'");
    lies.push((registry.version_of("shop", &packed), "no_blob"));

    let mut unsigned = registry.version("shop", "export default 'unsigned'");
    unsigned.signature = "0".repeat(128).parse().unwrap();
    lies.push((unsigned, "has not signed"));

    let mut renamed = registry.version("shop", "export default 'renamed'");
    renamed.bundle = other.bundle.clone();
    renamed.signature = other.signature;
    lies.push((renamed, "has not signed"));

    for (lie, named) in lies {
        registry.promote(&lie);
        let said = registry.settled("shop", &lie).await.unwrap();
        assert!(matches!(&said.state, WorkerState::Refused(reason) if reason.contains(named)), "{named}: {said:?}");
        assert_eq!(said.active, std::slice::from_ref(&version.id), "{named}");
        assert_eq!(node.serves("shop").as_deref(), Some(version.id.as_str()), "{named}");
        assert!(!node.runs.warmed.lock().contains(&lie.id.to_string()), "{named}: never loaded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_bundle_under_another_workers_name_is_refused() {
    let (registry, _data, node, _) = running().await;
    let vulnerable = registry.version("demo", "export default 'vulnerable'");
    let mut changes = promotion(&registry.version("bank", "export default 'bank'"));
    // The deployment of `bank` names a version that the registry signed for `demo`.
    if let selvedge_origin::registry::Change::Promoted { deployment, versions, .. } = &mut changes[0] {
        deployment.versions[0].version = vulnerable.id.clone();
        deployment.id = vulnerable.id.clone();
        *versions = vec![vulnerable.clone()];
    }
    registry.commit(changes);
    let said = registry.settled("bank", &vulnerable).await.unwrap();
    assert!(matches!(&said.state, WorkerState::Refused(reason) if reason.contains("demo")), "{said:?}");
    assert_eq!(node.serves("bank"), None);
}
