//! `selvedge demo-upstream`: a customer's own server, as small as can be.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::super::{DONE, signals::Stop};
use crate::output::Output;

/// What the page says; the demonstration looks for it.
pub(super) const PAGE: &str = "<!doctype html>\n<title>Upstream</title>\n<p>a page of the customer's own server\n";

/// For a client to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the command.
pub(in super::super) async fn run(output: Output) -> anyhow::Result<u8> {
    let mut stop = Stop::listen()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    output.machine_line(&serde_json::json!({ "address": listener.local_addr()? }));
    loop {
        let accepted = tokio::select! {
            () = stop.wait() => return Ok(DONE),
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let serve = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service_fn(answer));
        tokio::spawn(serve);
    }
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(PAGE.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("public, max-age=60"));
    Ok(response)
}
