//! More than a node can do of one worker.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use selvedge_tests::client::{self, Answer, Over};
use selvedge_tests::{Cluster, Deploy, eventually, fixture};

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
