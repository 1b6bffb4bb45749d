//! Several servers of one upstream: shares, failover, retries within a budget, ejection, health checks, and how each is spoken to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Request, StatusCode};
use selvedge_edge::Body;
use selvedge_edge::upstream::{Group, Groups, UpstreamError, Upstreams, UpstreamsConfig};
use selvedge_origin::registry::{HealthCheck, Protocol, Retries, Server, Upstream};
use tokio::io::AsyncWriteExt;

use crate::servers::{Answer, Identity, get, head, plain, post, raw, secure, upstreams, whole};

/// A server that answers with its name, and with 503 while it is ill.
async fn named(name: &'static str) -> (SocketAddr, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (ill, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (is_ill, count) = (ill.clone(), asked.clone());
    let (address, _) = plain(move |_| {
        count.fetch_add(1, SeqCst);
        let status = if is_ill.load(SeqCst) { 503 } else { 200 };
        async move {
            let mut answer = Answer::new(whole(name));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            answer
        }
    })
    .await;
    (address, ill, asked)
}

/// An address at which nothing listens.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn server(address: SocketAddr) -> Server {
    Server::at(format!("http://{address}"))
}

fn upstream(servers: impl IntoIterator<Item = Server>) -> Upstream {
    Upstream { servers: servers.into_iter().collect(), ..Upstream::default() }
}

fn group(declared: &Upstream) -> Group {
    Group::new(declared).expect("within the rules")
}

