//! What `selvedge edge` wants to be told before it starts.

use std::process::Command;

use selvedge_tests::{Daemon, selvedge};

use super::Installation;

#[test]
fn a_node_says_what_it_needs_to_join_and_one_that_has_joined_needs_no_token_file() {
    let mut installation = Installation::start();
    let (fresh, url) = (installation.dir.path().join("fresh"), installation.url().to_owned());
    let arguments = ["edge", "--origin", &url, "--http", "127.0.0.1:0", "--data"];
    let refused = Command::new(selvedge()).args(arguments).arg(&fresh).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("--token-file") && said.contains("node.token"), "{said}");
    assert!(!fresh.exists(), "nothing was done");

    drop(installation.edge.take());
    let (data, origin) = (installation.dir.path().join("edge"), installation.dir.path().join("origin"));
    let mut arguments = Daemon::edge_arguments("node-0", &data, &url, &origin, "127.0.0.1:0", "127.0.0.1:0");
    let at = arguments.iter().position(|argument| argument == "--token-file").unwrap();
    arguments.drain(at..at + 2);
    let again = Daemon::start_by(Command::new(selvedge()), &arguments);
    assert_eq!(again.addresses["node"], "node-0");
}

#[test]
fn a_check_looks_at_the_files_that_a_start_needs_and_writes_none() {
    let installation = Installation::without_nodes();
    let (good, folder) = (installation.dir.path().join("origin/node.token"), installation.dir.path());
    let check = |token: &std::path::Path, data: &std::path::Path| {
        let mut command = Command::new(selvedge());
        command.args(["edge", "--check", "--origin", installation.url(), "--http", "127.0.0.1:0", "--token-file"]).arg(token);
        let ended = command.arg("--data").arg(data).output().unwrap();
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let fresh = folder.join("fresh/edge");
    assert_eq!(check(&good, &fresh), (Some(0), String::new()));
    assert!(!folder.join("fresh").exists(), "nothing is made");
    let file = folder.join("file");
    std::fs::write(&file, "no folder, and no token").unwrap();
    let refused = |token: &std::path::Path, data: &std::path::Path, word: &str| {
        let (code, said) = check(token, data);
        assert!(code == Some(1) && said.contains(word), "{word}: {said}");
    };
    refused(&good, &file, "is not a folder");
    refused(&file, &fresh, "file");
    refused(&folder.join("missing"), &fresh, "missing");
    refused(&folder.join("origin/admin.token"), &fresh, "is not a node token");
    let joined = folder.join("joined");
    std::fs::create_dir(&joined).unwrap();
    std::fs::write(joined.join("node.json"), "{").unwrap();
    refused(&good, &joined, "node.json");
}
