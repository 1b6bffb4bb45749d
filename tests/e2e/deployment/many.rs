//! A hundred deployments in a row, under load from three nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use selvedge_tests::client::{self, Answer, Connection, H2Connection, H3Connection, Over};
use selvedge_tests::{Cluster, Deploy, Edge, fixture};

const DEPLOYMENTS: usize = 100;
/// Each body has so many bytes, and what its last id has beyond.
const BODY_BYTES: usize = 1 << 20;
/// Between two requests of a connection: a load that leaves time for deployments.
const PACE: Duration = Duration::from_millis(200);
/// The connections to each node.
const LOADS: [Over; 4] = [Over::Cleartext, Over::Cleartext, Over::H2, Over::H3];

/// A connection that is used again and again.
enum Open {
    H1(Connection),
    H2(H2Connection),
    H3(H3Connection),
}

impl Open {
    async fn over(over: Over, http: SocketAddr, https: SocketAddr) -> anyhow::Result<Self> {
        Ok(match over {
            Over::H2 => Self::H2(H2Connection::open(https, "body.test").await?),
            Over::H3 => Self::H3(H3Connection::open(https, "body.test").await?),
            _ => Self::H1(Connection::open(http).await?),
        })
    }

    async fn send(&mut self, request: http::Request<bytes::Bytes>) -> anyhow::Result<Answer> {
        match self {
            Self::H1(connection) => connection.send(request).await,
            Self::H2(connection) => connection.send(request).await,
            Self::H3(connection) => connection.send(request).await,
        }
    }
}

/// What answers have said: the version that the node named, and the id that the body is made of.
type Said = BTreeSet<(String, String)>;

/// What an answer says, or what is wrong with it.
fn said(answer: &Answer) -> Result<(String, String), String> {
    if answer.status != 200 {
        return Err(format!("{}: {}", answer.status, answer.text()));
    }
    let id = answer.header("x-id");
    let one_id = !id.is_empty() && answer.body == id.repeat(BODY_BYTES.div_ceil(id.len()));
    if !one_id {
        return Err(format!("a body of {} bytes is not made of {id:?} alone", answer.body.len()));
    }
    Ok((answer.header("selvedge-version").to_owned(), id.to_owned()))
}

/// Asks one node again and again, by GET and POST in turn; gives what its answers said, or what was wrong with one.
async fn load(
    over: Over,
    (http, https): (SocketAddr, SocketAddr),
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
) -> Result<Said, String> {
    let (mut connection, mut all) = (Open::over(over, http, https).await.map_err(|error| format!("{over:?}: {error:#}"))?, Said::new());
    for n in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (method, body) = if n.is_multiple_of(2) { ("GET", vec![]) } else { ("POST", vec![7; 10_000]) };
        let answer = connection.send(client::request(method, "body.test", "/", body)).await;
        let answer = answer.map_err(|error| format!("{method} over {over:?}: no answer: {error:#}"))?;
        all.insert(said(&answer).map_err(|wrong| format!("{method} over {over:?}: {wrong}"))?);
        answers.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PACE).await;
    }
    Ok(all)
}

/// The id that version `n` makes its bodies of: as a worker does not know the id of its own version, the two are compared in the end.
fn id(n: usize) -> String {
    format!("version-{n:08}")
}

/// Each node answers with the newest version, over one protocol after the other.
async fn newest_answers(edges: &[Edge], n: usize, version: &str) {
    let over = [Over::Cleartext, Over::H1, Over::H2, Over::H3][n % 4];
    for answer in futures::future::join_all(edges.iter().map(|edge| edge.send(over, client::get("body.test", "/")))).await {
        let answer = answer.unwrap_or_else(|error| panic!("{over:?}: {error:#}"));
        assert_eq!(said(&answer), Ok((version.to_owned(), id(n))), "deployment {n} over {over:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_fails_no_answer_is_mixed_and_the_newest_version_answers() {
    let cluster = Cluster::start(3).await;
    let deploy = async |n: usize| {
        let vars = BTreeMap::from([("ID".to_owned(), serde_json::json!(id(n)))]);
        cluster.deploy_with("body", &fixture("version_body"), Deploy { vars, ..Deploy::default() }).await.id.to_string()
    };
    let mut versions = Said::from([(deploy(0).await, id(0))]);
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let start = |edge: &Edge| LOADS.map(|over| tokio::spawn(load(over, (edge.http, edge.https), stop.clone(), answers.clone())));
    let loads: Vec<_> = cluster.edges.iter().flat_map(start).collect();
    for n in 1..=DEPLOYMENTS {
        let version = deploy(n).await;
        newest_answers(&cluster.edges, n, &version).await;
        versions.insert((version, id(n)));
        if let Some(at) = loads.iter().position(tokio::task::JoinHandle::is_finished) {
            let ended = loads.into_iter().nth(at).expect("it is there").await;
            panic!("a client stopped at deployment {n}: {ended:?}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = Said::new();
    for load in loads {
        all.extend(load.await.expect("no panic").expect("no request fails"));
    }
    assert!(all.is_subset(&versions), "a body's id is not that of its header: {:?}", all.difference(&versions).collect::<Vec<_>>());
    let answers = answers.load(Ordering::Relaxed);
    assert!(answers >= DEPLOYMENTS * LOADS.len(), "only {answers} answers in {DEPLOYMENTS} deployments");
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