async fn ask(upstreams: &Upstreams, group: &Group, request: Request<Body>) -> Result<(u16, String), UpstreamError> {
    let response = upstreams.ask(group, &PathAndQuery::from_static("/"), request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect(1 << 20).await.expect("a whole body");
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn a_get() -> Request<Body> {
    get("/")
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_share_the_requests_by_weight() {
    let ((a, ..), (b, ..)) = (named("a").await, named("b").await);
    let group = group(&upstream([Server { weight: 3, ..server(a) }, server(b)]));
    let upstreams = upstreams(UpstreamsConfig::default());
    let mut of_a = 0;
    for _ in 0..400 {
        of_a += usize::from(ask(&upstreams, &group, a_get()).await.unwrap().1 == "a");
    }
    // 300 of 400 on average; six standard deviations are 52.
    assert!((248..=352).contains(&of_a), "{of_a}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_costs_no_request_whatever_its_method() {
    let (a, ..) = named("a").await;
    let group = group(&upstream([server(a), Server::at(nobody().await)]));
    let upstreams = upstreams(UpstreamsConfig::default());
    for _ in 0..20 {
        assert_eq!(ask(&upstreams, &group, a_get()).await.unwrap().1, "a");
        // Nothing was sent: a POST too goes to the other one.
        assert_eq!(ask(&upstreams, &group, post("/", Body::full("x"))).await.unwrap().1, "a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_counts_as_failure_is_asked_for_elsewhere_where_that_does_no_harm() {
    let ((a, ill, asked), (b, ..)) = (named("a").await, named("b").await);
    ill.store(true, SeqCst);
    let declared = upstream([server(a), Server { backup: true, ..server(b) }]);
    let upstreams = upstreams(UpstreamsConfig::default());
    assert_eq!(ask(&upstreams, &group(&declared), a_get()).await.unwrap(), (200, "b".into()));
    assert_eq!(ask(&upstreams, &group(&declared), post("/", Body::full("x"))).await.unwrap(), (503, "a".into()), "it may have been done");
    let none = Upstream { retries: Retries { max: 0, ..Retries::default() }, ..declared.clone() };
    assert_eq!(ask(&upstreams, &group(&none), a_get()).await.unwrap(), (503, "a".into()));
    assert_eq!(asked.load(SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_stay_within_their_budget() {
    let (a, ill, _) = named("a").await;
    let (b, also_ill, asked) = named("b").await;
    ill.store(true, SeqCst);
    also_ill.store(true, SeqCst);
    let retries = Retries { budget_percent: 10, ..Retries::default() };
    let never = selvedge_origin::registry::Ejection { failures: 0, ms: 1 };
    let declared = Upstream { retries, ejection: never, ..upstream([server(a), Server { backup: true, ..server(b) }]) };
    let (group, upstreams) = (group(&declared), upstreams(UpstreamsConfig::default()));
    for _ in 0..200 {
        assert_eq!(ask(&upstreams, &group, a_get()).await.unwrap().0, 503);
    }
    // Ten saved up, and one for every ten of the other requests.
    assert!((28..=30).contains(&asked.load(SeqCst)), "{}", asked.load(SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_for_again_after_the_retries_deadline() {
    const SLOW: Duration = Duration::from_millis(100);
    let (a, _) = plain(|_| async {
        tokio::time::sleep(SLOW).await;
        let mut answer = Answer::new(whole("a"));
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        answer
    })
    .await;
    let (b, _, asked) = named("b").await;
    let upstreams = upstreams(UpstreamsConfig::default());
    for (deadline_ms, answer, of_b) in [(50, (503, "a"), 0), (600_000, (200, "b"), 1)] {
        let retries = Retries { deadline_ms, ..Retries::default() };
        let declared = Upstream { retries, ..upstream([server(a), Server { backup: true, ..server(b) }]) };
        let (status, text) = ask(&upstreams, &group(&declared), a_get()).await.unwrap();
        assert_eq!(((status, text.as_str()), asked.load(SeqCst)), (answer, of_b), "{deadline_ms}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_again_and_again_is_left_alone_but_never_all_of_them() {
    let ((a, ill, asked), (b, b_ill, b_asked)) = (named("a").await, named("b").await);
    ill.store(true, SeqCst);
    let ejection = selvedge_origin::registry::Ejection { failures: 3, ms: 600_000 };
    let declared = Upstream { ejection, ..upstream([Server { weight: 1000, ..server(a) }, server(b)]) };
    let (group, upstreams) = (group(&declared), upstreams(UpstreamsConfig::default()));
    for _ in 0..30 {
        assert_eq!(ask(&upstreams, &group, a_get()).await.unwrap(), (200, "b".into()));
    }
    assert_eq!(asked.load(SeqCst), 3);
    b_ill.store(true, SeqCst);
    ill.store(false, SeqCst);
    b_asked.store(0, SeqCst);
    for _ in 0..10 {
        ask(&upstreams, &group, a_get()).await.unwrap();
    }
    assert_eq!(ask(&upstreams, &group, a_get()).await.unwrap(), (200, "a".into()), "both are ejected: both are asked");
    assert!(b_asked.load(SeqCst) >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_take_a_server_out_and_bring_it_back() {
    let (a, ill, _) = named("a").await;
    let health = HealthCheck { path: "/ok".into(), interval_ms: 100, timeout_ms: 2_000, up_after: 2, down_after: 2 };
    let declared = Upstream { health: Some(health), ..upstream([server(a)]) };
    let (groups, upstreams) = (Arc::new(Groups::default()), upstreams(UpstreamsConfig::default()));
    upstreams.watch(&groups);
    let group = groups.renew([&declared].into_iter()).get(&declared).unwrap();
    assert_eq!(ask(&upstreams, &group, a_get()).await.unwrap().0, 200, "up until something says otherwise");
    ill.store(true, SeqCst);
    until(|| !groups.read().0[0].up).await;
    let error = ask(&upstreams, &group, a_get()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::AllDown { .. }), "{error}");
    ill.store(false, SeqCst);
    until(|| groups.read().0[0].up).await;
    assert_eq!(ask(&upstreams, &group, a_get()).await.unwrap().0, 200);
}

async fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 20 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_and_a_name_are_the_owners() {
    let identity = Identity::new("shop.internal");
    let (address, _) = secure(&identity, &["h2", "http/1.1"], |_| async { Answer::new(whole("private")) }).await;
    let declared = Upstream::at(format!("https://{address}"));
    let upstreams = upstreams(UpstreamsConfig::default());
    let error = ask(&upstreams, &group(&declared), a_get()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Tls { .. }), "{error}");
    let authority = Some(identity.pem());
    let wrong_name = Upstream { authority, ..declared };
    let error = ask(&upstreams, &group(&wrong_name), a_get()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Tls { .. }), "{error}");
    for protocol in [Protocol::Auto, Protocol::H1, Protocol::H2] {
        let right = Upstream { server_name: Some("shop.internal".into()), protocol, ..wrong_name.clone() };
        assert_eq!(ask(&upstreams, &group(&right), a_get()).await.unwrap().1, "private", "{protocol:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_in_cleartext_by_prior_knowledge() {
    let (address, connections) = raw(|_, stream| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data(request.uri().to_string().into(), true).unwrap();
        }
    })
    .await;
    let declared = Upstream { protocol: Protocol::H2, host: Some("shop.example".into()), ..upstream([server(address)]) };
    let (group, upstreams) = (group(&declared), upstreams(UpstreamsConfig::default()));
    for _ in 0..3 {
        assert_eq!(ask(&upstreams, &group, a_get()).await.unwrap().1, "http://shop.example/");
    }
    assert_eq!(connections.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_as_many_requests_as_it_may() {
    for (keep_alive, expected) in [("{\"requests_max\": 3}", 4), ("{\"idle_ms\": 0}", 10), ("{}", 1)] {
        let (address, connections) = plain(|_| async { Answer::new(whole("x")) }).await;
        let declared = Upstream { keep_alive: serde_json::from_str(keep_alive).unwrap(), ..upstream([server(address)]) };
        let (group, upstreams) = (group(&declared), upstreams(UpstreamsConfig::default()));
        for _ in 0..10 {
            ask(&upstreams, &group, a_get()).await.unwrap();
        }
        assert_eq!(connections.load(SeqCst), expected, "{keep_alive}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_cap_wait_in_a_bounded_queue_for_a_bounded_time() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let waiting = gate.clone();
    let (address, _) = plain(move |_| {
        let gate = waiting.clone();
        async move {
            gate.notified().await;
            Answer::new(whole("late"))
        }
    })
    .await;
    let declared = Upstream { requests_max: Some(1), queue_max: Some(1), queue_wait_ms: Some(100), ..upstream([server(address)]) };
    let (groups, upstreams) = (Groups::default(), upstreams(UpstreamsConfig::default()));
    let group = groups.renew([&declared].into_iter()).get(&declared).unwrap();
    let (first, rest) = tokio::join!(ask(&upstreams, &group, a_get()), async {
        until(|| groups.read().0[0].in_flight == 1).await;
        let (a, b) = tokio::join!(ask(&upstreams, &group, a_get()), ask(&upstreams, &group, a_get()));
        gate.notify_one();
        [a, b]
    });
    assert_eq!(first.unwrap().1, "late");
    for answer in rest {
        assert!(matches!(answer, Err(UpstreamError::Overloaded { .. })), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_body_goes_out_again_where_an_open_connection_turns_out_closed() {
    let (address, connections) = raw(|number, mut stream| async move {
        let request = head(&mut stream).await;
        assert!(!request.is_empty());
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").await;
        if number == 1 {
            // The second request on it is read, and not answered.
            head(&mut stream).await;
        }
    })
    .await;
    let (group, upstreams) = (group(&upstream([server(address)])), upstreams(UpstreamsConfig::default()));
    ask(&upstreams, &group, a_get()).await.unwrap();
    // A body that comes in pieces, as a client sends it.
    let (sender, receiver) = futures::channel::mpsc::unbounded();
    tokio::spawn(async move {
        for piece in ["one ", "two"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
            sender.unbounded_send(piece).unwrap();
        }
    });
    let body = Body::stream(Sized { pieces: receiver, left: 7 });
    let put = Request::builder().method("PUT").uri("/").body(body).unwrap();
    assert_eq!(ask(&upstreams, &group, put).await.unwrap(), (200, "x".into()));
    assert_eq!(connections.load(SeqCst), 2);
}

/// A stream whose length is known.
struct Sized {
    pieces: futures::channel::mpsc::UnboundedReceiver<&'static str>,
    left: u64,
}

impl http_body::Body for Sized {
    type Data = bytes::Bytes;
    type Error = selvedge_edge::BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        let piece = std::task::ready!(futures::Stream::poll_next(std::pin::Pin::new(&mut self.pieces), cx));
        self.left -= piece.map_or(0, |piece| piece.len() as u64);
        std::task::Poll::Ready(piece.map(|piece| Ok(http_body::Frame::data(piece.into()))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_without_an_answer_is_named_so() {
    let (address, connections) = raw(|_, mut stream| async move {
        head(&mut stream).await;
    })
    .await;
    let upstreams = upstreams(UpstreamsConfig::default());
    let error = ask(&upstreams, &group(&upstream([server(address)])), a_get()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Terminated { .. }), "{error}");
    assert_eq!(connections.load(SeqCst), 1, "a new connection that the server closed is not tried again on the same server");
}

/// A server that answers a health check at once and a client only when the gate opens.
async fn busy() -> (SocketAddr, Arc<tokio::sync::Notify>, Arc<AtomicUsize>) {
    let (gate, checks) = (Arc::new(tokio::sync::Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (waiting, checked) = (gate.clone(), checks.clone());
    let (address, _) = plain(move |request| {
        let (gate, checked) = (waiting.clone(), checked.clone());
        async move {
            if request.uri().path() == "/ok" {
                checked.fetch_add(1, SeqCst);
            } else {
                gate.notified().await;
            }
            Answer::new(whole("answer"))
        }
    })
    .await;
    (address, gate, checks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_all_its_requests_is_neither_down_nor_failing() {
    let (address, gate, checks) = busy().await;
    let health = HealthCheck { path: "/ok".into(), interval_ms: 100, timeout_ms: 50, up_after: 1, down_after: 1 };
    let declared = Upstream {
        requests_max: Some(1),
        queue_max: Some(0),
        health: Some(health),
        ejection: selvedge_origin::registry::Ejection { failures: 1, ms: 60_000 },
        ..upstream([server(address)])
    };
    let (groups, upstreams) = (Arc::new(Groups::default()), upstreams(UpstreamsConfig::default()));
    let group = groups.renew([&declared].into_iter()).get(&declared).unwrap();
    upstreams.watch(&groups);
    let (first, refused) = tokio::join!(ask(&upstreams, &group, a_get()), async {
        until(|| groups.read().0[0].in_flight == 1).await;
        let refused = ask(&upstreams, &group, a_get()).await;
        let before = checks.load(SeqCst);
        until(|| checks.load(SeqCst) >= before + 3 || !groups.read().0[0].up).await;
        let reading = groups.read().0.remove(0);
        assert!(reading.up && reading.failures == 0 && reading.ejections == 0, "{reading:?}");
        gate.notify_one();
        refused
    });
    assert_eq!(first.unwrap().1, "answer");
    assert!(matches!(refused, Err(UpstreamError::Overloaded { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_to_the_server_that_has_room() {
    let (full, gate, _) = busy().await;
    let (free, _, _) = named("free").await;
    let servers = [Server { weight: 1000, ..server(full) }, server(free)];
    let declared = Upstream { requests_max: Some(1), queue_wait_ms: Some(60_000), ..upstream(servers) };
    let (groups, upstreams) = (Groups::default(), upstreams(UpstreamsConfig::default()));
    let group = groups.renew([&declared].into_iter()).get(&declared).unwrap();
    // Nearly every request is the first one's, until it has all that it may have.
    let holding = async { while ask(&upstreams, &group, a_get()).await.unwrap().1 != "answer" {} };
    tokio::join!(holding, async {
        until(|| groups.read().0[0].in_flight == 1).await;
        for _ in 0..20 {
            assert_eq!(ask(&upstreams, &group, a_get()).await.unwrap().1, "free");
        }
        gate.notify_one();
    });
}
