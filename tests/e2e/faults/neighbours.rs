//! What a misbehaving worker costs the others: nothing in another cordon, only what ran beside it in its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use selvedge_tests::client::{self, Connection};
use selvedge_tests::{Cluster, Deploy, Upstream, fixture, route};

struct Tally {
    answers: usize,
    /// Status, time, and when the client is told to try again.
    lost: Vec<(u16, Duration, String)>,
    latencies: Vec<Duration>,
}

impl Tally {
    fn p99(&mut self) -> Duration {
        self.latencies.sort();
        self.latencies.get(self.latencies.len() * 99 / 100).copied().unwrap_or_default()
    }
}

/// Steady GETs and POSTs until it is stopped.
async fn steady(address: std::net::SocketAddr, host: &'static str, stop: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally { answers: 0, lost: Vec::new(), latencies: Vec::new() };
    let mut connection = Connection::open(address).await.expect("the node accepts");
    while !stop.load(Ordering::Relaxed) {
        let method = if tally.answers.is_multiple_of(2) { "GET" } else { "POST" };
        let body = if method == "POST" { "some bytes" } else { "" };
        let start = Instant::now();
        let answer = connection.send(client::request(method, host, "/", body)).await.expect("an answer");
        tally.latencies.push(start.elapsed());
        tally.answers += 1;
        if answer.status != 200 {
            tally.lost.push((answer.status, start.elapsed(), answer.header("retry-after").to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(2)).await; // a steady rate, not a flood
    }
    tally
}

async fn beside(offender: &str, rounds: usize) -> (Tally, Tally, Tally) {
    let cluster = Cluster::start(1).await;
    let upstream = Upstream::start(|_| http::Response::builder().header("cache-control", "max-age=600").body("x".into()).unwrap()).await;
    cluster.apply(vec![route("cached.test/*", None, Some(&upstream.url()))]).await;
    let in_cordon = |cordon| Deploy { cordon: Some(cordon), ..Deploy::default() };
    cluster.deploy_with("offender", &fixture(offender), in_cordon("one")).await;
    cluster.deploy_with("same", &fixture("echo"), in_cordon("one")).await;
    cluster.deploy_with("other", &fixture("echo"), in_cordon("two")).await;
    cluster.get("cached.test", "/").await;
    let stop = Arc::new(AtomicBool::new(false));
    let address = cluster.edges[0].http;
    let start = |host| tokio::spawn(steady(address, host, stop.clone()));
    let (same, other, cached) = (start("same.test"), start("other.test"), start("cached.test"));
    for _ in 0..rounds {
        let answer = cluster.get("offender.test", "/?rounds=40000000").await;
        assert!(answer.status == 200 || answer.status >= 500, "{}", answer.status);
    }
    stop.store(true, Ordering::Relaxed);
    (same.await.unwrap(), other.await.unwrap(), cached.await.unwrap())
}

fn unharmed(same: &Tally, other: &Tally, cached: &Tally) {
    assert!(other.answers > 20 && cached.answers > 20, "{} and {} answers", other.answers, cached.answers);
    assert!(other.lost.is_empty(), "another cordon lost {:?}", other.lost);
    // Cached answers need no runner at all: GETs hit, and POSTs go to the upstream.
    assert!(cached.lost.is_empty(), "the cache lost {:?}", cached.lost);
    for (status, took, retry) in &same.lost {
        assert!(*status == 503 && *took < Duration::from_millis(1000), "the same cordon lost {status} after {took:?}");
        assert_eq!(retry, "1", "a client that lost its answer to another's fault is told to try again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_costs_others_nothing() {
    let (same, other, cached) = beside("spin", 5).await;
    unharmed(&same, &other, &cached);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_builtin_that_ignores_termination_costs_others_nothing() {
    let (same, other, cached) = beside("index_of", 3).await;
    unharmed(&same, &other, &cached);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_runs_out_of_memory_costs_others_nothing() {
    let (same, other, cached) = beside("allocate_array", 3).await;
    unharmed(&same, &other, &cached);
}

#[tokio::test(flavor = "multi_thread")]
async fn legal_computing_does_not_hold_the_others_up() {
    let (mut same, mut other, cached) = beside("compute", 20).await;
    unharmed(&same, &other, &cached);
    assert!(same.lost.is_empty(), "{:?}", same.lost);
    let (same, other) = (same.p99(), other.p99());
    assert!(same < Duration::from_millis(250) && other < Duration::from_millis(250), "p99 {same:?} beside it, {other:?} elsewhere");
}
