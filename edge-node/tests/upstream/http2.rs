//! HTTP/2 by ALPN: one connection for all, and what happens when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::future::join_all;
use http::Version;
use http_body_util::BodyExt;
use selvedge_edge::upstream::{Reach, UpstreamError, UpstreamsConfig};
use selvedge_edge::{Body, BodyError};
use tokio::sync::mpsc;

use crate::servers::{Answer, Identity, fetch, get, post, raw, secure, upstreams, whole};

fn trusting(identity: &Identity) -> UpstreamsConfig {
    UpstreamsConfig { authorities: vec![identity.certificate.clone()], ..UpstreamsConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_share_one_connection() {
    let identity = Identity::new("localhost");
    let gate = Arc::new(tokio::sync::Barrier::new(20));
    let (address, connections) = secure(&identity, &["h2", "http/1.1"], move |request| {
        let gate = gate.clone();
        async move {
            assert_eq!(request.version(), Version::HTTP_2);
            gate.wait().await;
            Answer::new(whole(request.uri().path().to_owned()))
        }
    })
    .await;
    let upstreams = upstreams(trusting(&identity));
    let port = address.port();
    let answers = join_all((0..20).map(|number| fetch(&upstreams, get(format!("https://localhost:{port}/{number}"))))).await;
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap().1, format!("/{number}"));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_h2_is_spoken_to_in_http1() {
    let identity = Identity::new("localhost");
    let (address, connections) = secure(&identity, &["http/1.1"], |request| async move {
        assert_eq!(request.version(), Version::HTTP_11);
        Answer::new(whole("one"))
    })
    .await;
    let upstreams = upstreams(trusting(&identity));
    for _ in 0..3 {
        assert_eq!(fetch(&upstreams, get(format!("https://localhost:{}/", address.port()))).await.unwrap().1, "one");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_field_becomes_the_authority() {
    let identity = Identity::new("localhost");
    let (address, _) = secure(&identity, &["h2"], |request| async move {
        let authority = request.uri().authority().map(ToString::to_string);
        Answer::new(whole(format!("{authority:?} {:?}", request.headers().get("host"))))
    })
    .await;
    let mut request = get(format!("https://localhost:{}/", address.port()));
    request.headers_mut().insert("host", "www.example.org".parse().unwrap());
    assert_eq!(fetch(&upstreams(trusting(&identity)), request).await.unwrap().1, "Some(\"www.example.org\") None");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways_and_a_dropped_one_resets_its_stream_only() {
    let identity = Identity::new("localhost");
    let (gone, mut was_reset) = mpsc::unbounded_channel();
    let (address, connections) = secure(&identity, &["h2"], move |request| {
        let gone = gone.clone();
        async move {
            if request.uri().path() == "/echo" {
                return Answer::new(request.into_body().boxed());
            }
            let watch = Watch(gone);
            let endless = futures::stream::repeat_with(move || {
                let _ = &watch;
                Ok(http_body::Frame::data(Bytes::from_static(&[0; 1000])))
            });
            Answer::new(http_body_util::StreamBody::new(endless).boxed())
        }
    })
    .await;
    let upstreams = upstreams(trusting(&identity));
    let port = address.port();
    let endless = upstreams.send(get(format!("https://localhost:{port}/endless")), Reach::Operator).await.unwrap();
    drop(endless);
    was_reset.recv().await.expect("the server's stream ends");

    let (send, chunks) = mpsc::unbounded_channel::<Result<Bytes, BodyError>>();
    let chunks = futures::stream::unfold(chunks, |mut chunks| async { chunks.recv().await.map(|chunk| (chunk, chunks)) });
    let response = upstreams.send(post(format!("https://localhost:{port}/echo"), Body::chunks(chunks)), Reach::Operator).await.unwrap();
    let mut body = response.into_body();
    for text in ["one", "two"] {
        send.send(Ok(text.into())).unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), text);
    }
    drop(send);
    assert!(body.frame().await.is_none());
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

struct Watch(mpsc::UnboundedSender<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// A server that answers a bounded number of requests per connection, then says GOAWAY and ends it.
async fn goes_away(identity: &Identity, requests: usize) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let acceptor = identity.acceptor(&["h2"]);
    raw(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            for _ in 0..requests {
                let Some(Ok((_, mut respond))) = connection.accept().await else { return };
                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                body.send_data("ok".into(), true).unwrap();
            }
            connection.graceful_shutdown();
            while connection.accept().await.is_some() {}
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_as_long_as_it_says_is_an_error_and_the_end_of_its_stream_only() {
    let identity = Identity::new("localhost");
    let acceptor = identity.acceptor(&["h2"]);
    let (address, connections) = raw(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let said = request.uri().path().trim_start_matches('/').to_owned();
                let head = http::Response::builder().header("content-length", said).body(()).unwrap();
                let mut body = respond.send_response(head, false).unwrap();
                body.send_data("hello".into(), false).unwrap();
                body.send_data("".into(), true).unwrap();
            }
        }
    })
    .await;
    let upstreams = upstreams(trusting(&identity));
    for (said, whole) in [("4", false), ("5", true), ("6", false), ("5", true)] {
        let answer = upstreams.send(get(format!("https://localhost:{}/{said}", address.port())), Reach::Operator).await;
        let body = match answer {
            Ok(answer) => answer.into_body().collect(99).await.ok(),
            Err(_) => None,
        };
        assert_eq!(body.as_deref(), whole.then_some(&b"hello"[..]), "{said}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_goes_away_is_replaced_without_a_failed_request() {
    let identity = Identity::new("localhost");
    let (address, connections) = goes_away(&identity, 3).await;
    let upstreams = upstreams(trusting(&identity));
    for _ in 0..30 {
        assert_eq!(fetch(&upstreams, get(format!("https://localhost:{}/", address.port()))).await.unwrap().1, "ok");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_stream_is_sent_again_and_another_reset_is_an_error() {
    let identity = Identity::new("localhost");
    let acceptor = identity.acceptor(&["h2"]);
    let (address, _) = raw(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            let mut count = 0;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                count += 1;
                match request.uri().path() {
                    "/refused" if count == 2 => respond.send_reset(h2::Reason::REFUSED_STREAM),
                    "/broken" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                    _ => {
                        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                        body.send_data("ok".into(), true).unwrap();
                    }
                }
            }
        }
    })
    .await;
    let upstreams = upstreams(trusting(&identity));
    let port = address.port();
    assert_eq!(fetch(&upstreams, get(format!("https://localhost:{port}/"))).await.unwrap().1, "ok");
    assert_eq!(fetch(&upstreams, get(format!("https://localhost:{port}/refused"))).await.unwrap().1, "ok");
    let error = fetch(&upstreams, get(format!("https://localhost:{port}/broken"))).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Protocol { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_its_length_is_an_error() {
    let identity = Identity::new("localhost");
    let acceptor = identity.acceptor(&["h2"]);
    let (address, _) = raw(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let length = request.uri().path().trim_start_matches('/').to_owned();
                let head = http::Response::builder().header("content-length", length).body(()).unwrap();
                let mut body = respond.send_response(head, false).unwrap();
                body.send_data("hello".into(), true).unwrap();
            }
        }
    })
    .await;
    let upstreams = upstreams(trusting(&identity));
    for length in ["3", "9"] {
        let response = upstreams.send(get(format!("https://localhost:{}/{length}", address.port())), Reach::Operator).await;
        let failed = match response {
            Ok(response) => response.into_body().collect(100).await.is_err(),
            Err(_) => true,
        };
        assert!(failed, "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_given_up_for_the_next_request() {
    let identity = Identity::new("localhost");
    let acceptor = identity.acceptor(&["h2"]);
    let (address, connections) = raw(move |number, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            let mut count = 0;
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                count += 1;
                if number == 1 && count == 2 {
                    // From here on the first connection is dead, but open.
                    return std::future::pending().await;
                }
                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                body.send_data("ok".into(), true).unwrap();
            }
        }
    })
    .await;
    let config = UpstreamsConfig { head_timeout: std::time::Duration::from_millis(200), ..trusting(&identity) };
    let upstreams = upstreams(config);
    let url = format!("https://localhost:{}/", address.port());
    assert_eq!(fetch(&upstreams, get(&url)).await.unwrap().1, "ok");
    let error = fetch(&upstreams, get(&url)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::HeadTimeout { .. }), "{error}");
    assert_eq!(fetch(&upstreams, get(&url)).await.unwrap().1, "ok");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}
