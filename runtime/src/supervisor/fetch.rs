//! A worker's subrequest: made by the host, answered to the runner.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::{Request, Uri};

use super::dispatch::Fetch;
use super::download::Download;
use super::limits::REDIRECTS_MAX;
use super::link::Link;
use super::upload::{Gathered, Upload};
use crate::protocol::{BodyKind, ResponseHead, ToRunner};
use crate::{Body, Fetched, Subrequest};

/// Makes the subrequest and sends its response. Ends early when the worker abandons it or the invocation ends.
pub(super) async fn run(link: Arc<Link>, job: Box<Fetch>) {
    let Fetch { stream, part, head, redirect, body, redirects_max, host, placement } = *job;
    let answer = match request(&link, (stream, part), *head, body) {
        Err(message) => Some(Err(message)),
        Ok(request) => {
            let redirects_max = redirects_max.min(REDIRECTS_MAX);
            let mut fetched = pin!(host.fetch(Subrequest { request, redirect, redirects_max }));
            poll_fn(|cx| match fetched.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer.map_err(|error| error.message))),
                Poll::Pending => link.poll_unwanted(stream, part, cx).map(|()| None),
            })
            .await
        }
    };
    match answer {
        None => {}
        Some(Err(message)) => refuse(&link, stream, part, message),
        Some(Ok(fetched)) => {
            let limits = &placement.version.limits;
            answer_with(&link, stream, part, fetched, limits.body_idle_timeout()).await;
        }
    }
    link.close_part(stream, part);
}

fn request(
    link: &Arc<Link>,
    (stream, part): (crate::protocol::StreamId, crate::protocol::Part),
    head: crate::protocol::RequestHead,
    body: BodyKind,
) -> Result<Request<Body>, String> {
    // `url` is made by the runner's URL parser, but nothing from there is trusted.
    let uri: Uri = head.url.parse().map_err(|_| format!("Invalid URL: {}", head.url))?;
    if uri.scheme().is_none() || uri.authority().is_none() {
        return Err(format!("Invalid URL: {}", head.url));
    }
    let body = match body {
        BodyKind::Empty => Body::empty(),
        BodyKind::Whole(bytes) => Body::full(bytes),
        BodyKind::Stream(len) => Body::stream(Download::new(link.clone(), stream, part, len)),
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = head.headers;
    Ok(request)
}

async fn answer_with(
    link: &Arc<Link>,
    stream: crate::protocol::StreamId,
    part: crate::protocol::Part,
    fetched: Fetched,
    idle: std::time::Duration,
) {
    let Fetched { response, url, redirects } = fetched;
    link.count_redirects(stream, redirects);
    let (parts, body) = response.into_parts();
    let upload = Upload::new(part, body, u64::MAX, idle);
    let mut upload = Some(upload);
    let gathered = poll_fn(|cx| match upload.take() {
        Some(upload) => Poll::Ready(upload.gather(cx)),
        None => Poll::Pending,
    })
    .await;
    let (body, rest) = match gathered {
        Gathered::Whole(bytes) if bytes.is_empty() => (BodyKind::Empty, None),
        Gathered::Whole(bytes) => (BodyKind::Whole(bytes), None),
        Gathered::Stream(upload, len) => (BodyKind::Stream(len), Some(upload)),
    };
    let head = Box::new(ResponseHead { status: parts.status, headers: parts.headers });
    let message = ToRunner::Fetched { stream, part, result: Ok((head, body)), url, redirects };
    if let Err(error) = link.send_for(stream, &message) {
        return refuse(link, stream, part, format!("The response does not fit: {error}."));
    }
    if let Some(mut rest) = rest {
        poll_fn(|cx| rest.poll(cx, link, stream)).await;
    }
}

fn refuse(link: &Link, stream: crate::protocol::StreamId, part: crate::protocol::Part, message: String) {
    let message = ToRunner::Fetched { stream, part, result: Err(message), url: String::new(), redirects: 0 };
    // Cannot fail: a text is cut to its bound.
    let _ = link.send_for(stream, &message);
}

impl Link {
    /// Sends a message about an invocation, unless that has ended.
    fn send_for(&self, stream: crate::protocol::StreamId, message: &ToRunner) -> Result<(), crate::protocol::EncodeError> {
        let alive = self.state.lock().entry(stream).is_some_and(|entry| !entry.done);
        if alive { self.send(message) } else { Ok(()) }
    }

    /// Each redirect that was followed counts as a subrequest.
    fn count_redirects(&self, stream: crate::protocol::StreamId, redirects: u32) {
        if let Some(ticket) = self.state.lock().entry(stream).and_then(|entry| entry.ticket.as_mut()) {
            ticket.subrequests = ticket.subrequests.saturating_add(redirects);
        }
    }

    /// The subrequest is over, but for a body that its consumer still reads.
    fn close_part(&self, stream: crate::protocol::StreamId, part: crate::protocol::Part) {
        let mut state = self.state.lock();
        if let Some(entry) = state.entry(stream) {
            entry.subs.retain(|sub| sub.part != part || sub.inbound.open);
        }
    }
}
