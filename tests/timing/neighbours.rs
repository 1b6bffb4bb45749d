//! What a misbehaving worker costs the others: nothing in another cordon and nothing of the cache, only what ran beside it in its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use selvedge_tests::client::{self, Connection, Over};
use selvedge_tests::{Built, CPU, Crossing, Deploy, Reach, Upstream, eventually, fixture, route};
use tokio::task::JoinHandle;

use crate::{ALONE, OFFENDERS, Offender};

/// The pace of a neighbour's requests: a steady rate, not a flood.
const PACE: Duration = Duration::from_millis(5);
/// How long after the offender's limit those who lose their answer are told.
const LOST_MAX: Duration = Duration::from_millis(300);
/// What one request of a hundred may take.
const P99_MAX: Duration = Duration::from_millis(50);
/// How often something is measured. What else runs on this machine is no part of the promise: one run within it shows that it can be kept.
const RUNS_MAX: usize = 4;
/// Runs of a worker to its full legal limit while its neighbours are watched.
const COMPUTED: usize = 20;

/// What a neighbour does: its requests are inside for longer than a runner has to live that is given up, so that one of each method dies with it.
const INSIDE: &str =
    "export default { async fetch(request) { const text = await request.text(); await scheduler.wait(250); return new Response(text); } };";

/// Somebody who asks by GET on one connection and by POST on another, until he is stopped.
struct Steady {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    asking: [JoinHandle<Tally>; 2],
}

#[derive(Default)]
struct Tally {
    lost: Vec<Lost>,
    latencies: Vec<Duration>,
}

/// An answer that is not the worker's.
#[derive(Debug)]
struct Lost {
    status: u16,
    retry_after: String,
    at: Instant,
}

impl Steady {
    /// Begins; returns when the first answers are there.
    async fn start(address: SocketAddr, host: String) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let ask = |method, body| tokio::spawn(ask(address, client::request(method, &host, "/", body), stop.clone(), answers.clone()));
        let asking = [ask("GET", ""), ask("POST", "some bytes")];
        let steady = Self { stop, answers, asking };
        eventually("answers", Duration::from_secs(10), async || (steady.answers.load(Ordering::Relaxed) >= 2).then_some(())).await;
        steady
    }

    async fn end(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let [got, posted] = self.asking;
        let (mut all, posted) = (got.await.expect("every GET has an answer"), posted.await.expect("every POST has an answer"));
        all.lost.extend(posted.lost);
        all.latencies.extend(posted.latencies);
        all
    }
}

async fn ask(address: SocketAddr, request: http::Request<bytes::Bytes>, stop: Arc<AtomicBool>, answers: Arc<AtomicUsize>) -> Tally {
    let mut tally = Tally::default();
    let mut connection = Connection::open(address).await.expect("the node accepts");
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let answer = connection.send(request.clone()).await.expect("an answer");
        tally.latencies.push(start.elapsed());
        if answer.status != 200 {
            tally.lost.push(Lost { status: answer.status, retry_after: answer.header("retry-after").to_owned(), at: Instant::now() });
        }
        answers.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PACE).await;
    }
    tally
}

impl Tally {
    fn p99(&mut self) -> Duration {
        self.latencies.sort();
        self.latencies.get(self.latencies.len() * 99 / 100).copied().unwrap_or_default()
    }
}

/// A node, and an upstream whose page it has stored.
async fn stage() -> (Built, Upstream) {
    // One thread: a neighbour in the cordon has to share it with the offender.
    let built = Built::start_with("[runner]\nthreads = 1\n").await;
    let upstream = Upstream::start(|_| http::Response::builder().header("cache-control", "max-age=600").body("x".into()).unwrap()).await;
    built.cluster.apply(vec![route("cached.test/*", None, Some(&upstream.url()))]).await;
    (built, upstream)
}

fn in_cordon(cordon: &'static str) -> Deploy {
    Deploy { cordon: Some(cordon), ..Deploy::default() }
}

