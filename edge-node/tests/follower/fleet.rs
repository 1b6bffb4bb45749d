//! Purges of a registry with twenty nodes, each holding tagged objects that are read all the while: nothing is served after its acknowledgement, and
//! acknowledgements come fast.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use selvedge_edge::cache::control::Control;
use selvedge_edge::cache::entry::{Entry, StoredBody};
use selvedge_edge::cache::freshness::Freshness;
use selvedge_edge::cache::key::{CacheKey, Space};
use selvedge_edge::cache::purge::Realm;
use selvedge_edge::cache::time::Time;
use selvedge_edge::cache::{Cache, Found};
use selvedge_edge::deployments::{Follower, Link};
use selvedge_edge::routes::ActiveRoutes;
use selvedge_origin::api::wire::{NewPurge, PurgeNodes, PurgeState};
use selvedge_origin::client::Client;
use selvedge_origin::{Origin, OriginConfig};

use crate::real::config;
use crate::registry::Runs;

const NODES: usize = 20;
const TAGS: usize = 100;
const NOW: Time = Time(1_790_000_000_000);

struct HoldingNode {
    cache: Arc<Cache>,
    _follower: Follower,
    _data: tempfile::TempDir,
    /// Tags whose purge this node has acknowledged.
    acknowledged: Vec<AtomicBool>,
}

fn key(number: usize) -> CacheKey {
    CacheKey::new(Space::Upstream, "https", "www.example.org", &format!("/{number}"))
}

fn entry(cache: &Cache, tag: usize) -> Arc<Entry> {
    let mut head = http::Response::new(()).into_parts().0;
    head.headers.insert(HeaderName::from_static("cache-tag"), HeaderValue::from_str(&format!("all, tag-{tag}")).unwrap());
    let (control, body) = (Control::of_response(&head.headers), StoredBody::new(&[Bytes::from_static(b"a small body")]));
    let freshness = Freshness { lifetime_ms: 86_400_000, initial_age_ms: 0, received: NOW };
    Arc::new(Entry::new(head, body, control, freshness, Default::default(), cache.purges().stamp(Realm::NONE)))
}

async fn node(origin: &Origin, number: usize, objects: usize) -> Arc<HoldingNode> {
    let data = tempfile::tempdir().unwrap();
    let cache = Arc::new(Cache::new(8 << 30, Arc::default()));
    let config = config(origin, data.path(), &format!("edge-{number}"));
    let follower = Follower::start(config, Runs::default(), ActiveRoutes::default().into(), cache.purges().clone()).await.unwrap();
    while follower.status().link != Link::Following {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (0..objects).for_each(|object| cache.store(key(object).as_bytes(), entry(&cache, object % TAGS)));
    let acknowledged = (0..TAGS).map(|_| AtomicBool::new(false)).collect();
    Arc::new(HoldingNode { cache, _follower: follower, _data: data, acknowledged })
}

/// Reads objects of every node until it is stopped. Gives how many it read, and how many of them should not have been there.
fn read(nodes: &[Arc<HoldingNode>], objects: usize, stop: &AtomicBool) -> (u64, u64) {
    let (mut reads, mut wrong, mut object) = (0, 0, 0);
    while !stop.load(SeqCst) {
        for node in nodes {
            let acknowledged = node.acknowledged[object % TAGS].load(SeqCst);
            let found = node.cache.find(&key(object), &HeaderMap::new(), NOW);
            reads += 1;
            wrong += u64::from(acknowledged && !matches!(found, Found::Nothing(..)));
        }
        object = (object + 7) % objects;
    }
    (reads, wrong)
}

/// Waits until a purge has settled; tells of each node as its acknowledgement comes, while the others may still serve what is purged.
async fn acknowledged(client: &Client, seq: u64, tell: impl Fn(usize)) -> PurgeNodes {
    let mut seen = None;
    loop {
        let now = client.purge_nodes(seq, Duration::from_secs(20), seen.as_ref()).await.unwrap();
        let applied = now.nodes.iter().filter(|node| node.state == PurgeState::Applied);
        applied.for_each(|node| tell(node.node.as_str().strip_prefix("edge-").unwrap().parse().unwrap()));
        if now.settled {
            return now;
        }
        seen = Some(now);
    }
}

/// Purges `rounds` tags one after the other. Gives the milliseconds of every acknowledgement, sorted.
async fn purge_while_reading(objects: usize, rounds: usize) -> Vec<u64> {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start(OriginConfig::loopback(folder.path())).await.unwrap();
    let client = Client::connect(&origin.url(), origin.admin_token()).unwrap();
    let nodes = futures::future::join_all((0..NODES).map(|number| node(&origin, number, objects))).await;
    let (stop, all_reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let reader = std::thread::spawn({
        let (nodes, stop, all_reads) = (nodes.clone(), stop.clone(), all_reads.clone());
        move || {
            let (reads, wrong) = read(&nodes, objects, &stop);
            all_reads.store(reads, SeqCst);
            wrong
        }
    });
    let mut waits = Vec::new();
    for round in 0..rounds {
        let asked = NewPurge { tags: vec![format!("tag-{round}")], ..NewPurge::default() };
        let purged = client.purge(&asked).await.unwrap();
        let settled = acknowledged(&client, purged.seq, |number| nodes[number].acknowledged[round].store(true, SeqCst)).await;
        assert!(settled.nodes.len() == NODES && settled.nodes.iter().all(|node| node.state == PurgeState::Applied), "{settled:?}");
        waits.extend(settled.nodes.iter().filter_map(|node| node.ms));
    }
    stop.store(true, SeqCst);
    let wrong = reader.join().unwrap();
    assert_eq!(wrong, 0, "of {} reads found something after its purge was acknowledged", all_reads.load(SeqCst));
    for node in &nodes {
        let is_there = |object: usize| matches!(node.cache.find(&key(object), &HeaderMap::new(), NOW), Found::Fresh(..));
        assert!((0..objects).all(|object| is_there(object) == (object % TAGS >= rounds)), "what was not purged is still there");
    }
    origin.shutdown().await;
    waits.sort_unstable();
    waits
}

fn show(waits: &[u64]) -> u64 {
    let at = |share: usize| waits.get(waits.len() * share / 100).copied().unwrap_or_default();
    let p99 = at(99);
    println!("{} acknowledgements: median {} ms, p99 {p99} ms, longest {:?} ms", waits.len(), at(50), waits.last());
    p99
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_purged_is_served_after_its_acknowledgement_by_any_of_twenty_nodes() {
    let waits = purge_while_reading(500, 10).await;
    assert_eq!(waits.len(), 10 * NODES);
    show(&waits);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full size: 2,000,000 objects; cargo test --release -p selvedge-edge --test follower fleet -- --ignored --nocapture"]
async fn twenty_nodes_with_100_000_objects_each_acknowledge_within_200_ms_at_p99() {
    let waits = purge_while_reading(100_000, 50).await;
    assert!(show(&waits) <= 200);
}
