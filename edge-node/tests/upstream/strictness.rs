//! What goes out is well formed whatever came in, and what comes in wrong is an error and the end of its connection.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header;
use selvedge_edge::upstream::{Reach, UpstreamError, UpstreamsConfig};
use selvedge_edge::{Body, BodyError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::servers::{fetch, get, head, post, raw, scripted, upstreams};

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_http_are_protocol_errors() {
    let garbage = [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: mirror\r\nconnection: upgrade\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
    ];
    for answer in garbage {
        let (address, _) = scripted(answer).await;
        let error = fetch(&upstreams(UpstreamsConfig::default()), get(format!("http://{address}/"))).await.expect_err(answer);
        assert!(matches!(error, UpstreamError::Protocol { .. }), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_refused_within_its_bound() {
    let (address, _) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"x-more: and more and more\r\n").await.is_ok() {}
    })
    .await;
    let error = fetch(&upstreams(UpstreamsConfig::default()), get(format!("http://{address}/"))).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Protocol { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_bytes_than_the_length_says_end_the_connection() {
    let (address, connections) =
        scripted("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
    let upstreams = upstreams(UpstreamsConfig::default());
    for round in 1..=3 {
        assert_eq!(fetch(&upstreams, get(format!("http://{address}/"))).await.unwrap().1, "ok");
        assert_eq!(connections.load(Ordering::SeqCst), round, "a connection that said too much is not used again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_two_lengths_is_read_by_its_chunks_and_ends_the_connection() {
    let (address, connections) =
        scripted("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let upstreams = upstreams(UpstreamsConfig::default());
    for round in 1..=2 {
        let response = upstreams.send(get(format!("http://{address}/")), Reach::Operator).await.unwrap();
        assert!(!response.headers().contains_key(header::CONTENT_LENGTH) && !response.headers().contains_key(header::TRANSFER_ENCODING));
        assert_eq!(response.into_body().collect(100).await.unwrap(), "hello");
        assert_eq!(connections.load(Ordering::SeqCst), round);
    }
}

#[tokio::test]
async fn a_body_that_is_cut_short_is_an_error_not_an_end() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nshort\r\n0\r\n\r\n",
    ] {
        let (address, _) = raw(move |_, mut stream| async move {
            head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        let upstreams = upstreams(UpstreamsConfig::default());
        let response = upstreams.send(get(format!("http://{address}/")), Reach::Operator).await.unwrap();
        let error = response.into_body().collect(100).await.expect_err(answer);
        assert!(matches!(error, BodyError::Aborted(_)), "{answer:?}: {error}");
        assert_eq!(upstreams.connections().1, 0);
    }
}

#[tokio::test]
async fn interim_responses_are_passed_over() {
    let (address, _) = scripted("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(fetch(&upstreams(UpstreamsConfig::default()), get(format!("http://{address}/"))).await.unwrap().1, "ok");
}

#[tokio::test]
async fn odd_methods_and_statuses_pass() {
    let (address, _) = scripted("HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n").await;
    let mut request = get(format!("http://{address}/"));
    *request.method_mut() = "M-SEARCH".parse().unwrap();
    assert_eq!(fetch(&upstreams(UpstreamsConfig::default()), request).await.unwrap().0.as_u16(), 999);
}

/// What a server reads of one request with this body, after the head's blank line too.
async fn as_sent(request: http::Request<Body>) -> String {
    let (sent, mut was_sent) = mpsc::unbounded_channel();
    let (address, _) = raw(move |_, mut stream| {
        let sent = sent.clone();
        async move {
            let mut text = head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            text.push_str(&String::from_utf8_lossy(&rest));
            let _ = sent.send(text);
        }
    })
    .await;
    let mut request = request;
    *request.uri_mut() = format!("http://{address}{}", request.uri()).parse().unwrap();
    let upstreams = upstreams(UpstreamsConfig::default());
    fetch(&upstreams, request).await.unwrap();
    drop(upstreams);
    was_sent.recv().await.unwrap().replace(&address.to_string(), "ADDRESS")
}

#[tokio::test]
async fn a_request_goes_out_in_origin_form_with_a_host_and_no_framing_of_others() {
    let mut request = get("/path?query");
    for (name, value) in [("connection", "close"), ("keep-alive", "5"), ("te", "gzip"), ("upgrade", "h2c"), ("expect", "100-continue")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request.headers_mut().insert("transfer-encoding", "chunked".parse().unwrap());
    request.headers_mut().insert("content-length", "77".parse().unwrap());
    *request.version_mut() = http::Version::HTTP_3;
    assert_eq!(as_sent(request).await, "GET /path?query HTTP/1.1\r\nhost: ADDRESS\r\n\r\n");
}

#[tokio::test]
async fn a_host_field_of_the_request_is_kept() {
    let mut request = get("/");
    request.headers_mut().insert("host", "www.example.org".parse().unwrap());
    assert_eq!(as_sent(request).await, "GET / HTTP/1.1\r\nhost: www.example.org\r\n\r\n");
}

#[tokio::test]
async fn a_body_has_its_own_length_or_chunks() {
    let sent = as_sent(post("/", Body::full("hello"))).await;
    assert!(sent.contains("content-length: 5\r\n") && sent.ends_with("\r\n\r\nhello"), "{sent}");
    let sent = as_sent(post("/", Body::empty())).await;
    assert!(sent.contains("content-length: 0\r\n"), "{sent}");
    let stream = || Body::chunks(futures::stream::iter([Ok(Bytes::from("hel")), Ok(Bytes::from("lo"))]));
    let sent = as_sent(post("/", stream())).await;
    assert!(sent.contains("transfer-encoding: chunked\r\n") && sent.ends_with("3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"), "{sent}");
    let mut known = post("/", stream());
    known.headers_mut().insert("content-length", "5".parse().unwrap());
    let sent = as_sent(known).await;
    assert!(sent.contains("content-length: 5\r\n") && sent.ends_with("\r\n\r\nhello"), "{sent}");
}

#[tokio::test]
async fn a_request_body_that_fails_is_the_senders_error() {
    let (address, _) = raw(|_, mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await;
    let failing = Body::chunks(futures::stream::iter([Ok(Bytes::from("begin")), Err(BodyError::Aborted("client reset".into()))]));
    let error = fetch(&upstreams(UpstreamsConfig::default()), post(format!("http://{address}/"), failing)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::RequestBody { .. }), "{error}");
}

#[tokio::test]
async fn both_bodies_stream_at_the_same_time() {
    let (address, _) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let mut echoed = Vec::new();
        while !echoed.ends_with(b"0\r\n\r\n") {
            let mut buffer = [0; 100];
            let count = stream.read(&mut buffer).await.unwrap();
            echoed.extend_from_slice(&buffer[..count]);
            stream.write_all(&buffer[..count]).await.unwrap();
        }
    })
    .await;
    let (send, chunks) = mpsc::unbounded_channel::<Result<Bytes, BodyError>>();
    let chunks = futures::stream::unfold(chunks, |mut chunks| async { chunks.recv().await.map(|chunk| (chunk, chunks)) });
    let upstreams = upstreams(UpstreamsConfig::default());
    let response = upstreams.send(post(format!("http://{address}/"), Body::chunks(chunks)), Reach::Operator).await.unwrap();
    let mut body = response.into_body();
    for text in ["one", "two", "three"] {
        send.send(Ok(text.into())).unwrap();
        let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
    }
    drop(send);
    assert!(http_body_util::BodyExt::frame(&mut body).await.is_none());
}

#[tokio::test]
async fn addresses_that_are_not_http_are_refused_by_name() {
    let upstreams = upstreams(UpstreamsConfig::default());
    for url in ["/relative", "ftp://example.org/", "example.org:80"] {
        let error = fetch(&upstreams, get(url)).await.unwrap_err();
        assert!(matches!(error, UpstreamError::BadRequest { .. }), "{url}: {error}");
    }
    let mut tunnel = get("http://127.0.0.1:1/");
    *tunnel.method_mut() = http::Method::CONNECT;
    assert!(matches!(fetch(&upstreams, tunnel).await.unwrap_err(), UpstreamError::BadRequest { .. }));
}
