//! demo: the whole product at once.

use std::path::Path;
use std::process::Command;

use selvedge_tests::selvedge;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");

#[test]
fn the_demonstration_ends_with_success() {
    demonstrate(Path::new(EXAMPLES), &["--without-npm"]);
}

#[test]
fn the_demonstration_with_hono_from_npm_ends_with_success() {
    if Command::new("npm").arg("--version").output().is_err() {
        eprintln!("npm is not there: the shop of the other test has no dependency");
        return;
    }
    // A copy: a test leaves nothing behind in the project.
    let dir = tempfile::tempdir().expect("a temporary folder");
    let copied = Command::new("cp").arg("-r").arg(EXAMPLES).arg(dir.path()).status().expect("cp");
    assert!(copied.success());
    let examples = dir.path().join("examples");
    let installed =
        Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(examples.join("shop")).output();
    let installed = installed.expect("npm starts");
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    assert!(examples.join("shop/node_modules/hono/package.json").is_file());
    demonstrate(&examples, &[]);
}

/// Runs it to its end: every row of its table is an answer over HTTP/3.
fn demonstrate(examples: &Path, flags: &[&str]) {
    let output = Command::new(selvedge())
        .args(["demo", "--once", "--nodes", "2", "--json", "--examples"])
        .arg(examples)
        .args(flags)
        .output()
        .expect("the built binary starts");
    let (text, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}\n{log}", output.status);
    let rows: Vec<serde_json::Value> = serde_json::from_str(text.trim()).expect("one document");
    let ok = |row: &serde_json::Value| row["status"] == 200 && row["protocol"] == "HTTP/3";
    assert!(rows.len() == 8 && rows.iter().all(ok), "{text}");
}
