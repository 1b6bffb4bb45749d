//! More than a node can do: of one worker, and of all that it does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use selvedge_tests::client::{self, Answer, Over};
use selvedge_tests::{Built, Cluster, Deploy, Exposition, Upstream, eventually, fixture, route};

/// CPU time of one run: eight threads, which is what one worker comes to at most, are held by half of what comes at [`PACE`].
const RUN: Duration = Duration::from_millis(100);
/// Between two requests.
const PACE: Duration = Duration::from_millis(6);
/// For so long they come.
const FLOOD: Duration = Duration::from_secs(4);
/// Who comes after this finds a queue that stands: a second, and as much as a busy machine may be late.
const STANDING_FROM: Duration = Duration::from_millis(1_800);
/// Half of those who are refused then know it by this time: a wait of 100 ms, on a machine whose processors are all taken.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);
/// All of them. A burst waits for 5 s.
const REFUSED_ALL_WITHIN: Duration = Duration::from_secs(3);

async fn ask(address: SocketAddr, host: &str, path: &str) -> Answer {
    client::send(Over::Cleartext, address, client::get(host, path)).await.expect("an answer")
}

/// Rounds that compute for [`RUN`] here: of three tries the fastest counts.
async fn rounds(address: SocketAddr) -> u64 {
    const TRIED: u64 = 4_000_000;
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(ask(address, "busy.test", &format!("/?rounds={TRIED}")).await.status, 200);
        least = least.min(begun.elapsed());
    }
    (TRIED as f64 * RUN.as_secs_f64() / least.as_secs_f64()) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn under_twice_what_a_worker_can_do_refusals_come_soon_and_answers_go_on() {
    let cluster = Cluster::start(1).await;
    cluster.deploy_with("busy", &fixture("compute"), Deploy { cpu_ms: Some(10_000), ..Deploy::default() }).await;
    let address = cluster.edges[0].http;
    let path = format!("/?rounds={}", rounds(address).await);
    let (begun, mut asked) = (Instant::now(), Vec::new());
    while begun.elapsed() < FLOOD {
        let path = path.clone();
        asked.push(tokio::spawn(async move {
            let came = begun.elapsed();
            let answer = ask(address, "busy.test", &path).await;
            (came, begun.elapsed() - came, answer)
        }));
        tokio::time::sleep(PACE).await;
    }
    let (mut waits, mut done) = (Vec::new(), 0);
    for asked in asked {
        let (came, took, answer) = asked.await.unwrap();
        match answer.status {
            200 => done += usize::from(came + took > STANDING_FROM),
            503 => {
                assert_eq!(answer.header("retry-after"), "1", "{:?}", answer.headers);
                assert!(answer.header("proxy-status").contains("worker busy: loadShed"), "{:?}", answer.headers);
                waits.extend((came > STANDING_FROM).then_some(took));
            }
            _ => panic!("{} {}", answer.status, answer.text()),
        }
    }
    assert!(!waits.is_empty(), "nobody was refused");
    waits.sort();
    let (half, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("of those who came late {} were refused, half within {half:?}, all within {longest:?}; {done} answers came", waits.len());
    assert!(half < REFUSED_WITHIN && longest < REFUSED_ALL_WITHIN, "{half:?} {longest:?}");
    assert!(done > 0, "what comes is refused, and nothing done");
    let over = async || (ask(address, "busy.test", "/?rounds=1").await.status == 200).then_some(());
    eventually("the queue is empty", Duration::from_secs(10), over).await;
}

/// How long the node runs between two stops: less than it waits between two looks at how late it is, so that each look is late.
const RUNNING: Duration = Duration::from_millis(20);

/// A process that is stopped again and again, until this is dropped: it runs for [`RUNNING`], and is late by what it was stopped, less some.
struct Starved {
    ends: Arc<AtomicBool>,
    pulse: Option<JoinHandle<()>>,
}

impl Starved {
    fn begin(pid: u32, stopped: Duration) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let until = ends.clone();
        let pulse = std::thread::spawn(move || {
            // SAFETY: kill takes no memory; the id is that of a node that this test started.
            let signal = |signal| unsafe { libc::kill(pid as i32, signal) };
            while !until.load(Ordering::Relaxed) {
                signal(libc::SIGSTOP);
                std::thread::sleep(stopped);
                signal(libc::SIGCONT);
                std::thread::sleep(RUNNING);
            }
        });
        Self { ends, pulse: Some(pulse) }
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.pulse.take().map(JoinHandle::join);
    }
}

/// What one of several like requests gets: on a machine that is busy itself a look may be in time, and the node calm for the next one.
async fn one_of(what: &str, hosts_or_paths: &[String], mut ask: impl AsyncFnMut(&str) -> Answer, is: impl Fn(&Answer) -> bool) {
    let mut seen = Vec::new();
    for each in hosts_or_paths {
        let answer = ask(each).await;
        if is(&answer) {
            return;
        }
        seen.push((each, answer.status, answer.text()));
    }
    panic!("{what}: {seen:?}");
}

