//! What a node refuses: a bundle that is not what the signed record says. The old version goes on, and `selvedge status` names the reason.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use selvedge_origin::api::wire::NodeState;
use selvedge_origin::feed::next_chain;
use selvedge_origin::registry::VersionRecord;
use selvedge_tests::client::{self, Over};
use selvedge_tests::{Built, Cluster, Daemon, Deploy, eventually, selvedge};

fn says(text: &str) -> String {
    format!("export default {{ fetch: () => new Response('{text}') }};")
}

/// Every file of the registry's blob store that holds `needle`.
fn blobs_with(origin_data: &Path, needle: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, needle: &str, found: &mut Vec<PathBuf>) {
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
    walk(&origin_data.join("blobs"), needle, &mut found);
    assert!(!found.is_empty(), "the registry keeps blobs as files");
    found
}

/// What a registry's disk is made to hold, while neither it nor a node runs. Given: its folder, the version that a node shall refuse, and one of
/// another worker.
type Damage = fn(&Path, &VersionRecord, &VersionRecord);

/// After this damage the node refuses the version, `selvedge status` says why by this word, and the old version goes on.
async fn refused_after(damage: Damage, word: &str) {
    let Built { mut cluster, mut edge, mut origin, origin_data, edge_data } = Built::start().await;
    let other = cluster.deploy("other", &says("other")).await;
    cluster.deploy("page", &says("good")).await;
    // The node is away meanwhile: it must not find the version in its own store.
    edge.terminate();
    let (version, promoted) = cluster.promote("page", &says("not-so-good"), Deploy::default()).await;
    let listen = origin.url().trim_start_matches("http://").to_owned();
    origin.terminate();
    damage(&origin_data, &version, &other);
    let origin = Daemon::origin(&origin_data, &listen);
    cluster.client = origin.client(&origin_data);
    let edge = Daemon::edge("node-0", &edge_data, &origin.url(), &origin_data);
    let refused = async || {
        let nodes = cluster.client.worker_nodes(&"page".parse().unwrap(), promoted.seq, Duration::from_millis(200), None).await.ok()?;
        nodes.nodes.into_iter().find(|node| node.state == NodeState::Refused)
    };
    let node = eventually("the node refuses the bundle", Duration::from_secs(20), refused).await;
    assert!(node.reason.as_ref().is_some_and(|reason| reason.contains(word)), "{word}: {node:?}");
    status_names(&cluster, &origin_data, word);
    let answer = client::send(Over::Cleartext, edge.address("http"), client::get("page.test", "/")).await.unwrap();
    assert_eq!(answer.text(), "good", "the old version goes on");
}

/// `selvedge status` says on one line, and in its JSON, that a node refuses `page`, and why.
fn status_names(cluster: &Cluster, origin_data: &Path, word: &str) {
    let status = |flag: Option<&str>| {
        let mut command = Command::new(selvedge());
        command.args(["status", "--origin", cluster.client.url(), "--token-file"]).arg(origin_data.join("admin.token")).args(flag);
        let output = command.output().expect("the built binary starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = status(None);
    let named = |line: &str| ["node-0", "page", "refused", word].iter().all(|part| line.contains(part));
    assert!(text.lines().any(named), "{word} is not in\n{text}");
    let json: serde_json::Value = serde_json::from_str(status(Some("--json")).trim()).expect("one document");
    let line = &json["nodes"][0]["report"]["unsettled"][0];
    assert!(line["worker"] == "page" && line.to_string().contains(word), "{json:#}");
}

/// Replaces text in the registry's database, in records and log, with a chain of digests that is right again: what whoever owns the registry's disk, but
/// not its key, can do.
fn rewrite(origin_data: &Path, replace: &[(&str, &str)]) {
    let database = Connection::open(origin_data.join("registry.db")).expect("the registry's database");
    let replaced = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).expect("JSON");
        replace.iter().fold(text, |text, (from, to)| text.replace(from, to)).into_bytes()
    };
    let rows = |query: &str| -> Vec<(String, Vec<u8>)> {
        let mut statement = database.prepare(query).unwrap();
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
    };
    for (key, value) in rows("SELECT key, value FROM records") {
        database.execute("UPDATE records SET value = ?2 WHERE key = ?1", (&key, replaced(value))).unwrap();
    }
    let mut chain = selvedge_origin::registry::Digest::zero();
    let mut changed = 0;
    for (seq, entry) in rows("SELECT CAST(seq AS TEXT), entry FROM log ORDER BY seq") {
        let after = replaced(entry.clone());
        changed += usize::from(after != entry);
        chain = next_chain(&chain, &after);
        database.execute("UPDATE log SET entry = ?2, chain = ?3 WHERE seq = CAST(?1 AS INTEGER)", (&seq, after, chain.as_str())).unwrap();
    }
    database.execute("UPDATE head SET chain = ?1", [chain.as_str()]).unwrap();
    assert!(changed > 0, "nothing to replace");
}

fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).expect("JSON").as_str().expect("a text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_bundle() {
    let damage: Damage = |origin_data, _, _| {
        for path in blobs_with(origin_data, "not-so-good") {
            let text = std::fs::read_to_string(&path).unwrap().replace("not-so-good", "not!so!good");
            std::fs::write(path, text).unwrap();
        }
    };
    refused_after(damage, "tampered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_bundle() {
    let damage: Damage = |origin_data, _, _| {
        for path in blobs_with(origin_data, "not-so-good") {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }
    };
    refused_after(damage, "truncated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_bundle() {
    let damage: Damage = |origin_data, version, _| rewrite(origin_data, &[(&text(&version.signature), &"0".repeat(128))]);
    refused_after(damage, "has not signed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_bundle_under_another_name() {
    let damage: Damage = |origin_data, version, other| {
        let signature = (text(&version.signature), text(&other.signature));
        let bundle = (text(&version.bundle), text(&other.bundle));
        rewrite(origin_data, &[(&signature.0, &signature.1), (&bundle.0, &bundle.1)]);
    };
    refused_after(damage, "has not signed").await;
}
