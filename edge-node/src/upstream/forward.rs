//! One exchange with an upstream: the request out, the head in, the body as it is asked for; and once more on another connection where
//! that cannot do harm.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use selvedge_runtime::{Body, BodyError};
use tokio::time::{Instant, Sleep};

use super::pool::{self, Connection, Lease, Pools, Want};
use super::{UpstreamError, connect::Destination, limits};

/// Sends the request to its destination.
pub(super) async fn send(pools: &Arc<Pools>, to: Destination, request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
    let host = to.host.clone();
    let pool = pools.pool(to);
    let mut slot = pool.slot(pools.config()).await?;
    let mut request = request;
    for attempt in 1..=limits::ATTEMPTS_MAX {
        let want = if attempt == limits::ATTEMPTS_MAX { Want::New } else { Want::Any };
        let lease = pool::lease(pools, &pool, slot, want).await?;
        match exchange(pools, &host, lease, request).await {
            Ok(response) => return Ok(response),
            Err(Failed { again: Some((unsent, lease)), error }) if attempt < limits::ATTEMPTS_MAX => {
                tracing::debug!(host = &*host, %error, "another connection for the same request");
                request = unsent;
                slot = lease.into_slot();
            }
            Err(Failed { error, .. }) => return Err(error),
        }
    }
    Err(UpstreamError::Connect { host: host.to_string(), reason: "every connection was lost".into() })
}

/// An exchange that gave no head; with the request, where it may be sent again.
struct Failed {
    error: UpstreamError,
    again: Option<(Request<Body>, Lease)>,
}

impl From<UpstreamError> for Failed {
    fn from(error: UpstreamError) -> Self {
        Self { error, again: None }
    }
}

async fn exchange(pools: &Arc<Pools>, host: &Arc<str>, mut lease: Lease, request: Request<Body>) -> Result<Response<Body>, Failed> {
    let copy = if lease.reused { replayable(&request) } else { None };
    let progress = Arc::new(Progress::default());
    let method = request.method().clone();
    let (mut head, body) = request.into_parts();
    let (original_uri, original_host) = (head.uri.clone(), head.headers.get(header::HOST).cloned());
    let head_timeout = pools.config().head_timeout;
    let answer = match lease.connection() {
        Some(Connection::Http1(connection)) => {
            head_for_http1(&mut head, &body, host)?;
            let outgoing = Request::from_parts(head, Outgoing { body, progress: progress.clone() });
            let answer = connection.sender.try_send_request(outgoing);
            within(head_timeout, &progress, answer).await
        }
        Some(Connection::Http2(connection)) => {
            head_for_http2(&mut head, &body, host)?;
            let outgoing = Request::from_parts(head, Outgoing { body, progress: progress.clone() });
            let answer = connection.sender.clone().try_send_request(outgoing);
            within(head_timeout, &progress, answer).await
        }
        None => return Err(UpstreamError::Connect { host: host.to_string(), reason: "connection lost".into() }.into()),
    };
    match answer {
        Some(Ok(response)) => accept(pools, host, lease, &method, response).await.map_err(Failed::from),
        None => Err(UpstreamError::HeadTimeout { host: host.to_string(), ms: head_timeout.as_millis() as u64 }.into()),
        Some(Err(mut failed)) => {
            let unsent = failed.take_message().map(|unsent| {
                let (mut head, outgoing) = unsent.into_parts();
                head.uri = original_uri;
                if let Some(host) = original_host {
                    head.headers.insert(header::HOST, host);
                }
                Request::from_parts(head, outgoing.body)
            });
            let error = failed.into_error();
            let again = unsent.or_else(|| copy.filter(|_| lease.reused && lost_before_answer(&lease, &error)));
            Err(Failed { error: describe(host, &error, &progress), again: again.map(|request| (request, lease)) })
        }
    }
}

