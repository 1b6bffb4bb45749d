//! The public HTTP caching suite (npm: http-cache-tests) against the built binary, over h1 in cleartext, h1 over TLS, and h2.
//!
//! `tests/conformance/failing.json` lists the optional tests that a node does not pass, with the reason; `overtaken.json` those that RFC 9111 has overtaken since that
//! edition; `own.mjs` adds tests in its form for later standards. No required test may fail, and the list must be right in both directions.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use selvedge_origin::registry::CacheSettings;
use selvedge_tests::{Built, route};

use super::output;

/// What became of one test of the suite.
#[derive(Debug, serde::Deserialize)]
struct Outcome {
    id: String,
    kind: String,
    failure: Option<String>,
}

/// The suite's own upstream. Ends with this.
struct Upstream(Child);

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

fn upstream() -> (Upstream, String) {
    let mut server = Command::new("node")
        .arg(folder().join("server.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("node starts (./x test installs it)");
    let mut port = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
    assert!(!port.trim().is_empty(), "the suite's server did not start: run npm ci in tests/conformance, or ./x test, which does");
    (Upstream(server), format!("http://127.0.0.1:{}", port.trim()))
}

/// Runs all tests over one protocol.
fn run(base: &str, more: &[&str]) -> Vec<Outcome> {
    let script = folder().join("run.mjs");
    let text = output(Path::new("node"), &[&[script.to_str().unwrap(), base], more].concat());
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_required_test_of_the_public_caching_suite_fails() {
    let built = Built::start().await;
    let (_upstream, address) = upstream();
    let mut to_suite = route("/*", None, Some(&address));
    to_suite.cache = CacheSettings { store_set_cookie: true, ..CacheSettings::default() };
    built.cluster.apply(vec![to_suite]).await;
    let (http, https) = (format!("http://{}", built.edge.address("http")), format!("https://{}", built.edge.address("https")));
    let ca = built.edge_data.join("authority/ca.pem");
    let ca = ca.to_str().unwrap();
    let listed: BTreeMap<String, String> = serde_json::from_slice(&std::fs::read(folder().join("failing.json")).unwrap()).unwrap();
    for (protocol, base, more) in
        [("h1", &http, &[][..]), ("h1 over TLS", &https, &["--ca", ca][..]), ("h2", &https, &["--ca", ca, "--h2"][..])]
    {
        let outcomes = tokio::task::block_in_place(|| run(base, more));
        let of = |kind: &str| outcomes.iter().filter(|outcome| outcome.kind == kind).collect::<Vec<_>>();
        let (required, optional) = (of("required"), of("optimal"));
        assert!(required.len() > 150 && optional.len() > 90, "{protocol}: only {} and {} tests", required.len(), optional.len());
        let failed: Vec<_> = required.iter().filter(|outcome| outcome.failure.is_some()).collect();
        assert!(failed.is_empty(), "{protocol}: {failed:#?}");
        let failed: BTreeSet<&str> =
            optional.iter().filter(|outcome| outcome.failure.is_some()).map(|outcome| outcome.id.as_str()).collect();
        let listed: BTreeSet<&str> = listed.keys().map(String::as_str).collect();
        assert_eq!(failed, listed, "{protocol}: what fails is not what tests/conformance/failing.json lists");
    }
}
