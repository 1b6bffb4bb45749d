//! The cache's disk: a node that is killed while it is busy, and a disk that is full.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use selvedge_origin::api::wire::NewPurge;
use selvedge_tests::client::{self, Answer, Over};
use selvedge_tests::{Built, Cluster, Daemon, Upstream, eventually, route};

/// What is at a path: its length is in the path, its bytes are made from it.
fn body(path: &str) -> Bytes {
    let len: usize = path.rsplit('/').next().and_then(|len| len.parse().ok()).expect("a length");
    let seed: usize = path.bytes().map(usize::from).sum();
    (0..len).map(|at| (at / 3 + at % 251 + seed) as u8).collect::<Vec<u8>>().into()
}

async fn upstream() -> Upstream {
    Upstream::start(|request| {
        let path = request.uri().path();
        let answer =
            http::Response::builder().header("cache-control", "max-age=3600").header("cache-tag", path.split('/').nth(1).expect("a set"));
        answer.body(body(path)).expect("a response")
    })
    .await
}

async fn get(edge: &Daemon, path: &str) -> Option<Answer> {
    client::send(Over::Cleartext, edge.address("http"), client::get("page.test", path)).await.ok()
}

fn paths(set: &str, objects: usize) -> Vec<String> {
    let length = |number: usize| if number % 50 == 7 { 3_000_000 } else { 500 + number * 37 };
    (0..objects).map(|number| format!("/{set}/{number}/{}", length(number))).collect()
}

/// Asks for all; every answer is right, or none where the node dies. Gives how many came from the disk.
async fn ask_all(edge: &Daemon, paths: &[String]) -> usize {
    let asks = futures::stream::iter(paths).map(async |path| {
        let answer = get(edge, path).await?;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body == body(path), "{path}: wrong bytes, {} of them; {:?}", answer.body.len(), answer.headers);
        answer
            .headers
            .get("cache-status")
            .is_some_and(|status| status.to_str().is_ok_and(|text| text.contains("; hit;") && text.contains("detail=disk")))
            .then_some(())
    });
    asks.buffer_unordered(16).filter_map(std::future::ready).count().await
}

async fn metric(edge: &Daemon, name: &str) -> u64 {
    let page = client::send(Over::Cleartext, edge.address("admin"), client::get("admin", "/metrics")).await.expect("metrics");
    let line = page.text().lines().find(|line| line.split_whitespace().next() == Some(name)).map(str::to_owned);
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
}

/// Waits until the disk has all that a node has fetched since it started: a client has the last byte of a response before the disk hears of it.
async fn all_is_written(edge: &Daemon, fetched: usize) {
    let written = async || {
        let writes = metric(edge, "selvedge_cache_disk_writes_total").await;
        (writes >= fetched as _ && metric(edge, "selvedge_cache_disk_waiting_bytes").await == 0).then_some(())
    };
    eventually("all is written", Duration::from_secs(20), written).await;
}

