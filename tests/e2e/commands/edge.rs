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
