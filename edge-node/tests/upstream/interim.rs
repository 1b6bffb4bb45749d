//! What comes before the final response of an HTTP/2 server, and streams that end otherwise than at their end.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{Request, Response};
use parking_lot::Mutex;
use selvedge_edge::upstream::{Group, OnInterim, UpstreamError, Upstreams, UpstreamsConfig};
use selvedge_edge::{Body, BodyError};
use selvedge_origin::registry::{Protocol, Upstream};

use crate::servers::{get, post, raw, upstreams};

/// A server in cleartext that answers each stream by `serve`.
async fn streams<F>(serve: impl Fn(Request<h2::RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let (address, _) = raw(move |_, stream| {
        let serve = serve.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(serve(request, respond));
            }
        }
    })
    .await;
    address
}

async fn ask(upstreams: &Upstreams, address: SocketAddr, request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
    let group = Group::new(&Upstream { protocol: Protocol::H2, ..Upstream::at(format!("http://{address}")) }).expect("a group");
    let target = request.uri().path_and_query().expect("a target").clone();
    upstreams.ask(&group, &target, request).await
}

fn head(status: u16) -> Response<()> {
    Response::builder().status(status).body(()).expect("a head")
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_are_told_in_order_and_within_a_bound() {
    let address = streams(|request, mut respond| async move {
        let count = if request.uri().path() == "/flood" { 5_000 } else { 300 };
        for number in 0..count {
            let mut head = head(if number == 0 { 102 } else { 103 });
            head.headers_mut().insert("x-number", number.into());
            if respond.send_informational(head).is_err() {
                return;
            }
            if number % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        if let Ok(mut body) = respond.send_response(head(200), false) {
            let _ = body.send_data("final".into(), true);
        }
    })
    .await;
    let upstreams = upstreams(UpstreamsConfig::default());
    let heard: Arc<Mutex<Vec<(u16, String)>>> = Arc::default();
    for path in ["/", "/flood"] {
        let told = heard.clone();
        let mut request = get(path);
        request.extensions_mut().insert(OnInterim::new(move |status, headers| {
            told.lock().push((status.as_u16(), headers["x-number"].to_str().expect("a number").to_owned()));
        }));
        let answer = ask(&upstreams, address, request).await;
        let heard = std::mem::take(&mut *heard.lock());
        if path == "/" {
            let numbered = |number: u32| (if number == 0 { 102 } else { 103 }, number.to_string());
            assert_eq!(heard, (0..300).map(numbered).collect::<Vec<_>>());
            assert_eq!(answer.expect("an answer").into_body().collect(9).await.expect("a body"), "final");
        } else {
            let error = answer.expect_err("too many");
            assert!(matches!(error, UpstreamError::Protocol { .. }), "{error}");
            assert_eq!(heard.len(), 1024);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_reset_in_its_middle_is_never_taken_for_whole() {
    let address = streams(|request, mut respond| async move {
        let mut body = respond.send_response(head(200), false).expect("a stream");
        body.send_data("begin".into(), false).expect("a stream");
        // The server's own doing, whatever it calls it.
        let reason = if request.uri().path() == "/cancel" { Reason::CANCEL } else { Reason::NO_ERROR };
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        body.send_reset(reason);
    })
    .await;
    let upstreams = upstreams(UpstreamsConfig::default());
    for path in ["/cancel", "/no-error"] {
        let answer = ask(&upstreams, address, get(path)).await.expect("a head");
        assert!(answer.into_body().collect(99).await.is_err(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_early_gets_the_rest_of_the_request() {
    let (told, got) = tokio::sync::oneshot::channel();
    let told = Arc::new(Mutex::new(Some(told)));
    let address = streams(move |request, mut respond| {
        let told = told.clone();
        async move {
            respond.send_response(head(202), true).expect("a stream");
            let (mut body, mut count) = (request.into_body(), 0);
            while let Some(Ok(data)) = body.data().await {
                count += data.len();
                let _ = body.flow_control().release_capacity(data.len());
            }
            let _ = told.lock().take().expect("one request").send(count);
        }
    })
    .await;
    let upstreams = upstreams(UpstreamsConfig::default());
    let (send, pieces) = tokio::sync::mpsc::channel(1);
    let pieces = futures::stream::unfold(pieces, |mut pieces| async { pieces.recv().await.map(|piece| (Ok(piece), pieces)) });
    let answer = ask(&upstreams, address, post("/", Body::chunks(pieces))).await.expect("an answer");
    assert_eq!(answer.status(), 202);
    drop(answer);
    for _ in 0..100 {
        send.send(Bytes::from_static(&[7; 10_000])).await.expect("a reader");
    }
    drop(send);
    assert_eq!(got.await.expect("a count"), 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_that_fails_resets_the_stream_and_is_the_senders_error() {
    let address = streams(|request, respond| async move {
        let mut body = request.into_body();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
        }
        drop(respond);
    })
    .await;
    let pieces = [Ok(Bytes::from_static(b"begin")), Err(BodyError::Aborted("the client has gone".into()))];
    let pieces = futures::StreamExt::then(futures::stream::iter(pieces), |piece| async {
        tokio::task::yield_now().await;
        piece
    });
    let error = ask(&upstreams(UpstreamsConfig::default()), address, post("/", Body::chunks(pieces))).await.expect_err("no answer");
    assert!(matches!(error, UpstreamError::RequestBody { error: BodyError::Aborted(_), .. }), "{error}");
}