fn again(built: &Built) -> Daemon {
    let (https, http) = (built.edge.address("https").to_string(), built.edge.address("http").to_string());
    Daemon::edge_at("node-0", &built.edge_data, &built.origin.url(), &built.origin_data, &https, &http)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_while_busy_has_what_it_had_and_no_wrong_byte() {
    let mut built = Built::start().await;
    let upstream = upstream().await;
    built.cluster.apply(vec![route("page.test/*", None, Some(&upstream.url()))]).await;
    let first = paths("first", 150);
    ask_all(&built.edge, &first).await;
    all_is_written(&built.edge, first.len()).await;
    for round in 0..2 {
        // Killed in the middle of other fetches.
        let more = paths(&format!("round-{round}"), 400);
        let pid = built.edge.pid();
        let killer = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            // SAFETY: kill takes no memory; the id is that of a node that this test started and has not waited for.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        };
        futures::future::join(ask_all(&built.edge, &more), killer).await;
        built.edge.kill();
        built.edge = again(&built);
        let asked = upstream.asked();
        assert_eq!(ask_all(&built.edge, &first).await, first.len(), "all of them came from the disk");
        assert_eq!(upstream.asked(), asked);
        let fetched = more.len() - ask_all(&built.edge, &more).await;
        all_is_written(&built.edge, fetched).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_purged_does_not_come_back_from_the_disk_of_a_node_that_is_killed_and_the_rest_does() {
    let mut built = Built::start().await;
    let upstream = upstream().await;
    built.cluster.apply(vec![route("page.test/*", None, Some(&upstream.url()))]).await;
    let (kept, tagged, below, named) = (paths("kept", 20), paths("tagged", 20), paths("below", 20), paths("named", 20));
    let all = [kept.clone(), tagged, below, named.clone()].concat();
    ask_all(&built.edge, &all).await;
    all_is_written(&built.edge, all.len()).await;
    let purge = NewPurge {
        urls: named.iter().map(|path| format!("http://page.test{path}")).collect(),
        tags: vec!["tagged".into()],
        prefixes: vec!["http://page.test/below/".into()],
        ..NewPurge::default()
    };
    built.cluster.purge(&purge).await;
    built.edge.kill();
    built.edge = again(&built);
    let asked = upstream.asked();
    assert_eq!(ask_all(&built.edge, &all).await, kept.len(), "only what was not purged came from the disk");
    assert_eq!(upstream.asked() - asked, all.len() - kept.len());
    assert_eq!(upstream.asked(), 2 * all.len() - kept.len());
    // What came anew is kept as before.
    all_is_written(&built.edge, all.len() - kept.len()).await;
    built.edge.kill();
    built.edge = again(&built);
    assert_eq!(ask_all(&built.edge, &all).await, all.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_again_in_the_same_process_at_once_with_what_it_had() {
    let mut cluster = Cluster::start(1).await;
    let upstream = upstream().await;
    cluster.apply(vec![route("page.test/*", None, Some(&upstream.url()))]).await;
    for round in 0..6 {
        let path = format!("/{round}/100000");
        cluster.get("page.test", &path).await;
        let edge = cluster.edges.remove(0);
        // Kindly, or all at once.
        match round % 2 {
            0 => assert!(edge.node.drain().await),
            _ => drop(edge),
        }
        let again = cluster.start_edge(0, |_| {}).await;
        cluster.edges.push(again);
        let answer = cluster.get("page.test", &path).await;
        assert!(answer.body == body(&path));
        if round % 2 == 0 {
            assert!(answer.header("cache-status").contains("detail=disk"), "{round}: {:?}", answer.headers);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_hits_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (origin_data, edge_data) = (dir.path().join("origin"), dir.path().join("edge"));
    let origin = Daemon::origin(&origin_data, "127.0.0.1:0");
    let any = "127.0.0.1:0";
    let arguments = Daemon::edge_arguments("node-0", &edge_data, &origin.url(), &origin_data, any, any);
    let edge = Daemon::start_by(on_small_disk(&edge_data.join("cache")), &arguments);
    let cluster = Cluster::around(origin.client(&origin_data), dir, 1).await;
    let upstream = upstream().await;
    cluster.apply(vec![route("page.test/*", None, Some(&upstream.url()))]).await;
    let objects: Vec<String> = (0..200).map(|number| format!("/{number}/100000")).collect();
    for round in 0..2 {
        for chunk in objects.chunks(50) {
            ask_all(&edge, chunk).await;
            all_is_written(&edge, 0).await;
        }
        assert!(metric(&edge, "selvedge_cache_disk_write_errors_total").await >= 1, "round {round}: {}", edge.log());
    }
    assert_eq!(upstream.asked(), objects.len(), "memory has what the disk has not");
    assert_eq!(edge.log().matches("the disk is full").count(), 1, "{}", edge.log());
    // It gives room back, and writes again.
    let written = metric(&edge, "selvedge_cache_disk_writes_total").await;
    let mut number = 1_000;
    let writes = async || {
        number += 1;
        ask_all(&edge, &[format!("/{number}/1000")]).await;
        (metric(&edge, "selvedge_cache_disk_writes_total").await > written).then_some(())
    };
    eventually("the disk is written again", Duration::from_secs(20), writes).await;
}

/// Runs what follows with a folder of its own that holds 8 MiB: in its own mount namespace, so that nothing is left behind.
fn on_small_disk(folder: &Path) -> Command {
    std::fs::create_dir_all(folder).expect("a folder");
    let mut command = Command::new("unshare");
    // SAFETY: it takes nothing, and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        command.arg("--map-root-user");
    }
    let script = "mount -t tmpfs -o size=8m tmpfs \"$0\" && exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(folder).arg(selvedge_tests::selvedge());
    command
}
