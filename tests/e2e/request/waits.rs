//! The wall limits with their defaults: 30 s each. Everything waits at the same time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use selvedge_tests::client::{self, Answer, Over};
use selvedge_tests::{Cluster, Upstream, fixture, route};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Each of the three limits.
const LIMIT: Duration = Duration::from_secs(30);
/// On either side of it: what a loaded machine may add to a wait.
const SIDE: Duration = Duration::from_millis(1500);
const BELOW: u128 = LIMIT.as_millis() - SIDE.as_millis();
const ABOVE: u128 = LIMIT.as_millis() + SIDE.as_millis();

async fn slow(address: SocketAddr, query: String) -> (anyhow::Result<Answer>, Duration) {
    let start = Instant::now();
    let answer = client::send(Over::Cleartext, address, client::get("slow.test", &format!("/?{query}"))).await;
    (answer, start.elapsed())
}

/// Sends half of a body, waits, and sends the rest to a worker that gives it back as it comes.
async fn upload(address: SocketAddr, wait: u128) -> String {
    let mut socket = TcpStream::connect(address).await.expect("the node accepts");
    let head = "POST / HTTP/1.1\r\nHost: echo.test\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n";
    socket.write_all(head.as_bytes()).await.expect("sent");
    socket.write_all(&[b'x'; 100_000]).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(wait as u64)).await;
    // A node that has cut the body takes no more of it.
    let _ = socket.write_all(&[b'y'; 100_000]).await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn is_at_the_limit(took: Duration) {
    assert!(took >= LIMIT && took < LIMIT + SIDE, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn less_than_thirty_seconds_pass_and_more_do_not() {
    let cluster = Cluster::start(1).await;
    let told = Arc::new(Mutex::new(BTreeSet::new()));
    let ear = told.clone();
    let upstream = Upstream::start(move |request| {
        ear.lock().unwrap().insert(request.uri().path().to_owned());
        http::Response::new("heard".into())
    })
    .await;
    cluster.apply(vec![route("data.test/*", None, Some(&upstream.url()))]).await;
    cluster.deploy("slow", &fixture("slow")).await;
    cluster.deploy("echo", &fixture("echo")).await;
    let address = cluster.edges[0].http;

    let heads = async { tokio::join!(slow(address, format!("before={BELOW}")), slow(address, format!("before={ABOVE}"))) };
    let bodies = async {
        let stall = |every| slow(address, format!("pieces=2&every={every}"));
        tokio::join!(stall(BELOW), stall(ABOVE), slow(address, "pieces=33&every=1000".to_owned()))
    };
    let uploads = async { tokio::join!(upload(address, BELOW), upload(address, ABOVE)) };
    let afters = async {
        let after = |wait, path| slow(address, format!("after={wait}&tell=http://data.test/{path}"));
        tokio::join!(after(BELOW, "below"), after(ABOVE, "above"), tokio::time::sleep(LIMIT + 2 * SIDE))
    };
    let (heads, bodies, uploads, afters) = tokio::join!(heads, bodies, uploads, afters);

    let ((below, _), (above, took)) = heads;
    assert_eq!(below.expect("an answer").status, 200, "a head below the limit");
    let above = above.expect("an answer");
    assert_eq!(above.status, 504, "{}", above.text());
    assert!(above.header("proxy-status").contains("exceededWallTime"), "{:?}", above.headers);
    is_at_the_limit(took);

    let ((below, _), (above, took), (long, lasted)) = bodies;
    assert_eq!(below.expect("an answer").text(), "piece piece ", "a body that stalls for less than the limit");
    assert!(above.is_err(), "a body that stalls for longer was not cut");
    is_at_the_limit(took);
    assert_eq!(long.expect("an answer").body.len(), 33 * "piece ".len(), "a stream that never stalls has no limit");
    assert!(lasted > LIMIT, "{lasted:?}");

    let (below, above) = uploads;
    assert!(below.starts_with("HTTP/1.1 200") && below.matches('y').count() >= 100_000, "an upload below the limit");
    assert!(!above.contains('y'), "an upload that stalled for longer was not cut");

    let ((below, _), (above, _), ()) = afters;
    assert_eq!((below.expect("an answer").status, above.expect("an answer").status), (200, 200), "the answer does not wait");
    assert_eq!(*told.lock().unwrap(), BTreeSet::from(["/below".to_owned()]), "what waitUntil was given to do");
    let metrics = client::send(Over::Cleartext, cluster.edges[0].admin, client::get("admin", "/metrics")).await.expect("metrics").text();
    let named = metrics.lines().find(|line| line.starts_with("selvedge_invocations_total") && line.contains("exceededWallTime"));
    // Head, body, upload, waitUntil.
    assert!(named.is_some_and(|line| line.ends_with(" 4")), "{named:?}");
}
