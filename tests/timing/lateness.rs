//! How long after a limit was crossed the answers come: the offender's own, and those of what ran beside it.

use std::time::{Duration, Instant};

use selvedge_tests::client::{self, Over};
use selvedge_tests::{Built, Busy, CPU, Crossing, Deploy, Reach, eventually, fixture};

use crate::{ALONE, OFFENDERS, Offender};

/// With nothing else to do.
const LATE_MAX: Duration = Duration::from_millis(100);
/// On a machine whose cores are all busy.
const LATE_BUSY_MAX: Duration = Duration::from_millis(500);
/// How often an offender is tried. What else runs on this machine is no part of the promise: one run within it shows that it can be kept.
const RUNS_MAX: usize = 5;
/// For those who lose their answer to another's fault.
const LOST_MAX: Duration = Duration::from_millis(300);
/// Of those that meet their limit of memory in V8's own collector, which nothing interrupts: collecting a full heap takes its time.
const LATE_MEMORY_MAX: Duration = Duration::from_millis(500);
/// CPU time of those that shall meet their memory limit, and not that of CPU time before.
const CPU_AMPLE_MS: u32 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn every_offender_has_its_answer_within_100_ms_of_its_limit() {
    offenders_are_answered_within(LATE_MAX, None, || None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_offender_has_its_answer_within_500_ms_of_its_limit_while_all_cores_are_busy() {
    offenders_are_answered_within(LATE_BUSY_MAX, None, || Some(Busy::all_cores())).await;
}

/// With the time to get there, each of them has to be stopped by that limit: what is broken in it does not pass for a limit of CPU time.
#[tokio::test(flavor = "multi_thread")]
async fn what_allocates_without_end_is_stopped_by_the_limit_of_memory_where_it_has_cpu_time_to_spare() {
    offenders_are_answered_within(LATE_MEMORY_MAX, Some(CPU_AMPLE_MS), || None).await;
}

/// With so much CPU time only those that allocate, and they have to name the limit of memory.
async fn offenders_are_answered_within(late_max: Duration, cpu_ms: Option<u32>, busy: impl Fn() -> Option<Busy>) {
    let _alone = ALONE.lock().await;
    let built = Built::start().await;
    let mut late = Vec::new();
    for offender in OFFENDERS.iter().filter(|offender| cpu_ms.is_none() || offender.allocates) {
        // Nothing interrupts V8 while it fills an array: what it holds meanwhile is bounded by what its process may grow, how long by CPU time alone.
        let unbounded = cpu_ms.is_some() && offender.name == "allocate_array";
        let runs_max = if unbounded { 1 } else { RUNS_MAX };
        let mut lates = Vec::new();
        while lates.len() < runs_max && lates.iter().all(|late| *late > late_max) {
            // A worker of its own each time: strikes would move it, and disable it in the end.
            let worker = format!("{}-{}", offender.name.replace('_', "-"), lates.len());
            lates.push(lateness(&built, offender, &worker, cpu_ms, &busy).await);
        }
        println!("{}: {lates:?} after the limit", offender.name);
        if !unbounded && lates.iter().all(|late| *late > late_max) {
            late.push((offender.name, lates));
        }
    }
    assert!(late.is_empty(), "later than {late_max:?}: {late:?}");
}

/// How long after the limit the answer is there. It has to name the outcome.
async fn lateness(
    Built { cluster, edge, .. }: &Built,
    offender: &Offender,
    worker: &str,
    cpu_ms: Option<u32>,
    busy: impl Fn() -> Option<Busy>,
) -> Duration {
    cluster.deploy_with(worker, &fixture(offender.name), Deploy { cpu_ms, ..Deploy::default() }).await;
    Crossing::wait_until_calm(edge.pid());
    let _busy = busy();
    let reach = Reach { cpu: cpu_ms.map_or(CPU, |_| Duration::MAX), ..Reach::default() };
    let crossing = Crossing::watch(edge.pid(), reach);
    let answer = client::send(Over::Cleartext, edge.address("http"), client::get(&format!("{worker}.test"), "/")).await.unwrap();
    let answered = Instant::now();
    let late = answered.saturating_duration_since(crossing.moment(&answer.text()));
    let outcomes = if cpu_ms.is_some() { &["exceededMemory"] } else { offender.outcomes };
    let named = |text: &str| outcomes.iter().any(|outcome| text.contains(outcome));
    assert!(answer.status >= 500, "{worker}: {} {}", answer.status, answer.text());
    assert!(named(answer.header("proxy-status")) && named(&answer.text()), "{worker}: {:?} {}", answer.headers, answer.text());
    late
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_inside_a_runner_that_is_killed_is_told_within_300_ms_to_come_again() {
    let _alone = ALONE.lock().await;
    let Built { cluster, edge, origin: _origin, .. } = Built::start().await;
    let address = edge.address("http");
    let in_cordon = |cordon| Deploy { cordon: Some(cordon), ..Deploy::default() };
    let waits =
        "export default { async fetch() { console.log('is inside'); await scheduler.wait(20_000); return new Response('late'); } };";
    cluster.deploy_with("inside", waits, in_cordon("one")).await;
    cluster.deploy_with("outside", waits, in_cordon("two")).await;
    cluster.deploy_with("offender", &fixture("index_of"), in_cordon("one")).await;
    let post = |host: &'static str| {
        tokio::spawn(async move {
            let answer = client::send(Over::Cleartext, address, client::request("POST", host, "/", "some bytes")).await.unwrap();
            (answer, Instant::now())
        })
    };
    let (inside, outside) = (post("inside.test"), post("outside.test"));
    let begun = async || (edge.log().matches("is inside").count() == 2).then_some(());
    eventually("both handlers have begun", Duration::from_secs(10), begun).await;
    Crossing::wait_until_calm(edge.pid());
    let crossing = Crossing::watch(edge.pid(), Reach::default());
    let offender = client::send(Over::Cleartext, address, client::get("offender.test", "/")).await.unwrap();
    let (lost, lost_at) = tokio::time::timeout(Duration::from_secs(5), inside).await.expect("it does not hang").unwrap();
    let crossed = crossing.moment("exceededCpu");
    assert!(offender.header("proxy-status").contains("exceededCpu"), "{:?}", offender.headers);
    assert_eq!((lost.status, lost.header("retry-after")), (503, "1"), "{:?} {}", lost.headers, lost.text());
    let late = lost_at.saturating_duration_since(crossed);
    println!("lost {late:?} after the offender's limit");
    assert!(late <= LOST_MAX, "{late:?}");
    assert!(!outside.is_finished(), "what runs in another cordon goes on");
    outside.abort();
}