async fn get(built: &Built, host: &str, path: &str) -> client::Answer {
    client::send(Over::Cleartext, built.edge.address("http"), client::get(host, path)).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_offender_costs_another_cordon_or_the_cache_an_answer_and_its_own_is_told_within_300_ms() {
    let _alone = ALONE.lock().await;
    let (built, _upstream) = stage().await;
    built.cluster.deploy_with("other", INSIDE, in_cordon("two")).await;
    for offender in &OFFENDERS {
        let mut lates = Vec::new();
        while lates.len() < RUNS_MAX && lates.iter().all(|late| *late > LOST_MAX) {
            lates.push(beside(&built, offender, lates.len()).await);
        }
        println!("{}: the last in its cordon is told {lates:?} after the limit", offender.name);
        assert!(lates.iter().any(|late| *late <= LOST_MAX), "{}: {lates:?}", offender.name);
    }
}

/// How long after the offender's limit the last of those who lost an answer was told; nobody in its cordon: zero.
async fn beside(built: &Built, offender: &Offender, run: usize) -> Duration {
    let (address, pid) = (built.edge.address("http"), built.edge.pid());
    // Anew each time: what is proven does not run beside what is not.
    let (worker, same) = (format!("{}-{run}", offender.name.replace('_', "-")), format!("same-{}-{run}", offender.name.replace('_', "-")));
    built.cluster.deploy_with(&worker, &fixture(offender.name), in_cordon("one")).await;
    built.cluster.deploy_with(&same, INSIDE, in_cordon("one")).await;
    Crossing::wait_until_calm(pid);
    let start = |host: String| Steady::start(address, host);
    let (same, other, cached) = tokio::join!(start(format!("{same}.test")), start("other.test".into()), start("cached.test".into()));
    let crossing = Crossing::watch(pid, Reach::default());
    let answer = get(built, &format!("{worker}.test"), "/").await;
    // Whoever it took with it hears of it now.
    tokio::time::sleep(LOST_MAX).await;
    let crossed = crossing.moment(&answer.text());
    let (same, other, cached) = (same.end().await, other.end().await, cached.end().await);
    assert!(answer.status >= 500, "{worker}: {} {}", answer.status, answer.text());
    assert!(other.lost.is_empty(), "{worker}: another cordon lost {:?}", other.lost);
    // Cached answers need no runner at all: GETs hit, and POSTs go to the upstream.
    assert!(cached.lost.is_empty(), "{worker}: the cache lost {:?}", cached.lost);
    let told = same.lost.iter().all(|lost| (lost.status, lost.retry_after.as_str()) == (503, "1"));
    assert!(told, "{worker}: a client that lost its answer to another's fault is told to try again: {:?}", same.lost);
    same.lost.iter().map(|lost| lost.at.saturating_duration_since(crossed)).max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_p99_of_neighbours_stays_under_50_ms_while_a_worker_computes_to_its_full_legal_limit() {
    let _alone = ALONE.lock().await;
    let (built, _upstream) = stage().await;
    built.cluster.deploy_with("tried", &fixture("compute"), in_cordon("three")).await;
    built.cluster.deploy_with("other", &fixture("echo"), in_cordon("two")).await;
    let path = format!("/?rounds={}", rounds_to_the_limit(&built).await);
    let mut measured = Vec::new();
    while measured.len() < RUNS_MAX && measured.iter().all(|p99s: &[Duration; 3]| p99s.iter().any(|p99| *p99 >= P99_MAX)) {
        // Anew each time: what has been moved apart once stays apart.
        let (computes, same) = (format!("computes-{}", measured.len()), format!("same-{}", measured.len()));
        built.cluster.deploy_with(&computes, &fixture("compute"), in_cordon("one")).await;
        built.cluster.deploy_with(&same, &fixture("echo"), in_cordon("one")).await;
        let mut watched = Vec::new();
        for host in [format!("{same}.test"), "other.test".into(), "cached.test".into()] {
            watched.push(Steady::start(built.edge.address("http"), host).await);
        }
        for _ in 0..COMPUTED {
            let answer = get(&built, &format!("{computes}.test"), &path).await;
            assert!(answer.status == 200 || answer.text().contains("exceededCpu"), "{} {}", answer.status, answer.text());
        }
        let mut p99s = [Duration::ZERO; 3];
        for (steady, p99) in watched.into_iter().zip(&mut p99s) {
            let mut tally = steady.end().await;
            assert!(tally.lost.is_empty(), "{:?}", tally.lost);
            *p99 = tally.p99();
        }
        measured.push(p99s);
    }
    println!("p99 in the cordon of one that computes, in another, of the cache: {measured:?}");
    assert!(measured.iter().any(|p99s| p99s.iter().all(|p99| *p99 < P99_MAX)), "{measured:?}");
}

/// As many rounds as take nine tenths of the limit on this machine.
async fn rounds_to_the_limit(built: &Built) -> u64 {
    let tried = 10_000_000;
    let mut took = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(get(built, "tried.test", &format!("/?rounds={tried}")).await.status, 200);
        took = took.min(start.elapsed());
    }
    let rounds = tried as f64 * CPU.as_secs_f64() * 0.9 / took.as_secs_f64();
    println!("{rounds} rounds to nine tenths of the limit");
    rounds as u64
}
