//! Purges on their way from the registry's log to the cache, and back as acknowledgements.

use std::sync::Arc;
use std::time::Duration;

use selvedge_edge::cache::key::{CacheKey, Space};
use selvedge_edge::cache::purge::{Purgeable, Purges, Realm, Stamp, Verdict};
use selvedge_edge::cache::tags::Tags;
use selvedge_edge::deployments::Link;
use selvedge_origin::registry::{Change, Epoch, PurgeRecord};
use selvedge_runtime::CachePurge;

use crate::registry::{Registry, TestNode};

fn purge_url(text: &str) -> Vec<Change> {
    vec![Change::Purged(Box::new(PurgeRecord { urls: vec![text.to_owned()], ..PurgeRecord::default() }))]
}

fn verdict(purges: &Purges, stamp: Stamp, target: &str) -> Verdict {
    let key = CacheKey::new(Space::Upstream, "https", "a.org", target);
    purges.verdict(&Purgeable::new(stamp, Tags::default()), key.as_bytes())
}

async fn acknowledged(registry: &Registry, seq: u64) {
    let mut said = registry.acknowledged.subscribe();
    let waited = tokio::time::timeout(Duration::from_secs(20), said.wait_for(|said| said.as_ref().is_some_and(|said| said.seq >= seq)));
    assert!(waited.await.is_ok(), "the last acknowledgement: {:?}", registry.acknowledged.borrow());
}

async fn following() -> (Arc<Registry>, tempfile::TempDir, TestNode) {
    let (registry, data) = (Registry::start().await, tempfile::tempdir().unwrap());
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    node.until(|status| status.link == Link::Following).await;
    (registry, data, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_is_applied_before_it_is_acknowledged_and_survives_a_restart_without_the_registry() {
    let (registry, data, node) = following().await;
    let stamp = node.purges.stamp(Realm::NONE);
    registry.commit(purge_url("a.org/x"));
    acknowledged(&registry, 1).await;
    assert_eq!([verdict(&node.purges, stamp, "/x"), verdict(&node.purges, stamp, "/y")], [Verdict::Gone, Verdict::Valid]);
    node.follower.stop().await;
    registry.book.lock().refusal = Some((http::StatusCode::SERVICE_UNAVAILABLE, "away"));
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    assert_eq!([verdict(&node.purges, stamp, "/x"), verdict(&node.purges, stamp, "/y")], [Verdict::Gone, Verdict::Valid]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_applies_all_missed_purges_before_it_acknowledges_anything_later() {
    let (registry, data, node) = following().await;
    registry.commit(purge_url("a.org/first"));
    acknowledged(&registry, 1).await;
    node.until(|status| status.position.as_ref().is_some_and(|position| position.seq == 1)).await;
    let stamp = node.purges.stamp(Realm::NONE);
    node.follower.stop().await;
    for number in 0..2_000 {
        registry.append(purge_url(&format!("a.org/{number}")));
    }
    let mut said = registry.acknowledged.subscribe();
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    loop {
        let seq = said.borrow_and_update().as_ref().map_or(0, |position| position.seq);
        // The first of them is the second entry.
        let kept = (0..seq.saturating_sub(1)).find(|number| verdict(&node.purges, stamp, &format!("/{number}")) != Verdict::Gone);
        assert_eq!(kept, None, "{seq} is acknowledged, and not all before it is applied");
        if seq == 2_001 {
            break;
        }
        tokio::time::timeout(Duration::from_secs(20), said.changed()).await.expect("it goes on").unwrap();
    }
    assert_eq!(verdict(&node.purges, stamp, "/other"), Verdict::Valid, "the log reached back: nothing else is touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_the_registry_refuses_is_sent_again() {
    let (registry, _data, _node) = following().await;
    acknowledged(&registry, 0).await;
    registry.book.lock().acknowledgements_lost = 3;
    registry.commit(purge_url("a.org/x"));
    acknowledged(&registry, 1).await;
    assert_eq!(registry.book.lock().acknowledgements_lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_stays_one_when_the_journal_is_written_anew() {
    let (registry, data, node) = following().await;
    let stamp = node.purges.stamp(Realm::NONE);
    let of_host =
        |host: &str, soft| vec![Change::Purged(Box::new(PurgeRecord { hosts: vec![host.to_owned()], soft, ..PurgeRecord::default() }))];
    registry.commit(of_host("a.org", true));
    registry.commit(of_host("b.org", false));
    acknowledged(&registry, 2).await;
    let length = || std::fs::metadata(data.path().join("purges.journal")).unwrap().len();
    // The same name again and again: it is one, once the file is written anew.
    let long = format!("c.org/{}", "x".repeat(1_000));
    let (mut seq, mut longest) = (2, 0);
    while length() >= longest {
        longest = length();
        for _ in 0..1_000 {
            registry.commit(purge_url(&long));
            seq += 1;
        }
        acknowledged(&registry, seq).await;
    }
    node.follower.stop().await;
    registry.book.lock().refusal = Some((http::StatusCode::SERVICE_UNAVAILABLE, "away"));
    let again = TestNode::start(TestNode::config(&registry, data.path())).await;
    for purges in [&node.purges, &again.purges] {
        let of = |host| {
            let key = CacheKey::new(Space::Upstream, "https", host, "/x");
            purges.verdict(&Purgeable::new(stamp, Tags::default()), key.as_bytes())
        };
        assert!(matches!(of("a.org"), Verdict::Soft(_)), "{:?}", of("a.org"));
        assert_eq!([of("b.org"), of("c.org")], [Verdict::Gone, Verdict::Valid]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_log_does_not_lead_on_everything_stored_has_to_be_confirmed() {
    let (registry, data, node) = following().await;
    registry.commit(purge_url("a.org/x"));
    acknowledged(&registry, 1).await;
    let stamp = node.purges.stamp(Realm::NONE);
    node.follower.stop().await;
    // A registry that was set up anew.
    registry.book.lock().position.epoch = Epoch::generate();
    let node = TestNode::start(TestNode::config(&registry, data.path())).await;
    assert_eq!(verdict(&node.purges, stamp, "/y"), Verdict::Valid, "not before the node knows");
    node.until(|status| status.link == Link::Following).await;
    acknowledged(&registry, 1).await;
    assert_eq!(verdict(&node.purges, stamp, "/y"), Verdict::Unproven);
    assert_eq!(verdict(&node.purges, node.purges.stamp(Realm::NONE), "/y"), Verdict::Valid);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_a_worker_cannot_purge_and_is_told_so() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    let config = selvedge_edge::deployments::FollowerConfig { origin: None, ..TestNode::config(&registry, data.path()) };
    let node = TestNode::start(config).await;
    let purge = CachePurge { everything: true, ..CachePurge::default() };
    let refused = node.follower.purger().submit("shop", purge).await.unwrap_err().refusal();
    assert!(refused.code == 503 && refused.message.contains("follows no registry"), "{refused}");
}
