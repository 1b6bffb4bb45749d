//! status: what a node has refused of the feed stays to be seen, though it has taken the true entry since.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use selvedge_tests::{Daemon, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Installation;

/// What somebody on the way to the registry makes of an upstream's name, once.
const TRUE: &[u8] = b"right.example";
const FALSE: &[u8] = b"wrong.example";

/// Stands between a node and its registry.
async fn between(registry: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, lied) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let once = lied.clone();
    tokio::spawn(async move {
        while let Ok((node, _)) = listener.accept().await {
            let once = once.clone();
            tokio::spawn(async move {
                let registry = TcpStream::connect(registry).await.unwrap();
                let ((mut from_node, mut to_node), (mut from_registry, mut to_registry)) = (node.into_split(), registry.into_split());
                let down = async {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(length @ 1..) = from_registry.read(&mut buffer).await {
                        let bytes = &mut buffer[..length];
                        let found = bytes.windows(TRUE.len()).position(|window| window == TRUE);
                        if let Some(at) = found
                            && !once.swap(true, Relaxed)
                        {
                            bytes[at..at + FALSE.len()].copy_from_slice(FALSE);
                        }
                        if to_node.write_all(bytes).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = down => {}
                    _ = tokio::io::copy(&mut from_node, &mut to_registry) => {}
                }
            });
        }
    });
    (address, lied)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_entry_is_named_in_status_after_the_true_one_has_come() {
    let mut installation = Installation::without_nodes();
    let registry = installation.url().trim_start_matches("http://").parse().unwrap();
    let (address, lied) = between(registry).await;
    let (data, origin) = (installation.dir.path().join("edge"), installation.dir.path().join("origin"));
    installation.edge = Some(Daemon::edge("node-0", &data, &format!("http://{address}"), &origin));
    let node = || installation.run(&["nodes"]).document()[0].clone();
    eventually("the node follows", Duration::from_secs(20), async || node()["report"]["seq"].as_u64().filter(|seq| *seq > 0)).await;
    assert_eq!(node()["report"]["last_refusal"], serde_json::Value::Null);

    let file = installation.dir.path().join("site.toml");
    std::fs::write(&file, "name = \"www\"\n[[route]]\npattern = \"a.test/*\"\nupstream = \"https://right.example\"\n").unwrap();
    let applied = installation.run(&["apply", &file.to_string_lossy()]);
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    let seq = applied.document()["seq"].as_u64().unwrap();
    eventually("the true entry is taken", Duration::from_secs(20), async || node()["report"]["seq"].as_u64().filter(|at| *at >= seq)).await;
    assert!(lied.load(Relaxed), "the entry has passed, and was changed");
    // Until the refusal is over too.
    let taken = async || node()["report"]["feed_refusal"].is_null().then_some(());
    eventually("nothing is refused any more", Duration::from_secs(20), taken).await;
    let last = node()["report"]["last_refusal"].clone();
    assert!(last["reason"].as_str().is_some_and(|reason| reason.contains("tampered")), "{last}");
    assert!(last["count"] == 1 && last["ms_ago"].as_u64().is_some_and(|ago| ago < 60_000), "{last}");
    for command in ["status", "nodes"] {
        let shown = installation.run_for_people(&[command]).stdout;
        assert!(shown.contains("refused the feed ") && shown.contains(" s ago: ") && shown.contains("tampered"), "{command}: {shown}");
    }
}
