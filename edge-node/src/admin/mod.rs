//! Health and metrics, on a listener of their own: what an operator's tools ask, never a client.
//!
//! It has no authentication, therefore it listens on loopback by default, and it changes nothing.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use selvedge_runtime::{Body, Strain};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::limits::{self, Limits};
use crate::listen::{self, Answer, Connection, Interim, Refusal, Reply};
use crate::metrics::{Metrics, Readings};
use crate::tasks::Tasks;

/// What is shown.
pub(crate) struct Admin {
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// Reads what other parts keep.
    pub(crate) readings: Box<dyn Fn() -> Readings + Send + Sync>,
    /// The tasks of the node: draining makes it unready.
    pub(crate) tasks: Tasks,
    /// What an overloaded node refuses.
    pub(crate) strain: Arc<Strain>,
}

impl Admin {
    /// Answers one request.
    fn page(&self, method: &Method, path: &str) -> Response<Body> {
        if method != Method::GET && method != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            // Live: the process answers. Restarting it helps if it does not.
            "/healthz" => text(StatusCode::OK, "live\n"),
            // Ready: send traffic. It depends on this node alone, never on the registry.
            "/readyz" if self.tasks.draining().is_cancelled() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            // Ready on an overloaded node, too: it says what it refuses, and goes on with the rest.
            "/readyz" => text(StatusCode::OK, self.ready()),
            "/metrics" => {
                let mut response = text(StatusCode::OK, self.metrics.render(&(self.readings)()));
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            _ => text(StatusCode::NOT_FOUND, "/healthz, /readyz, /metrics\n"),
        }
    }

    fn ready(&self) -> String {
        let refused: Vec<_> = self.strain.read().filter(|(_, refused, _)| *refused).map(|(work, ..)| work.name()).collect();
        if refused.is_empty() { "ready\n".into() } else { format!("ready\noverloaded, refuses: {}\n", refused.join(", ")) }
    }
}

fn text(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Answer for Admin {
    async fn answer(&self, request: Request<Body>, _: &Arc<Connection>, _: Interim) -> Reply {
        self.page(request.method(), request.uri().path()).into()
    }

    fn refuse(&self, refusal: Refusal, _: &Arc<Connection>) -> Response<Body> {
        crate::request::refusal(refusal, "admin")
    }
}

/// Answers until the node has drained: a node that drains still says so. By the listeners' own HTTP/1.1, but counted with no client, and nothing of it
/// holds the drain.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>, until: CancellationToken) {
    let limits = Limits {
        connections_max: limits::ADMIN_CONNECTIONS_MAX,
        connections_per_address_max: limits::ADMIN_CONNECTIONS_MAX,
        head_timeout_ms: limits::ADMIN_HEAD_TIMEOUT_MS,
        ..Limits::default()
    };
    let tasks = Tasks::new();
    listen::serve_cleartext(listener, admin, &limits, &tasks);
    until.cancelled().await;
    tasks.drain(limits::ADMIN_DRAIN_TIMEOUT).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use selvedge_runtime::Work;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// No wait of a test lasts longer.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn admin() -> Admin {
        let readings = || Readings { runners: 3, ..Readings::default() };
        Admin { metrics: Arc::default(), readings: Box::new(readings), tasks: Tasks::new(), strain: Arc::default() }
    }

    #[tokio::test]
    async fn an_overloaded_node_is_ready_and_says_what_it_refuses() {
        let admin = admin();
        for (refused, said) in [(None, "ready\n"), (Some(Work::Worker), "ready\noverloaded, refuses: cold, worker\n")] {
            admin.strain.refuse(refused);
            let response = admin.page(&Method::GET, "/readyz");
            assert_eq!(response.status(), 200);
            assert_eq!(response.into_body().as_whole().unwrap(), said);
        }
    }

    #[tokio::test]
    async fn a_draining_node_is_live_but_not_ready() {
        let admin = admin();
        assert_eq!(admin.page(&Method::GET, "/readyz").status(), 200);
        admin.tasks.drain(std::time::Duration::ZERO).await;
        assert_eq!(admin.page(&Method::GET, "/readyz").status(), 503);
        assert_eq!(admin.page(&Method::GET, "/healthz").status(), 200);
    }

    #[tokio::test]
    async fn metrics_show_what_other_parts_keep() {
        let page = admin().page(&Method::GET, "/metrics").into_body().collect(1 << 20).await.unwrap();
        assert!(String::from_utf8_lossy(&page).contains("selvedge_runners 3\n"));
    }

    #[test]
    fn nothing_else_is_there() {
        assert_eq!(admin().page(&Method::GET, "/").status(), 404);
        assert_eq!(admin().page(&Method::POST, "/metrics").status(), 405);
    }

    /// What the listener says to these bytes until it closes.
    async fn said(address: std::net::SocketAddr, sent: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn what_could_be_read_in_two_ways_is_400_and_ends_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, until) = (listener.local_addr().unwrap(), CancellationToken::new());
        let admin = Arc::new(admin());
        let (tasks, metrics) = (admin.tasks.clone(), admin.metrics.clone());
        let serving = tokio::spawn(serve(listener, admin, until.clone()));
        let behind = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
        for fields in [
            "\r\n",
            "Host: a\r\nHost: a\r\n\r\n",
            "Host: a\n\r\n",
            "Host: a\r\nX: y\r\n z\r\n\r\n",
            "Host: a\r\nX : y\r\n\r\n",
            "Host: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
            "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            let answer = said(address, &format!("GET /healthz HTTP/1.1\r\n{fields}{behind}")).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.matches("HTTP/1.1 ").count() == 1, "{fields:?}: {answer}");
        }
        assert_eq!(metrics.render(&Readings::default()), Metrics::default().render(&Readings::default()), "no client of the node");
        // A node that drains says so; a connection that waits does not hold it.
        let mut waits = TcpStream::connect(address).await.unwrap();
        assert!(tasks.drain(PATIENCE).await);
        waits.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, waits.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("draining\n"), "{answer}");
        until.cancel();
        tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "nothing listens any more");
    }
}
