//! Health and metrics, on a listener of their own: what an operator's tools ask, never a client.
//!
//! It has no authentication, therefore it listens on loopback by default, and it changes nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use selvedge_runtime::Body;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::limits;
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
}

impl Admin {
    /// Answers one request.
    fn answer(&self, method: &Method, path: &str) -> Response<Body> {
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
            "/readyz" => text(StatusCode::OK, "ready\n"),
            "/metrics" => {
                let mut response = text(StatusCode::OK, self.metrics.render(&(self.readings)()));
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            _ => text(StatusCode::NOT_FOUND, "/healthz, /readyz, /metrics\n"),
        }
    }
}

fn text(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Accepts until the node has drained: a node that drains still says so.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>, until: tokio_util::sync::CancellationToken) {
    let places = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    while let Some(accepted) = until.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let Ok(place) = places.clone().try_acquire_owned() else {
                    tracing::debug!(client.address = %peer, "too many admin connections");
                    continue;
                };
                let (connection, admin) = (connection(stream, peer, admin.clone()), admin.clone());
                admin.tasks.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin: accept failed");
                tokio::time::sleep(limits::ACCEPT_RETRY_WAIT).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, admin: Arc<Admin>) {
    let draining = admin.tasks.draining().clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut response = admin.answer(request.method(), request.uri().path());
        if admin.tasks.draining().is_cancelled() {
            // An idle connection must not hold the drain.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits::ADMIN_REQUEST_TIMEOUT).max_buf_size(limits::ADMIN_BUFFER_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(client.address = %peer, %error, "admin: connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin() -> Admin {
        let readings = || Readings { runners: 3, ..Readings::default() };
        Admin { metrics: Arc::default(), readings: Box::new(readings), tasks: Tasks::new() }
    }

    #[tokio::test]
    async fn a_draining_node_is_live_but_not_ready() {
        let admin = admin();
        assert_eq!(admin.answer(&Method::GET, "/readyz").status(), 200);
        admin.tasks.drain(std::time::Duration::ZERO).await;
        assert_eq!(admin.answer(&Method::GET, "/readyz").status(), 503);
        assert_eq!(admin.answer(&Method::GET, "/healthz").status(), 200);
    }

    #[tokio::test]
    async fn metrics_show_what_other_parts_keep() {
        let page = admin().answer(&Method::GET, "/metrics").into_body().collect(1 << 20).await.unwrap();
        assert!(String::from_utf8_lossy(&page).contains("selvedge_runners 3\n"));
    }

    #[test]
    fn nothing_else_is_there() {
        assert_eq!(admin().answer(&Method::GET, "/").status(), 404);
        assert_eq!(admin().answer(&Method::POST, "/metrics").status(), 405);
    }
}
