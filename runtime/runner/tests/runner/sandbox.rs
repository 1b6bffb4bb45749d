//! The proof, and that it fails where the order is broken.

use std::io::Read;
use std::process::Stdio;

use selvedge_runtime::protocol::ToEdge;

use crate::Case;
use crate::edge::Runner;

pub(crate) const CASES: &[Case] = &[
    ("threads_that_are_older_than_landlock_are_found", threads_that_are_older_than_landlock_are_found),
    ("namespaces_after_threads_are_refused", namespaces_after_threads_are_refused),
    ("without_a_filter_the_proof_fails", without_a_filter_the_proof_fails),
    ("a_sandboxed_runner_has_nothing_open_and_no_privilege", a_sandboxed_runner_has_nothing_open_and_no_privilege),
    ("what_does_not_hold_is_named_where_that_is_allowed", what_does_not_hold_is_named_where_that_is_allowed),
    ("a_link_that_is_no_socket_is_refused", a_link_that_is_no_socket_is_refused),
];

/// Runs a broken order; gives what the runner said when it refused to run.
fn refusal(word: &str) -> String {
    let mut runner = Runner::spawn(&[word], 1, Stdio::piped());
    let status = runner.ended();
    let mut said = String::new();
    runner.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(66), "{said}");
    said
}

fn threads_that_are_older_than_landlock_are_found() {
    let said = refusal("runner-late-landlock");
    // A kernel without landlock has nothing to be found.
    assert!(said.contains("older than its landlock") || said.contains("no landlock"), "{said}");
}

fn namespaces_after_threads_are_refused() {
    let said = refusal("runner-early-threads");
    assert!(said.contains("Namespaces"), "{said}");
}

fn without_a_filter_the_proof_fails() {
    let said = refusal("runner-without-filter");
    assert!(said.contains("Proof: open is not refused on thread 1"), "{said}");
}

fn a_sandboxed_runner_has_nothing_open_and_no_privilege() {
    let runner = Runner::start();
    let pid = runner.inner_pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default().to_owned();
    assert_eq!((field("Seccomp:"), field("NoNewPrivs:"), field("CapEff:")), ("2".into(), "1".into(), "0000000000000000".into()));
    assert_eq!((field("CapPrm:"), field("CapBnd:")), ("0000000000000000".into(), "0000000000000000".into()));
    assert!(field("NSpid:").ends_with("\t1"), "{}", field("NSpid:"));
    // Only a privileged user may look further.
    let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return };
    for entry in open {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned();
        // One number about itself is all that is left of the file system.
        let known = ["socket:", "pipe:", "anon_inode:"].iter().any(|kind| target.starts_with(kind)) || target.ends_with("/statm");
        let stderr = std::fs::read_link("/proc/self/fd/2").unwrap().to_string_lossy().into_owned();
        assert!(known || target == stderr, "{target} is open");
    }
    assert_eq!(std::fs::read_dir(format!("/proc/{pid}/root")).unwrap().count(), 0);
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
    }
}

fn what_does_not_hold_is_named_where_that_is_allowed() {
    let mut runner = Runner::spawn(&["runner-early-threads", "--allow-unsandboxed"], 1, Stdio::piped());
    let Some(hello) = runner.link().try_receive(|message| matches!(message, ToEdge::Hello { .. })) else {
        let mut said = String::new();
        runner.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        panic!("{:?} {said}", runner.ended());
    };
    let ToEdge::Hello { unsandboxed, .. } = hello else { unreachable!() };
    runner.link().load_handler(1, "return new Response('runs')");
    assert_eq!(runner.link().run(1, 1).text(), "runs");
    runner.child.kill().unwrap();
    let mut said = String::new();
    runner.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(unsandboxed, "Namespaces, Root, Walls, Proof", "{said}");
    assert!(said.contains("UNSANDBOXED: sandbox: Namespaces"), "{said}");
}

fn a_link_that_is_no_socket_is_refused() {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let status = command.args(["runner", "--links", "3", "--board", "4"]).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(66));
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let status = command.args(["runner", "--links", "1", "--board", "4"]).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(64));
}
