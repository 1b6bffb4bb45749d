//! A hundred deployments in a row, under load from three nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use selvedge_tests::client::{self, Connection};
use selvedge_tests::{Cluster, Deploy, fixture};

const DEPLOYMENTS: usize = 100;

/// Asks one node again and again; gives how many answers came, or what was wrong with one.
async fn load(address: std::net::SocketAddr, stop: Arc<AtomicBool>, answers: Arc<AtomicUsize>) -> Result<(), String> {
    let mut connection = Connection::open(address).await.map_err(|error| error.to_string())?;
    while !stop.load(Ordering::Relaxed) {
        let answer = connection.send(client::get("body.test", "/")).await.map_err(|error| format!("no answer: {error:#}"))?;
        if answer.status != 200 {
            return Err(format!("{}: {}", answer.status, answer.text()));
        }
        let id = answer.header("x-id").to_owned();
        let one_id = answer.body.len() >= 1 << 20 && answer.body.chunks_exact(id.len()).all(|chunk| chunk == id.as_bytes());
        if !one_id {
            return Err(format!("a body of {} bytes is not made of {id} alone", answer.body.len()));
        }
        answers.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_fails_and_no_answer_is_mixed() {
    let cluster = Cluster::start(3).await;
    let deploy = async |n: usize| {
        let vars = BTreeMap::from([("ID".to_owned(), serde_json::json!(format!("version-{n:08}")))]);
        cluster.deploy_with("body", &fixture("version_body"), Deploy { vars, ..Deploy::default() }).await;
    };
    deploy(0).await;
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let loads: Vec<_> = cluster.edges.iter().map(|edge| tokio::spawn(load(edge.http, stop.clone(), answers.clone()))).collect();
    for n in 1..=DEPLOYMENTS {
        deploy(n).await;
        assert!(!loads.iter().any(tokio::task::JoinHandle::is_finished), "a client stopped at deployment {n}");
    }
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.expect("no panic").expect("no request fails");
    }
    let answers = answers.load(Ordering::Relaxed);
    assert!(answers >= DEPLOYMENTS, "only {answers} answers in {DEPLOYMENTS} deployments");
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_workers_live_on_one_node() {
    let cluster = Cluster::start(1).await;
    for n in 0..40 {
        cluster.deploy(&format!("w{n}"), &format!("export default {{ fetch: () => new Response('worker {n}') }};")).await;
    }
    for round in 0..3 {
        for n in 0..40 {
            let answer = cluster.get(&format!("w{n}.test"), "/").await;
            assert_eq!((answer.status, answer.text()), (200, format!("worker {n}")), "round {round}");
        }
    }
}
