//! A worker's subrequest: made for the host, its response sent to the runner.

use std::future::poll_fn;
use std::sync::Arc;

use http::{HeaderMap, Request, Uri};

use super::call::Refusal;
use super::download;
use super::limits::REDIRECTS_MAX;
use super::link::Link;
use super::placement::Placement;
use super::upload::{Gathered, Upload};
use crate::protocol::{BodyKind, Fields, Part, RequestHead, ResponseHead, StreamId, ToRunner};
use crate::{Body, FetchCache, Fetched, Redirect, Subrequest};

/// The request that a worker wants made, or what is wrong with it.
pub(super) fn subrequest(
    link: &Arc<Link>,
    (stream, part): (StreamId, Part),
    head: RequestHead,
    body: BodyKind,
) -> Result<Request<Body>, String> {
    // `url` is made by the runner's URL parser, but nothing from there is trusted.
    let uri: Uri = head.url.parse().map_err(|_| format!("Invalid URL: {}", head.url))?;
    if uri.scheme().is_none() || uri.authority().is_none() {
        return Err(format!("Invalid URL: {}", head.url));
    }
    let mut request = Request::new(download::body(link, stream, part, body));
    *request.method_mut() = head.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = head.headers;
    Ok(request)
}

/// With what it may follow of redirects: each is a subrequest.
pub(super) fn limited(request: Request<Body>, redirect: Redirect, cache: Option<Box<FetchCache>>, left: u32) -> Subrequest {
    Subrequest { request, redirect, cache, redirects_max: left.min(REDIRECTS_MAX) }
}

/// Sends a response, its body as the worker's credit allows.
pub(super) async fn answer(placement: &Placement, stream: StreamId, part: Part, fetched: Fetched) {
    let (link, idle) = (&placement.link, placement.version.limits.body_idle_timeout());
    let Fetched { response, url, redirects } = fetched;
    link.count_redirects(stream, redirects);
    let (parts, body) = response.into_parts();
    let (body, rest) = match Upload::new(part, body, u64::MAX, idle).gathered().await {
        Gathered::Whole(bytes) if bytes.is_empty() => (BodyKind::Empty, None),
        Gathered::Whole(bytes) => (BodyKind::Whole(bytes), None),
        Gathered::Stream(upload, len) => (BodyKind::Stream(len), Some(upload)),
    };
    let Some(held) = placement.holding.answer(bytes_of(&parts.headers, &body)) else {
        return refuse(link, stream, part, Refusal::TooMuch.to_string()).await;
    };
    let head = Box::new(ResponseHead { status: parts.status, headers: Fields::from(&parts.headers) });
    let message = ToRunner::Fetched { stream, part, result: Ok((head, body)), url, redirects };
    if let Err(error) = link.answer(stream, part, &message).await {
        return refuse(link, stream, part, format!("The response does not fit: {error}.")).await;
    }
    drop(held);
    if let Some(mut rest) = rest {
        poll_fn(|cx| rest.poll(cx, link, stream)).await;
    }
}

/// What a head and the body that travels with it hold.
pub(super) fn bytes_of(headers: &HeaderMap, body: &BodyKind) -> usize {
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    fields + if let BodyKind::Whole(bytes) = body { bytes.len() } else { 0 }
}

/// Sends why there is no answer.
pub(super) async fn refuse(link: &Link, stream: StreamId, part: Part, message: String) {
    let message = ToRunner::Fetched { stream, part, result: Err(message), url: String::new(), redirects: 0 };
    // Cannot fail: a text is cut to its bound.
    let _ = link.answer(stream, part, &message).await;
}

impl Link {
    /// Each redirect that was followed counts as a subrequest.
    fn count_redirects(&self, stream: StreamId, redirects: u32) {
        if let Some(ticket) = self.state.lock().entry(stream).and_then(|entry| entry.ticket.as_mut()) {
            ticket.subrequests = ticket.subrequests.saturating_add(redirects);
        }
    }
}
