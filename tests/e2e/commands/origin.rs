//! origin: its secrets, and how it speaks where others could listen.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use selvedge_origin::tokens::TokenFile;
use selvedge_tests::client::{self, Over, get};
use selvedge_tests::{Cluster, Daemon, fixture, selvedge};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The built binary, saying all it can.
fn talkative() -> Command {
    let mut command = Command::new(selvedge());
    command.env("SELVEDGE_LOG", "trace");
    command
}

fn secret_of(file: &Path) -> String {
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    TokenFile::read(file).unwrap().token.secret().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tokens_are_for_their_owner_only_and_in_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let (origin_data, edge_data) = (dir.path().join("origin"), dir.path().join("edge"));
    let arguments = ["origin", "--data", &origin_data.to_string_lossy(), "--listen", "127.0.0.1:0"].map(str::to_owned);
    let mut origin = Daemon::start_by(talkative(), &arguments);
    let arguments = Daemon::edge_arguments("node-0", &edge_data, &origin.url(), &origin_data, "127.0.0.1:0", "127.0.0.1:0");
    let mut edge = Daemon::start_by(talkative(), &arguments);
    let cluster = Cluster::around(origin.client(&origin_data), dir, 1).await;
    cluster.deploy("hello", &fixture("hello")).await;
    assert_eq!(client::send(Over::H2, edge.address("https"), get("hello.test", "/")).await.unwrap().status, 200);
    let mut command = talkative();
    command.args(["status", "--origin", &origin.url(), "--token-file"]).arg(origin_data.join("admin.token"));
    let status = command.output().unwrap();
    edge.terminate();
    origin.terminate();
    let said = [
        origin.log(),
        edge.log(),
        String::from_utf8_lossy(&status.stdout).into_owned(),
        String::from_utf8_lossy(&status.stderr).into_owned(),
    ];
    assert!(said[0].len() > 1_000 && said[1].len() > 1_000, "they say much");
    for name in ["admin.token", "node.token"] {
        let file = origin_data.join(name);
        assert!(said[0].contains(&*file.to_string_lossy()), "its path is printed");
        let secret = secret_of(&file);
        assert!(secret.len() > 20 && said.iter().all(|said| !said.contains(&secret)), "{name} is in a log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_it_speaks_tls_by_its_own_authority_and_refuses_cleartext() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("origin");
    let origin = Daemon::origin(&data, "0.0.0.0:0");
    assert!(origin.url().starts_with("https://"), "{}", origin.url());
    let port = origin.address("address").port();
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    // The token pins the authority: with it the same command works, and without that pin nothing is trusted.
    let status = |file: &Path| {
        let output =
            Command::new(selvedge()).args(["status", "--origin", &format!("https://127.0.0.1:{port}"), "--token-file"]).arg(file).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(status(&data.join("admin.token")), (Some(0), String::new()));
    let mut unpinned: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("admin.token")).unwrap()).unwrap();
    assert!(unpinned["authority"].is_string(), "the token pins it");
    unpinned["authority"] = serde_json::Value::Null;
    let file = dir.path().join("unpinned.token");
    std::fs::write(&file, unpinned.to_string()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (code, error) = status(&file);
    assert!(code == Some(1) && !error.is_empty(), "{code:?} {error}");
    // Cleartext has no answer that anybody could take for one.
    let mut socket = tokio::net::TcpStream::connect(here).await.unwrap();
    socket.write_all(b"GET /v1/health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), socket.read_to_end(&mut answer)).await.expect("it closes");
    assert!(!answer.starts_with(b"HTTP/"), "{:?}", String::from_utf8_lossy(&answer));
}
