//! Certificates from files, as the built binary serves them: chosen by name, and read again when the files change.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use selvedge_tests::client::certificate_of;
use selvedge_tests::{Cluster, Daemon, eventually, selvedge};

/// Writes a certificate of its own authority for a name, and gives it as DER.
fn write(folder: &Path, name: &str) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    std::fs::write(folder.join("leaf.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("leaf.pem"), made.cert.pem()).unwrap();
    made.cert.der().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_changes_on_disk_is_served_soon_after_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (origin_data, edge_data, folder) = (dir.path().join("origin"), dir.path().join("edge"), dir.path().to_owned());
    let first = write(&folder, "page.test");
    let origin = Daemon::origin(&origin_data, "127.0.0.1:0");
    let mut arguments = Daemon::edge_arguments("node-0", &edge_data, &origin.url(), &origin_data, "127.0.0.1:0", "127.0.0.1:0");
    for (flag, file) in [("--cert", "leaf.pem"), ("--key", "leaf.key")] {
        arguments.extend([flag.to_owned(), folder.join(file).to_string_lossy().into_owned()]);
    }
    let edge = Daemon::start_by(Command::new(selvedge()), &arguments);
    let _cluster = Cluster::around(origin.client(&origin_data), dir, 1).await;
    let https = edge.address("https");
    assert_eq!(certificate_of(https, "page.test").await.unwrap(), first);
    let second = write(&folder, "page.test");
    assert_ne!(first, second);
    let changed = async || (certificate_of(https, "page.test").await.ok()? == second).then_some(());
    eventually("the new one is served", Duration::from_secs(10), changed).await;
    // Half a file is none: the last good one stays.
    std::fs::write(folder.join("leaf.pem"), "half a file").unwrap();
    let told = async || edge.log().contains("leaf.pem").then_some(());
    eventually("the log names the file", Duration::from_secs(10), told).await;
    assert_eq!(certificate_of(https, "page.test").await.unwrap(), second);
}
