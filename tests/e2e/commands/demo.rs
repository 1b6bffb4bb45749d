//! demo: the whole product at once.

use std::process::Command;

use selvedge_tests::selvedge;

#[test]
fn the_demonstration_ends_with_success() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");
    let output = Command::new(selvedge())
        .args(["demo", "--once", "--without-npm", "--nodes", "2", "--json", "--examples", examples])
        .output()
        .expect("the built binary starts");
    let (text, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}\n{log}", output.status);
    let rows: Vec<serde_json::Value> = serde_json::from_str(text.trim()).expect("one document");
    let ok = |row: &serde_json::Value| row["status"] == 200 && row["protocol"] == "HTTP/3";
    assert!(rows.len() == 8 && rows.iter().all(ok), "{text}");
}
