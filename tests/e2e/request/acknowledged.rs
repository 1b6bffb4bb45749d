//! Purges while clients read over HTTP: nothing that was purged is served by a node that has acknowledged it, whatever its tier, and whatever is being fetched.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use selvedge_origin::api::wire::{NewPurge, PurgeState};
use selvedge_tests::client::{self, Connection};
use selvedge_tests::{Cluster, Upstream, eventually, route};

const NODES: usize = 4;
const TAGS: usize = 8;
const OBJECTS: usize = 64;
const ROUNDS: usize = 24;
/// More together than memory takes: most are read from disk.
const OBJECT_BYTES: usize = 48 << 10;
const MEMORY_BYTES: u64 = 1 << 20;

/// What is read of a node between two purges: all objects twice before those of one tag are purged again.
const READS: usize = OBJECTS / TAGS * 2;

/// One number for each tag.
type ByTag = Arc<[AtomicUsize]>;

fn by_tag() -> ByTag {
    (0..TAGS).map(|_| AtomicUsize::new(0)).collect()
}

/// A node, as who reads it and who purges know it.
struct Asked {
    acknowledged: ByTag,
    reads: AtomicUsize,
    stop: AtomicBool,
}

/// Reads objects of a node until it is stopped. Gives how many were hits, and those that were older than a purge that the node had acknowledged before it was asked.
async fn read(mut connection: Connection, node: Arc<Asked>) -> (usize, Vec<String>) {
    let (mut hits, mut wrong, mut object) = (0, Vec::new(), 0);
    while !node.stop.load(SeqCst) {
        let purged = node.acknowledged[object % TAGS].load(SeqCst);
        let answer = connection.send(client::get("site.test", &format!("/{object}"))).await.unwrap();
        let edition: usize = answer.header("x-edition").parse().unwrap_or_else(|_| panic!("{}: {}", answer.status, answer.text()));
        assert_eq!(answer.body.len(), OBJECT_BYTES);
        let status = answer.header("cache-status");
        hits += usize::from(status.contains("; hit;"));
        if edition < purged {
            wrong.push(format!("edition {edition} of /{object} after purge {purged}: {status}"));
        }
        node.reads.fetch_add(1, SeqCst);
        object = (object + 7) % OBJECTS;
    }
    (hits, wrong)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_purged_is_served_over_http_after_its_nodes_acknowledgement() {
    let cluster = Cluster::start_with(NODES, |config| config.cache_memory_bytes = MEMORY_BYTES).await;
    // The edition that the upstream has of what is of a tag: as many purges as were asked for.
    let editions = by_tag();
    let current = editions.clone();
    let upstream = Upstream::start(move |request| {
        let object: usize = request.uri().path().trim_start_matches('/').parse().unwrap();
        let edition = current[object % TAGS].load(SeqCst);
        let answer = http::Response::builder().header("cache-control", "max-age=600").header("x-edition", edition);
        answer.header("cache-tag", format!("tag-{}", object % TAGS)).body(vec![b'x'; OBJECT_BYTES].into()).unwrap()
    })
    .await;
    cluster.apply(vec![route("site.test/*", None, Some(&upstream.url()))]).await;
    let asked = || Arc::new(Asked { acknowledged: by_tag(), reads: AtomicUsize::new(0), stop: AtomicBool::new(false) });
    let nodes: Vec<Arc<Asked>> = (0..NODES).map(|_| asked()).collect();
    let mut readers = Vec::new();
    for (edge, node) in cluster.edges.iter().zip(&nodes) {
        readers.push(tokio::spawn(read(Connection::open(edge.http).await.unwrap(), node.clone())));
    }
    for round in 0..ROUNDS {
        let are_read = async || nodes.iter().all(|node| node.reads.load(SeqCst) >= 2 * OBJECTS + round * READS).then_some(());
        eventually("the nodes are read", Duration::from_secs(30), are_read).await;
        let tag = round % TAGS;
        let edition = editions[tag].fetch_add(1, SeqCst) + 1;
        let purge = NewPurge { tags: vec![format!("tag-{tag}")], ..NewPurge::default() };
        let seq = cluster.client.purge(&purge).await.unwrap().seq;
        let mut seen = None;
        loop {
            let now = cluster.client.purge_nodes(seq, Duration::from_secs(20), seen.as_ref()).await.unwrap();
            for node in now.nodes.iter().filter(|node| node.state == PurgeState::Applied) {
                let number: usize = node.node.as_str().strip_prefix("node-").unwrap().parse().unwrap();
                nodes[number].acknowledged[tag].store(edition, SeqCst);
            }
            if now.settled {
                assert!(now.nodes.len() == NODES && now.nodes.iter().all(|node| node.state == PurgeState::Applied), "{now:?}");
                break;
            }
            seen = Some(now);
        }
    }
    nodes.iter().for_each(|node| node.stop.store(true, SeqCst));
    for reader in readers {
        let (hits, wrong) = reader.await.unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(hits > OBJECTS, "{hits} hits: something was there to be taken back");
    }
}
