//! What the node's log says of workers: as JSON, with who and when, and as much of one as does not drown the others.

use std::time::Duration;

use selvedge_tests::client::{self, Over, get};
use selvedge_tests::{Built, Daemon, eventually, fixture};
use serde_json::Value;

/// Lines that one worker may log at once, and in a second; see `WORKER_LOG_BURST` of the edge.
const BURST: usize = 500;
const PER_SECOND: usize = 100;

/// The lines of the log that hold a text, as documents.
fn lines(edge: &Daemon, text: &str) -> Vec<Value> {
    edge.log()
        .lines()
        .filter(|line| line.contains(text))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_has_worker_version_and_request_and_one_that_floods_the_log_does_not_silence_another() {
    let Built { cluster, edge, origin: _origin, .. } = Built::start().await;
    let http = edge.address("http");
    let quiet = "export default { fetch(request) { console.warn('a quiet line'); if (request.url.endsWith('/throw')) throw new Error('a loud end'); return new Response('x'); } };";
    let version = cluster.deploy("quiet", quiet).await;
    let flood = "export default { fetch() { for (let n = 0; n < 900; n++) console.log('a flood'); return new Response('x'); } };";
    cluster.deploy("floods", flood).await;
    let begun = std::time::Instant::now();
    for _ in 0..6 {
        assert_eq!(client::send(Over::Cleartext, http, get("floods.test", "/")).await.unwrap().status, 200);
    }
    let mut request = get("quiet.test", "/throw");
    request.headers_mut().insert("x-request-id", http::HeaderValue::from_static("of-this-test"));
    let answer = client::send(Over::Cleartext, http, request).await.unwrap();
    assert_eq!(answer.status, 500);
    let both = async || (lines(&edge, "a quiet line").len() == 1 && !lines(&edge, "a loud end").is_empty()).then_some(());
    eventually("the quiet worker is heard", Duration::from_secs(10), both).await;
    let id = answer.header("x-request-id");
    assert!(!id.is_empty(), "{:?}", answer.headers);
    for line in [&lines(&edge, "a quiet line")[0], &lines(&edge, "a loud end")[0]] {
        assert_eq!(
            (&line["worker.name"], &line["worker.version"], &line["request.id"]),
            (&"quiet".into(), &version.id.as_str().into(), &id.into()),
            "{line}"
        );
        assert!(line["timestamp"].is_string() && line["level"] == "WARN", "{line}");
    }
    let flooded = lines(&edge, "a flood").len();
    let most = BURST + PER_SECOND * (begun.elapsed().as_secs() as usize + 1);
    assert!(flooded >= BURST && flooded <= most, "{flooded} of 5400 lines, at most {most}");
    // Nothing of ours is drowned either.
    cluster.deploy("next", &fixture("hello")).await;
}