/// A copy to send again, where sending twice does what sending once does (RFC 9110, section 9.2.2) and the body is still here.
fn replayable(request: &Request<Body>) -> Option<Request<Body>> {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
    if !idempotent.contains(request.method()) {
        return None;
    }
    let mut copy = Request::new(Body::full(request.body().as_whole()?));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// The connection went before it gave an answer: an open one that the upstream had closed meanwhile, or was about to.
fn lost_before_answer(lease: &Lease, error: &hyper::Error) -> bool {
    if let Some(h2) = find_h2(error) {
        // RFC 9113, section 8.7: a refused stream, and one beyond a GOAWAY, were not processed.
        return h2.reason() == Some(h2::Reason::REFUSED_STREAM) || h2.is_go_away() || h2.is_io();
    }
    !error.is_parse() && !error.is_user() && !lease.has_received()
}

fn find_h2(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

fn describe(host: &str, error: &hyper::Error, progress: &Progress) -> UpstreamError {
    let host = host.to_owned();
    if let Some(error) = progress.failed.lock().take() {
        return UpstreamError::RequestBody { host, error };
    }
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        reason = format!("{reason}: {error}");
        source = error.source();
    }
    if error.is_parse() || find_h2(error).is_some_and(|error| !error.is_io()) {
        UpstreamError::Protocol { host, reason }
    } else {
        UpstreamError::Connect { host, reason }
    }
}

/// Waits for the head. The time runs from the last progress of the request's body.
async fn within<T>(head_timeout: Duration, progress: &Progress, answer: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(answer);
    loop {
        let deadline = *progress.last.lock() + head_timeout;
        match tokio::time::timeout_at(deadline, &mut answer).await {
            Ok(answer) => return Some(answer),
            Err(_) if *progress.last.lock() + head_timeout > Instant::now() => {}
            Err(_) => return None,
        }
    }
}

/// Fields that say how one connection frames a message, or what it may become; each connection has its own (RFC 9110, section 7.6.1).
fn strip_framing(headers: &mut HeaderMap, body: &Body) {
    const OURS: [HeaderName; 6] = [
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::EXPECT,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in OURS {
        headers.remove(name);
    }
    if headers.get(header::TE).is_some_and(|te| te.as_bytes() != b"trailers") {
        headers.remove(header::TE);
    }
    // The length is the body's own affair. One that only the field knows stays, so that a length known to the client is known to the upstream.
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let single = lengths.next().filter(|_| lengths.next().is_none()).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if single.is_none() || body.size_hint().exact().is_some() {
        headers.remove(header::CONTENT_LENGTH);
    }
}

fn head_for_http1(head: &mut http::request::Parts, body: &Body, host: &str) -> Result<(), UpstreamError> {
    strip_framing(&mut head.headers, body);
    // RFC 9110, section 8.6: a method that expects content says that there is none.
    if body.is_end_stream() && [Method::POST, Method::PUT, Method::PATCH].contains(&head.method) {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    if !head.headers.contains_key(header::HOST)
        && let Some(authority) = head.uri.authority()
    {
        let value = HeaderValue::from_str(&without_default_port(&head.uri, authority.as_str()))
            .map_err(|error| UpstreamError::Protocol { host: host.to_owned(), reason: error.to_string() })?;
        head.headers.insert(header::HOST, value);
    }
    head.uri = match head.uri.path_and_query() {
        Some(path) => Uri::from(path.clone()),
        None => Uri::from_static("/"),
    };
    head.version = Version::HTTP_11;
    Ok(())
}

fn head_for_http2(head: &mut http::request::Parts, body: &Body, host: &str) -> Result<(), UpstreamError> {
    strip_framing(&mut head.headers, body);
    // The Host field becomes :authority (RFC 9113, section 8.3.1).
    if let Some(field) = head.headers.remove(header::HOST) {
        let bad = |reason: String| UpstreamError::Protocol { host: host.to_owned(), reason };
        let authority = http::uri::Authority::try_from(field.as_bytes()).map_err(|error| bad(format!("host field: {error}")))?;
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.authority = Some(authority);
        head.uri = Uri::from_parts(parts).map_err(|error| bad(error.to_string()))?;
    }
    head.version = Version::HTTP_2;
    Ok(())
}

fn without_default_port(uri: &Uri, authority: &str) -> String {
    let default = if uri.scheme_str() == Some("https") { ":443" } else { ":80" };
    let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
    authority.strip_suffix(default).unwrap_or(authority).to_owned()
}

/// Takes the head in, and makes the body one of ours.
async fn accept(
    pools: &Arc<Pools>,
    host: &Arc<str>,
    lease: Lease,
    method: &Method,
    response: Response<Incoming>,
) -> Result<Response<Body>, UpstreamError> {
    let (mut head, incoming) = response.into_parts();
    if head.status.is_informational() {
        let reason = format!("switched protocols without being asked ({})", head.status.as_u16());
        return Err(UpstreamError::Protocol { host: host.to_string(), reason });
    }
    let mut lease = lease;
    if head.headers.remove(header::TRANSFER_ENCODING).is_some() && head.headers.remove(header::CONTENT_LENGTH).is_some() {
        // Two lengths: the chunks count, and what follows on this connection is not trusted (RFC 9112, section 6.3).
        lease.condemn();
    }
    if *method == Method::HEAD || incoming.is_end_stream() {
        lease.finish();
        return Ok(Response::from_parts(head, Body::empty()));
    }
    let length = incoming.size_hint().exact();
    let mut answer =
        Answer { incoming, lease: Some(lease), first: None, idle: None, timeout: pools.config().body_idle_timeout, ended: false };
    if length.is_some_and(|length| length <= limits::WHOLE_BYTES_MAX) {
        // A short body often came together with its head.
        let first = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut answer).poll_frame(cx))).await;
        if let Poll::Ready(Some(frame)) = first {
            match frame.map(Frame::into_data) {
                Ok(Ok(bytes)) if answer.ended => return Ok(Response::from_parts(head, Body::full(bytes))),
                Ok(Ok(bytes)) => answer.first = Some(Ok(Frame::data(bytes))),
                Ok(Err(other)) => answer.first = Some(Ok(other)),
                Err(error) => answer.first = Some(Err(error)),
            }
        }
    }
    Ok(Response::from_parts(head, Body::stream(answer)))
}

