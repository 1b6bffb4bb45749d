//! One exchange with an upstream: the request out, the head in, the body as it is asked for; and once more on another connection where
//! that cannot do harm.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, Request, Response, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use selvedge_runtime::{Body, BodyError};
use tokio::time::{Instant, timeout_at};

use super::body::{Answer, Incoming, Outgoing, Progress, Slow};
use super::connection::Connection;
use super::interim::OnInterim;
use super::lost::Lost;
use super::pool::{self, Lease, Pool, Pools, Want};
use super::slots::Slot;
use super::{UpstreamError, head as heads, http2, limits};
use crate::guarded::guarded;

/// A request that got no head; with itself, where sending it again cannot do harm.
pub(super) struct Unanswered {
    pub(super) error: UpstreamError,
    pub(super) request: Option<Request<Body>>,
}

/// Sends the request to the server of the pool, and once or twice more where a connection was lost on the way.
pub(super) async fn send(pools: &Arc<Pools>, pool: &Arc<Pool>, request: Request<Body>) -> Result<Response<Body>, Unanswered> {
    if request.method() == Method::CONNECT {
        let error = UpstreamError::BadRequest { reason: "CONNECT makes a tunnel, not a request" };
        return Err(Unanswered { error, request: None });
    }
    // Before it takes a place: the client may be slow.
    let request = gathered(pools, pool, request).await.map_err(|error| Unanswered { error, request: None })?;
    match pool.slot().await {
        Ok(slot) => send_in(pools, pool, slot, request).await,
        Err(error) => Err(Unanswered { error, request: Some(request) }),
    }
}

/// The same with a place that is held already.
pub(super) async fn send_in(
    pools: &Arc<Pools>,
    pool: &Arc<Pool>,
    mut slot: Slot,
    mut request: Request<Body>,
) -> Result<Response<Body>, Unanswered> {
    for attempt in 1..=limits::ATTEMPTS_MAX {
        let want = if attempt == limits::ATTEMPTS_MAX { Want::New } else { Want::Any };
        let lease = match pool::lease(pools, pool, slot, want).await {
            Ok(lease) => lease,
            Err(error) => return Err(Unanswered { error, request: Some(request) }),
        };
        match exchange(pool.host(), lease, request).await {
            Ok(response) => return Ok(response),
            Err(Failed { again: Some((unsent, lease)), error }) if attempt < limits::ATTEMPTS_MAX => {
                tracing::debug!(host = &**pool.host(), %error, "another connection for the same request");
                request = unsent;
                slot = lease.into_slot();
            }
            Err(Failed { error, again }) => return Err(Unanswered { error, request: again.map(|(request, _)| request) }),
        }
    }
    Err(Unanswered { error: terminated(pool.host(), "every connection was lost"), request: Some(request) })
}