fn is_refused(answer: &Answer, details: &str) -> bool {
    let named = format!("error=connection_limit_reached; details=\"{details}\"");
    answer.status == 503 && answer.header("retry-after") == "1" && answer.header("proxy-status").contains(&named)
}

/// The node's workers are forgotten with its runners: only a request loads one again.
fn kill_runners(edge: &selvedge_tests::Daemon) {
    for pid in edge.children() {
        // SAFETY: kill takes no memory; the ids are those of runners of a node that this test started.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    }
}

/// Names of which each is used once.
fn several(prefix: &str, round: usize) -> Vec<String> {
    (0..3).map(|number| format!("{prefix}{round}-{number}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_starved_node_refuses_cold_starts_then_workers_then_misses_and_answers_what_is_stored() {
    let Built { cluster, edge, origin: _origin, .. } = Built::start().await;
    let upstream = Upstream::start(|request| {
        let age = if request.uri().path() == "/stale" { "max-age=1" } else { "max-age=600" };
        http::Response::builder().header("cache-control", age).body("page".into()).unwrap()
    })
    .await;
    cluster.apply(vec![route("page.test/*", None, Some(&upstream.url()))]).await;
    let (http, admin) = (edge.address("http"), edge.address("admin"));
    cluster.deploy("warm", &fixture("hello")).await;
    let cold: Vec<_> = (1..=3).flat_map(|round| several("cold", round)).collect();
    for name in &cold {
        cluster.deploy(name, &fixture("hello")).await;
    }
    kill_runners(&edge);
    let back = async || (ask(http, "warm.test", "/").await.status == 200).then_some(());
    eventually("a worker is loaded again", Duration::from_secs(20), back).await;
    for path in ["/stored", "/stale"] {
        assert_eq!(ask(http, "page.test", path).await.status, 200);
    }

    let rounds = [(430, "cold"), (720, "cold, worker"), (1_350, "cold, worker, miss")];
    for (round, (stopped_ms, refused)) in (1..).zip(rounds) {
        let _starved = Starved::begin(edge.pid(), Duration::from_millis(stopped_ms));
        let is_so =
            async || (ask(admin, "admin", "/readyz").await.text() == format!("ready\noverloaded, refuses: {refused}\n")).then_some(());
        eventually(&format!("the node refuses {refused}"), Duration::from_secs(40), is_so).await;
        let hit = ask(http, "page.test", "/stored").await;
        assert!(hit.status == 200 && hit.header("cache-status").contains("; hit"), "{} {:?}", hit.status, hit.headers);
        let of_host = async |name: &str| ask(http, &format!("{name}.test"), "/").await;
        let shed = |answer: &Answer| answer.status == 503 && answer.header("proxy-status").contains(": loadShed");
        one_of("a cold worker", &several("cold", round), of_host, |answer| shed(answer) && answer.header("retry-after") == "1").await;
        let warm = vec!["warm".to_owned(); 3];
        let is_warm = |answer: &Answer| if round >= 2 { is_refused(answer, "worker warm: loadShed") } else { answer.status == 200 };
        one_of("a loaded worker", &warm, of_host, is_warm).await;
        let of_path = async |path: &str| ask(http, "page.test", path).await;
        let is_missed = |answer: &Answer| if round == 3 { is_refused(answer, "the node is overloaded") } else { answer.status == 200 };
        one_of("a miss", &several("/new", round), of_path, is_missed).await;
        if round == 3 {
            let stands_in = |answer: &Answer| answer.status == 200 && answer.header("cache-status").contains("detail=stale-if-error");
            one_of("what is stale", &vec!["/stale".to_owned(); 3], of_path, stands_in).await;
        }
    }

    let calm = async || (ask(admin, "admin", "/readyz").await.text() == "ready\n").then_some(());
    eventually("the node is calm", Duration::from_secs(10), calm).await;
    for host in cold.iter().map(String::as_str).chain(["warm"]) {
        assert_eq!(ask(http, &format!("{host}.test"), "/").await.status, 200, "{host}");
    }
    assert_eq!(ask(http, "page.test", "/new3-0").await.status, 200);
    let page = Exposition::read(&ask(admin, "admin", "/metrics").await.text()).unwrap();
    assert_eq!(page.get("selvedge_overload_level", &[]), Some(0.0));
    for work in ["cold", "worker", "miss"] {
        assert!(page.get("selvedge_shed_total", &[("work", work)]) >= Some(1.0), "{work}");
    }
    assert!(edge.log().contains("the node is overloaded: refuses work up to this"), "{}", edge.log());
}
