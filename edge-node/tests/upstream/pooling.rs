//! Connections are reused where that is safe, and only there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::join_all;
use selvedge_edge::Body;
use selvedge_edge::upstream::{Reach, UpstreamError, UpstreamsConfig};
use selvedge_runtime::limits::{STANDING_WAIT, STANDS_AFTER};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

use crate::servers::{Answer, fetch, get, head, plain, post, raw, scripted, upstreams, whole};

#[tokio::test(flavor = "multi_thread")]
async fn requests_one_after_another_share_a_connection() {
    let (address, connections) = plain(|_| async { Answer::new(whole("hello")) }).await;
    let upstreams = upstreams(UpstreamsConfig::default());
    for _ in 0..50 {
        assert_eq!(fetch(&upstreams, get(format!("http://{address}/"))).await.unwrap().1, "hello");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert_eq!(upstreams.connections(), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_the_same_time_have_a_connection_each_and_the_last_one_is_used_first() {
    let gate = Arc::new(tokio::sync::Barrier::new(3));
    let (address, connections) = plain(move |request| {
        let gate = gate.clone();
        async move {
            if request.uri().path() == "/together" {
                gate.wait().await;
            }
            Answer::new(whole("hello"))
        }
    })
    .await;
    let upstreams = upstreams(UpstreamsConfig::default());
    join_all((0..3).map(|_| fetch(&upstreams, get(format!("http://{address}/together"))))).await;
    assert_eq!(connections.load(Ordering::SeqCst), 3);
    for _ in 0..5 {
        fetch(&upstreams, get(format!("http://{address}/"))).await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_connection_is_not_shared_between_what_the_operator_and_what_a_worker_named() {
    let (address, connections) = plain(|_| async { Answer::new(whole("hello")) }).await;
    let upstreams = upstreams(UpstreamsConfig { fetch_allow: vec!["127.0.0.0/8".parse().unwrap()], ..UpstreamsConfig::default() });
    fetch(&upstreams, get(format!("http://{address}/"))).await.unwrap();
    let answer = upstreams.send(get(format!("http://{address}/")), Reach::Worker).await.unwrap();
    assert_eq!(answer.into_body().collect(100).await.unwrap(), "hello");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_connection_whose_answer_was_not_read_to_its_end_is_closed() {
    let (gone, mut was_closed) = mpsc::unbounded_channel();
    let (address, connections) = raw(move |_, mut stream| {
        let gone = gone.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nbegin").await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            let _ = gone.send(());
        }
    })
    .await;
    let upstreams = upstreams(UpstreamsConfig::default());
    let answer = upstreams.send(get(format!("http://{address}/")), Reach::Operator).await.unwrap();
    drop(answer);
    was_closed.recv().await.expect("the server sees the end");
    drop(upstreams.send(get(format!("http://{address}/")), Reach::Operator).await.unwrap());
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    assert_eq!(upstreams.connections().1, 0);
}

#[tokio::test]
async fn dropping_a_request_before_its_head_closes_the_connection() {
    let (came, mut has_come) = mpsc::unbounded_channel();
    let (address, _) = raw(move |_, mut stream| {
        let came = came.clone();
        async move {
            head(&mut stream).await;
            let _ = came.send("request");
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            let _ = came.send("end");
        }
    })
    .await;
    let upstreams = upstreams(UpstreamsConfig::default());
    let sending = upstreams.send(get(format!("http://{address}/")), Reach::Operator);
    tokio::select! {
        _ = sending => panic!("nobody answers"),
        came = has_come.recv() => assert_eq!(came, Some("request")),
    }
    assert_eq!(has_come.recv().await, Some("end"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_the_upstream_closes_costs_a_safe_request_nothing() {
    // Every connection answers once, and dies at its second request without a byte.
    let (address, connections) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        head(&mut stream).await;
    })
    .await;
    let upstreams = upstreams(UpstreamsConfig::default());
    for round in 1..=5 {
        assert_eq!(fetch(&upstreams, get(format!("http://{address}/"))).await.unwrap().1, "ok");
        assert_eq!(connections.load(Ordering::SeqCst), round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_have_had_an_effect_is_not_sent_twice() {
    let (address, connections) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        head(&mut stream).await;
    })
    .await;
    let upstreams = upstreams(UpstreamsConfig::default());
    fetch(&upstreams, get(format!("http://{address}/"))).await.unwrap();
    let error = fetch(&upstreams, post(format!("http://{address}/"), Body::full("order"))).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Terminated { .. }), "{error}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_had_begun_is_not_asked_for_again() {
    let (address, connections) = raw(|number, mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        if number == 1 {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 O").await.unwrap();
        }
    })
    .await;
    let upstreams = upstreams(UpstreamsConfig::default());
    fetch(&upstreams, get(format!("http://{address}/"))).await.unwrap();
    assert!(fetch(&upstreams, get(format!("http://{address}/"))).await.is_err());
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_after_a_bounded_number_of_connections() {
    let (address, connections) = raw(|_, mut stream| async move { drop(head(&mut stream).await) }).await;
    let error = fetch(&upstreams(UpstreamsConfig::default()), get(format!("http://{address}/"))).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Terminated { .. }), "{error}");
    assert_eq!(connections.load(Ordering::SeqCst), 1, "a new connection that fails says enough");
}

#[tokio::test]
async fn an_idle_connection_is_not_used_after_its_time() {
    let (address, connections) = scripted("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let upstreams = upstreams(UpstreamsConfig { idle_timeout: Duration::ZERO, ..UpstreamsConfig::default() });
    fetch(&upstreams, get(format!("http://{address}/"))).await.unwrap();
    fetch(&upstreams, get(format!("http://{address}/"))).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_full_upstream_takes_a_bounded_queue_and_refuses_the_rest() {
    let release = Arc::new(Notify::new());
    let (came, mut has_come) = mpsc::unbounded_channel();
    let released = release.clone();
    let (address, _) = plain(move |_| {
        let (release, came) = (released.clone(), came.clone());
        async move {
            let _ = came.send(());
            release.notified().await;
            Answer::new(whole("late"))
        }
    })
    .await;
    let config = UpstreamsConfig { requests_per_upstream_max: 1, queue_per_upstream_max: 1, ..UpstreamsConfig::default() };
    let upstreams = upstreams(config);
    let url = format!("http://{address}/");
    let first = fetch(&upstreams, get(&url));
    tokio::pin!(first);
    tokio::select! {
        _ = &mut first => panic!("not released yet"),
        _ = has_come.recv() => {}
    }
    let second = fetch(&upstreams, get(&url));
    tokio::pin!(second);
    assert!(futures::poll!(&mut second).is_pending(), "one waits");
    let third = fetch(&upstreams, get(&url)).await.unwrap_err();
    assert!(matches!(third, UpstreamError::Overloaded { .. }), "{third}");
    release.notify_one();
    assert_eq!(first.await.unwrap().1, "late");
    release.notify_one();
    assert_eq!(second.await.unwrap().1, "late");
}

#[tokio::test]
async fn newcomers_of_a_queue_that_stands_wait_for_a_short_time_and_those_before_them_go_on() {
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let (address, _) = plain(move |_| {
        let release = released.clone();
        async move {
            release.notified().await;
            Answer::new(whole("late"))
        }
    })
    .await;
    let queue_wait = Duration::from_secs(30);
    let upstreams = upstreams(UpstreamsConfig { requests_per_upstream_max: 1, queue_wait, ..UpstreamsConfig::default() });
    let url = format!("http://{address}/");
    let ask = || fetch(&upstreams, get(&url));
    let newcomer = async {
        // The first has the only place, and the second began to wait for it at the same time.
        tokio::time::sleep(STANDS_AFTER).await;
        let came = Instant::now();
        let error = ask().await.unwrap_err();
        let waited = came.elapsed();
        release.notify_one();
        tokio::task::yield_now().await;
        release.notify_one();
        (error, waited)
    };
    let (first, second, (error, waited)) = tokio::join!(ask(), ask(), newcomer);
    assert_eq!((first.unwrap().1, second.unwrap().1), ("late".into(), "late".into()));
    assert!(matches!(error, UpstreamError::Overloaded { .. }), "{error}");
    assert!(waited >= STANDING_WAIT && waited < queue_wait / 10, "{waited:?}");
}

#[tokio::test]
async fn waiting_for_a_full_upstream_has_an_end() {
    let (address, _) = raw(|_, mut stream| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let config = UpstreamsConfig { requests_per_upstream_max: 1, queue_wait: Duration::from_millis(20), ..UpstreamsConfig::default() };
    let upstreams = upstreams(config);
    let url = format!("http://{address}/");
    let first = fetch(&upstreams, get(&url));
    let second = async { fetch(&upstreams, get(&url)).await.unwrap_err() };
    tokio::select! {
        biased;
        _ = first => panic!("nobody answers"),
        error = second => assert!(matches!(error, UpstreamError::Overloaded { .. }), "{error}"),
    }
}

/// The runtime has one thread, which this test keeps from looking: that the server has closed, only the kernel knows.
#[tokio::test]
async fn a_connection_that_the_server_has_just_closed_is_found_out_before_a_request_is_sent() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer_one = move |listener: &std::net::TcpListener| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        stream
    };
    let (close, closing) = std::sync::mpsc::channel();
    let (closed, has_closed) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let first = answer_one(&listener);
        closing.recv().unwrap();
        drop(first);
        closed.send(()).unwrap();
        drop(answer_one(&listener));
    });
    let upstreams = upstreams(UpstreamsConfig::default());
    fetch(&upstreams, get(format!("http://{address}/"))).await.unwrap();
    assert_eq!(upstreams.connections(), (1, 1));
    close.send(()).unwrap();
    has_closed.recv().unwrap();
    // Not one that may be sent twice.
    assert_eq!(fetch(&upstreams, post(format!("http://{address}/"), Body::empty())).await.unwrap().1, "ok");
    server.join().unwrap();
}