fn terminated(host: &str, reason: &str) -> UpstreamError {
    UpstreamError::Terminated { host: host.to_owned(), reason: reason.to_owned() }
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

async fn exchange(host: &Arc<str>, mut lease: Lease, request: Request<Body>) -> Result<Response<Body>, Failed> {
    // An open connection may be one that the server has just closed.
    let copy = if lease.reused { replayable(&request) } else { None };
    let progress = Arc::new(Progress::default());
    let method = request.method().clone();
    let (mut head, body) = request.into_parts();
    let (original_uri, original_host) = (head.uri.clone(), head.headers.get(header::HOST).cloned());
    let manner = lease.manner();
    let (head_timeout, stall) = (manner.head_timeout, manner.head_timeout.max(manner.body_idle_timeout));
    let answer = match lease.connection() {
        Some(Connection::Http1(connection)) => {
            heads::for_http1(&mut head, &body, host)?;
            let mut outgoing = Request::from_parts(head, Outgoing { body, progress: progress.clone() });
            if let Some(interim) = outgoing.extensions().get::<OnInterim>().cloned() {
                hyper::ext::on_informational(&mut outgoing, move |response| interim.tell(response.status(), response.headers()));
            }
            let answer = within(head_timeout, &progress, connection.sender.try_send_request(outgoing)).await;
            answer.map(|answer| match answer {
                Ok(response) => Ok(response.map(Incoming::Http1)),
                Err(mut failed) => Err(Box::new((failed.take_message(), Lost::Http1(failed.into_error())))),
            })
        }
        Some(Connection::Http2(connection)) => {
            heads::for_http2(&mut head, &body, host)?;
            let outgoing = Request::from_parts(head, Outgoing { body, progress: progress.clone() });
            let answer = within(head_timeout, &progress, http2::ask(connection, outgoing, stall)).await;
            answer.map(|answer| match answer {
                Ok(response) => Ok(response.map(Incoming::Http2)),
                Err(failed) => Err(Box::new((failed.unsent, Lost::Http2(failed.error)))),
            })
        }
        None => return Err(terminated(host, "connection lost").into()),
    };
    match answer {
        Some(Ok(response)) => accept(host, lease, &method, response).await.map_err(Failed::from),
        // The server waits as this node does: it is not what is late.
        None if *progress.awaited.lock() => Err(UpstreamError::RequestBody { host: host.to_string(), error: stalled(head_timeout) }.into()),
        None => {
            lease.suspect();
            Err(UpstreamError::HeadTimeout { host: host.to_string(), ms: head_timeout.as_millis() as u64 }.into())
        }
        Some(Err(failed)) => {
            let (unsent, lost) = *failed;
            let unsent = unsent.map(|unsent| {
                let (mut head, outgoing) = unsent.into_parts();
                head.uri = original_uri;
                if let Some(host) = original_host {
                    head.headers.insert(header::HOST, host);
                }
                Request::from_parts(head, outgoing.body)
            });
            let again = unsent.or_else(|| copy.filter(|_| lost.is_before_answer(&lease)));
            if again.is_some() {
                lease.retire();
            }
            Err(Failed { error: lost.describe(host, &progress), again: again.map(|request| (request, lease)) })
        }
    }
}

/// The methods that may be sent twice (RFC 9110, section 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

/// The request with its body in one piece, where it is short and sending it twice would do no harm: then it can be. Waits for a body that is still
/// coming in, all in all as long as for an answer; what moves but takes longer goes out as a long one does, and so does what finds no room.
async fn gathered(pools: &Pools, pool: &Pool, request: Request<Body>) -> Result<Request<Body>, UpstreamError> {
    let short = request.body().size_hint().exact().filter(|length| *length <= limits::REPLAY_BYTES_MAX);
    let (Some(length), true, None) = (short, is_idempotent(request.method()), request.body().as_whole()) else { return Ok(request) };
    let Ok(room) = pools.gathered.clone().try_acquire_many_owned(length as u32) else { return Ok(request) };
    let pause = pool.manner().head_timeout;
    let deadline = Instant::now() + pause;
    let failed = |error| UpstreamError::RequestBody { host: pool.host().to_string(), error };
    let (head, mut rest) = request.into_parts();
    let mut came = BytesMut::new();
    let body = loop {
        match timeout_at(deadline, rest.frame()).await {
            Ok(Some(frame)) => came.extend_from_slice(&frame.map_err(failed)?.into_data().unwrap_or_default()),
            Ok(None) => break Body::full(guarded(came, room)),
            Err(_) if came.is_empty() => return Err(failed(stalled(pause))),
            Err(_) => break Body::stream(Slow { came: Some(guarded(came, room)), rest, left: length }),
        }
        if came.len() as u64 > length {
            return Err(failed(BodyError::TooLarge { bytes_max: length }));
        }
    };
    Ok(Request::from_parts(head, body))
}

fn stalled(pause: Duration) -> BodyError {
    BodyError::Stalled { ms: pause.as_millis() as u64 }
}

/// A copy to send again, where sending twice does what sending once does and the body is still here.
pub(super) fn replayable(request: &Request<Body>) -> Option<Request<Body>> {
    if !is_idempotent(request.method()) {
        return None;
    }
    let mut copy = Request::new(Body::full(request.body().as_whole()?));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// Waits for the head. The time runs from the last progress of the request's body.
async fn within<T>(head_timeout: Duration, progress: &Progress, answer: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(answer);
    loop {
        let deadline = *progress.last.lock() + head_timeout;
        match timeout_at(deadline, &mut answer).await {
            Ok(answer) => return Some(answer),
            Err(_) if *progress.last.lock() + head_timeout > Instant::now() => {}
            Err(_) => return None,
        }
    }
}

/// Takes the head in, and makes the body one of ours.
async fn accept(host: &Arc<str>, lease: Lease, method: &Method, response: Response<Incoming>) -> Result<Response<Body>, UpstreamError> {
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
    let body_idle_timeout = lease.manner().body_idle_timeout;
    let answer = Answer::new(incoming, lease, body_idle_timeout);
    Ok(Response::from_parts(head, answer.into_body().await))
}
