//! What a node refuses: a bundle that is not what the signed record says. The old version goes on, and status names the reason.

use std::time::Duration;

use selvedge_origin::api::wire::NodeState;
use selvedge_tests::{Cluster, Deploy};

fn says(text: &str) -> String {
    format!("export default {{ fetch: () => new Response('{text}') }};")
}

/// Every file of the registry's blob store that holds `needle`.
fn blobs_with(cluster: &Cluster, needle: &str) -> Vec<std::path::PathBuf> {
    fn walk(dir: &std::path::Path, needle: &str, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, needle, found);
            } else if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle.as_bytes())) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&cluster.dir.path().join("origin/blobs"), needle, &mut found);
    found
}

async fn refused_after(damage: impl Fn(&std::path::Path)) {
    let mut cluster = Cluster::start(1).await;
    cluster.deploy("page", &says("good")).await;
    // The node is away while the registry's copy is damaged: it must not find it in its own store.
    cluster.edges.remove(0).node.drain().await;
    let (_, promoted) = cluster.promote("page", &says("tampered-with"), Deploy::default()).await;
    let blobs = blobs_with(&cluster, "tampered-with");
    assert!(!blobs.is_empty(), "the registry keeps blobs as files");
    blobs.iter().for_each(|path| damage(path));
    let edge = cluster.start_edge(0, |_| {}).await;
    cluster.edges.push(edge);
    let refused = async || {
        let nodes = cluster.client.worker_nodes(&"page".parse().unwrap(), promoted.seq, Duration::from_millis(200), None).await.ok()?;
        nodes.nodes.into_iter().find(|node| node.state == NodeState::Refused)
    };
    let node = selvedge_tests::eventually("the node refuses the bundle", Duration::from_secs(20), refused).await;
    assert!(node.reason.is_some_and(|reason| !reason.is_empty()));
    assert_eq!(cluster.get("page.test", "/").await.text(), "good", "the old version goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_bundle() {
    refused_after(|path| {
        let text = std::fs::read_to_string(path).unwrap().replace("tampered-with", "tampered!with");
        std::fs::write(path, text).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_bundle() {
    refused_after(|path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    })
    .await;
}
