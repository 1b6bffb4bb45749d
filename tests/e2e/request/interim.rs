//! Interim responses (RFC 9110, section 15.2): from upstreams of every protocol to clients of every protocol, and never into the cache.

use http::{Response, StatusCode};
use selvedge_origin::api::wire::RouteSpec;
use selvedge_origin::registry::{Protocol, Upstream};
use selvedge_tests::client::{self, Over};
use selvedge_tests::{Cluster, route};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// Answers each connection of a new port by `serve`.
pub(super) async fn listening<F: Future<Output = ()> + Send>(
    serve: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static,
) -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let accepting = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let serve = serve.clone();
            tokio::spawn(async move { serve(socket).await });
        }
    });
    (url, AbortOnDropHandle::new(accepting))
}

pub(super) async fn http1(mut socket: TcpStream) {
    const ANSWER: &str = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Hint: 1\r\n\r\n\
                          HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\npage";
    let mut asked = [0; 4096];
    let _ = socket.read(&mut asked).await;
    let _ = socket.write_all(ANSWER.as_bytes()).await;
}

async fn http2(socket: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let head = |status: u16| Response::builder().status(status);
        respond.send_informational(head(102).body(()).unwrap()).unwrap();
        let hint = head(103).header("link", "</a.css>; rel=preload").header("x-hint", "1");
        respond.send_informational(hint.body(()).unwrap()).unwrap();
        let mut body = respond.send_response(head(200).header("cache-control", "max-age=60").body(()).unwrap(), false).unwrap();
        body.send_data("page".into(), true).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_reach_the_client_and_are_no_part_of_what_is_stored() {
    let ((h1, _h1), (h2, _h2)) = (listening(http1).await, listening(http2).await);
    let to = |pattern: &str, url: &str, protocol| {
        let upstream = Upstream { protocol, ..Upstream::at(url) };
        RouteSpec { upstream: Some(upstream), ..route(pattern, None, None) }
    };
    let cluster = Cluster::start(1).await;
    cluster.apply(vec![to("one.test/*", &h1, Protocol::H1), to("two.test/*", &h2, Protocol::H2)]).await;
    for host in ["one.test", "two.test"] {
        for over in [Over::Cleartext, Over::H1, Over::H2, Over::H3] {
            let path = format!("/{over:?}");
            let first = cluster.send(over, client::get(host, &path)).await;
            let statuses: Vec<u16> = first.interim.iter().map(|(status, _)| *status).collect();
            assert_eq!(statuses, [102, 103], "{host} {over:?}");
            let hint = &first.interim[1].1;
            assert!(hint["link"] == "</a.css>; rel=preload" && hint["x-hint"] == "1", "{hint:?}");
            assert_eq!((first.status, first.text().as_str()), (200, "page"), "{host} {over:?}");
            let second = cluster.send(over, client::get(host, &path)).await;
            assert!(second.header("cache-status").contains("; hit;"), "{:?}", second.headers);
            assert!(second.interim.is_empty() && !second.headers.contains_key("x-hint"), "{host} {over:?}");
            assert_eq!(second.status, StatusCode::OK.as_u16());
        }
    }
}
