//! Every wait has an end, and each end has its own name.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use selvedge_edge::upstream::limits::{GATHERED_BYTES_MAX, REPLAY_BYTES_MAX};
use selvedge_edge::upstream::{Reach, UpstreamError, UpstreamsConfig};
use selvedge_edge::{Body, BodyError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::servers::{Identity, fetch, get, head, post, raw, scripted, upstreams};

fn short() -> UpstreamsConfig {
    UpstreamsConfig {
        connect_timeout: Duration::from_millis(200),
        head_timeout: Duration::from_millis(100),
        body_idle_timeout: Duration::from_millis(100),
        ..UpstreamsConfig::default()
    }
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_a_head_timeout() {
    let (address, _) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let upstreams = upstreams(short());
    let error = fetch(&upstreams, get(format!("http://{address}/"))).await.unwrap_err();
    assert!(matches!(error, UpstreamError::HeadTimeout { ms: 100, .. }), "{error}");
    assert_eq!(upstreams.connections(), (0, 0), "its connection is closed");
}

#[tokio::test]
async fn the_time_for_the_head_begins_when_the_request_has_gone_out() {
    let (address, _) = raw(|_, mut stream| async move {
        let mut reader = tokio::io::BufReader::new(&mut stream);
        let mut line = String::new();
        while line != "0\r\n" {
            line.clear();
            tokio::io::AsyncBufReadExt::read_line(&mut reader, &mut line).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    })
    .await;
    // Ten pieces, 30 ms apart, take three times as long as the head may.
    let slow = futures::stream::unfold(0, |count| async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        (count < 10).then(|| (Ok(bytes::Bytes::from("piece")), count + 1))
    });
    let upstreams = upstreams(short());
    assert_eq!(fetch(&upstreams, post(format!("http://{address}/"), Body::chunks(slow))).await.unwrap().1, "ok");
}

/// A body of a known length of which nothing comes.
struct Promised(u64);

impl http_body::Body for Promised {
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, BodyError>>> {
        Poll::Pending
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0)
    }
}

#[tokio::test]
async fn a_request_whose_body_does_not_come_is_not_the_servers_failure() {
    let (address, connections) = raw(|_, mut stream| async move {
        // It waits for the body of what is no GET.
        while head(&mut stream).await.starts_with("GET") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
        head(&mut stream).await;
    })
    .await;
    // Long enough for what does come.
    let upstreams = upstreams(UpstreamsConfig { head_timeout: Duration::from_secs(1), ..UpstreamsConfig::default() });
    let url = format!("http://{address}/");
    // On an open connection, and on a new one.
    fetch(&upstreams, get(&url)).await.unwrap();
    for (length, connected) in [(100, 1), (1 << 20, 1), (1 << 20, 2)] {
        let put = Request::builder().method("PUT").uri(&url).body(Body::stream(Promised(length))).unwrap();
        let error = fetch(&upstreams, put).await.unwrap_err();
        assert!(matches!(error, UpstreamError::RequestBody { error: BodyError::Stalled { ms: 1000 }, .. }), "{error}");
        assert!(!error.is_of_the_server());
        assert_eq!(connections.load(Ordering::SeqCst), connected);
    }
}

#[tokio::test]
async fn a_short_body_that_does_not_come_takes_no_place_of_its_upstream() {
    let (address, _) = scripted("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let upstreams = upstreams(UpstreamsConfig { requests_per_upstream_max: 1, queue_per_upstream_max: 0, ..UpstreamsConfig::default() });
    let url = format!("http://{address}/");
    fetch(&upstreams, get(&url)).await.unwrap();
    let put = Request::builder().method("PUT").uri(&url).body(Body::stream(Promised(100))).unwrap();
    let mut waits = std::pin::pin!(fetch(&upstreams, put));
    assert!(futures::poll!(&mut waits).is_pending());
    assert_eq!(fetch(&upstreams, get(&url)).await.unwrap().1, "ok");
}

/// A body of a known length of which a byte comes now and then.
struct Trickle {
    sent: Arc<AtomicUsize>,
    length: usize,
    pause: Pin<Box<tokio::time::Sleep>>,
}

impl http_body::Body for Trickle {
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, BodyError>>> {
        let sent = self.sent.load(Ordering::SeqCst);
        if sent == self.length {
            return Poll::Ready(None);
        }
        std::task::ready!(self.pause.as_mut().poll(cx));
        self.pause = Box::pin(tokio::time::sleep(Duration::from_millis(30)));
        self.sent.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Some(Ok(http_body::Frame::data(vec![b'a' + sent as u8].into()))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact((self.length - self.sent.load(Ordering::SeqCst)) as u64)
    }
}

#[tokio::test]
async fn a_short_body_that_comes_slowly_is_not_gathered_for_longer_than_an_answer_may_take() {
    let sent = Arc::new(AtomicUsize::new(0));
    let seen = sent.clone();
    let (address, _) = raw(move |_, mut stream| {
        let seen = seen.clone();
        async move {
            let mut all = Vec::new();
            let mut came = None;
            while !all.ends_with(b"abcdefghijklmnopqrst") {
                assert!(stream.read_buf(&mut all).await.unwrap() > 0, "it ended early");
                came.get_or_insert_with(|| seen.load(Ordering::SeqCst));
            }
            assert!(String::from_utf8_lossy(&all).to_lowercase().contains("content-length: 20\r\n"));
            let body = came.is_some_and(|came| came < 20).to_string();
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
        }
    })
    .await;
    let pause = Box::pin(tokio::time::sleep(Duration::ZERO));
    let body = Body::stream(Trickle { sent, length: 20, pause });
    let put = Request::builder().method("PUT").uri(format!("http://{address}/")).body(body).unwrap();
    let config = UpstreamsConfig { connect_timeout: Duration::from_secs(10), ..short() };
    assert_eq!(fetch(&upstreams(config), put).await.unwrap().1, "true", "it went out when all of it had come");
}

#[tokio::test]
async fn where_many_short_bodies_are_gathered_the_next_goes_out_as_a_long_one_does() {
    let (address, connections) = scripted("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let upstreams = upstreams(UpstreamsConfig::default());
    let put = || {
        let put = Request::builder().method("PUT").uri(format!("http://{address}/"));
        fetch(&upstreams, put.body(Body::stream(Promised(REPLAY_BYTES_MAX))).unwrap())
    };
    let mut waiting: Vec<_> = (0..GATHERED_BYTES_MAX as u64 / REPLAY_BYTES_MAX).map(|_| Box::pin(put())).collect();
    for waits in &mut waiting {
        assert!(futures::poll!(waits).is_pending());
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    // This server does not wait for a body.
    assert_eq!(put().await.unwrap().1, "ok");
    waiting.pop();
    let mut waits = std::pin::pin!(put());
    assert!(futures::poll!(&mut waits).is_pending());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(futures::poll!(&mut waits).is_pending() && connections.load(Ordering::SeqCst) == 1, "it gave no room back");
}

#[tokio::test]
async fn a_body_that_stops_is_stalled() {
    let (address, _) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\nbegin").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let upstreams = upstreams(short());
    let response = upstreams.send(get(format!("http://{address}/")), Reach::Operator).await.unwrap();
    let error = response.into_body().collect(1 << 20).await.unwrap_err();
    assert!(matches!(error, BodyError::Stalled { ms: 100 }), "{error}");
    assert_eq!(upstreams.connections(), (0, 0));
}

#[tokio::test]
async fn a_body_may_take_long_as_long_as_it_moves() {
    let (address, _) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await.unwrap();
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            stream.write_all(b"x").await.unwrap();
        }
    })
    .await;
    assert_eq!(fetch(&upstreams(short()), get(format!("http://{address}/"))).await.unwrap().1, "xxxxxxxxxx");
}

#[tokio::test]
async fn a_handshake_that_never_comes_is_a_connection_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = fetch(&upstreams(short()), get(format!("https://{address}/"))).await.unwrap_err();
    assert!(matches!(error, UpstreamError::ConnectTimeout { ms: 200, .. }), "{error}");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_refused_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = fetch(&upstreams(UpstreamsConfig::default()), get(format!("http://{address}/"))).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_a_tls_error() {
    let identity = Identity::new("localhost");
    let (address, _) =
        crate::servers::secure(&identity, &[], |_| async { crate::servers::Answer::new(crate::servers::whole("secret")) }).await;
    let url = format!("https://localhost:{}/", address.port());
    let error = fetch(&upstreams(UpstreamsConfig::default()), get(&url)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Tls { .. }), "{error}");
    let trusting = UpstreamsConfig { authorities: vec![identity.certificate.clone()], ..UpstreamsConfig::default() };
    let trusting = upstreams(trusting);
    assert_eq!(fetch(&trusting, get(&url)).await.unwrap().1, "secret");
    let error = fetch(&trusting, get(format!("https://127.0.0.1:{}/", address.port()))).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Tls { .. }), "a name that the certificate does not have: {error}");
}

#[tokio::test]
async fn cleartext_where_tls_is_expected_is_a_tls_error() {
    let (address, _) = scripted("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let error = fetch(&upstreams(short()), get(format!("https://{address}/"))).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Tls { .. } | UpstreamError::ConnectTimeout { .. }), "{error}");
}