/// When the request's body last moved, and whether it failed.
#[derive(Debug)]
struct Progress {
    last: Mutex<Instant>,
    failed: Mutex<Option<BodyError>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { last: Mutex::new(Instant::now()), failed: Mutex::default() }
    }
}

/// A request's body on its way out.
pub(super) struct Outgoing {
    body: Body,
    progress: Arc<Progress>,
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        *self.progress.last.lock() = Instant::now();
        if let Some(Err(error)) = &frame {
            *self.progress.failed.lock() = Some(error.clone());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body on its way in. Read to its end it gives the connection back; dropped before, it closes it.
struct Answer {
    incoming: Incoming,
    lease: Option<Lease>,
    first: Option<Result<Frame<Bytes>, BodyError>>,
    idle: Option<Pin<Box<Sleep>>>,
    timeout: Duration,
    ended: bool,
}

impl Answer {
    fn end(&mut self) {
        self.ended = true;
        self.idle = None;
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }

    fn fail(&mut self) {
        self.ended = true;
        self.idle = None;
        self.lease = None;
    }

    /// Nothing has come: for how long is bounded.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let timeout = self.timeout;
        let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(idle.as_mut().poll(cx));
        self.fail();
        Poll::Ready(Some(Err(BodyError::Stalled { ms: timeout.as_millis() as u64 })))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(first));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        for _ in 0..limits::EMPTY_FRAMES_MAX {
            match Pin::new(&mut this.incoming).poll_frame(cx) {
                // HTTP/2 has frames without bytes: no progress, and nothing for the consumer.
                Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                Poll::Ready(Some(Ok(frame))) => {
                    this.idle = None;
                    // A consumer that knows the length may never ask again.
                    if this.incoming.is_end_stream() {
                        this.end();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(error))) => {
                    this.fail();
                    let reason = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
                    return Poll::Ready(Some(Err(BodyError::Aborted(reason))));
                }
                Poll::Ready(None) => {
                    this.end();
                    return Poll::Ready(None);
                }
                Poll::Pending => return this.poll_idle(cx),
            }
        }
        cx.waker().wake_by_ref();
        this.poll_idle(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.ended
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.size_hint();
        let here = match &self.first {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
            _ => 0,
        };
        match rest.exact().and_then(|rest| rest.checked_add(here)) {
            Some(exact) => SizeHint::with_exact(exact),
            None => SizeHint::default(),
        }
    }
}
