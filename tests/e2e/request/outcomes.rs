//! A worker that misbehaves gets its own error, with its outcome named, and nobody else notices.

use std::time::{Duration, Instant};

use selvedge_tests::{Answer, Cluster, Deploy, fixture};

async fn answer_of(name: &'static str) -> (Answer, Duration) {
    let cluster = Cluster::start(1).await;
    let worker = name.replace('_', "-");
    cluster.deploy(&worker, &fixture(name)).await;
    cluster.deploy_with("bystander", &fixture("hello"), Deploy { cordon: Some("elsewhere"), ..Deploy::default() }).await;
    let start = Instant::now();
    let answer = cluster.get(&format!("{worker}.test"), "/").await;
    let took = start.elapsed();
    assert_eq!(cluster.get("bystander.test", "/").await.status, 200, "a worker in another cordon does not notice");
    (answer, took)
}

fn names(answer: &Answer, outcome: &str) {
    assert!(answer.status >= 500, "{} {}", answer.status, answer.text());
    assert!(answer.header("proxy-status").contains(outcome), "{:?} does not name {outcome}", answer.headers.get("proxy-status"));
    assert!(answer.text().contains(outcome), "{} does not name {outcome}", answer.text());
}

/// One of these, whichever comes first on this machine.
fn names_one_of(answer: &Answer, outcomes: &[&str]) {
    names(answer, outcomes.iter().find(|outcome| answer.text().contains(**outcome)).unwrap_or(&outcomes[0]));
}

/// Memory or CPU. Where an allocator refuses, the worker may see a RangeError, too.
const MEMORY: [&str; 3] = ["exceededMemory", "exceededCpu", "exception"];

#[tokio::test(flavor = "multi_thread")]
async fn an_exception() {
    names(&answer_of("throws").await.0, "exception");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop() {
    let (answer, took) = answer_of("spin").await;
    names(&answer, "exceededCpu");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_builtin_that_cannot_be_terminated() {
    let (answer, took) = answer_of("index_of").await;
    names(&answer, "exceededCpu");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_without_end() {
    names_one_of(&answer_of("allocate_objects").await.0, &MEMORY[..2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_huge_array() {
    names_one_of(&answer_of("allocate_array").await.0, &MEMORY[..2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn buffers_without_end() {
    names_one_of(&answer_of("allocate_buffers").await.0, &MEMORY);
}

#[tokio::test(flavor = "multi_thread")]
async fn wasm_memory_without_end() {
    names_one_of(&answer_of("allocate_wasm").await.0, &MEMORY);
}

#[tokio::test(flavor = "multi_thread")]
async fn recursion_without_end() {
    names_one_of(&answer_of("recurse").await.0, &["exceededCpu", "exception"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn getters_that_loop_while_the_error_is_formatted() {
    let (answer, took) = answer_of("looping_getters").await;
    names_one_of(&answer, &["exception", "exceededCpu"]);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_on_after_its_own_failure() {
    let cluster = Cluster::start(1).await;
    let script = "export default { fetch(request) { if (new URL(request.url).pathname === '/spin') while (true) {} return new Response('fine'); } };";
    cluster.deploy("moody", script).await;
    for _ in 0..3 {
        assert_eq!(cluster.get("moody.test", "/spin").await.status, 503, "over its CPU limit");
        assert_eq!(cluster.get("moody.test", "/").await.text(), "fine");
    }
}
