//! A body that a worker makes, as its consumer sees it: pulled, with credit for the worker as it is consumed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};

use super::link::{Link, State, index};
use crate::protocol::{BodyKind, Part, ResponseHead, StreamId, ToRunner, encode};
use crate::{Body, BodyError};

/// The response's body of an invocation (part 0), or a subrequest's request body. Dropping the former before its end cancels the
/// invocation; dropping the latter lets the worker write into the void.
pub(super) struct Download {
    link: Arc<Link>,
    stream: StreamId,
    part: Part,
    /// What it must be long, where that is known, and how much of it has been given out.
    len: Option<u64>,
    given: u64,
    ended: bool,
}

impl Download {
    fn new(link: Arc<Link>, stream: StreamId, part: Part, len: Option<u64>) -> Self {
        Self { link, stream, part, len, given: 0, ended: false }
    }
}

/// The body that a message of the runner announces.
pub(super) fn body(link: &Arc<Link>, stream: StreamId, part: Part, kind: BodyKind) -> Body {
    match kind {
        BodyKind::Empty => Body::empty(),
        BodyKind::Whole(bytes) => Body::full(bytes),
        BodyKind::Stream(len) => Body::stream(Download::new(link.clone(), stream, part, len)),
    }
}

/// The response that a message of the runner announces.
pub(super) fn response(link: &Arc<Link>, stream: StreamId, part: Part, head: ResponseHead, kind: BodyKind) -> Response<Body> {
    let mut response = Response::new(body(link, stream, part, kind));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let (stream, part) = (self.stream, self.part);
        let link = self.link.clone();
        let mut guard = link.state.lock();
        let State { streams, outbox, .. } = &mut *guard;
        let entry = streams.get_mut(index(stream)).filter(|entry| entry.id == stream);
        let Some(entry) = entry else {
            self.ended = true;
            return Poll::Ready(Some(Err(BodyError::Aborted("the invocation has ended".to_owned()))));
        };
        let done = entry.done;
        let Some(inbound) = entry.inbound(part) else {
            self.ended = true;
            return Poll::Ready(Some(Err(BodyError::Aborted("the subrequest has ended".to_owned()))));
        };
        if let Some(chunk) = inbound.take() {
            if !done && let Some(bytes) = inbound.grant() {
                // Cannot fail: it has no field with a bound.
                let _ = encode(outbox, &ToRunner::Credit { stream, part, bytes });
            }
            entry.progress(Instant::now());
            self.given += chunk.len() as u64;
            link.flush(guard);
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match inbound.end.take() {
            Some(end) => {
                // Left there for `Drop`, and for whoever asks again.
                inbound.end = Some(Ok(()));
                self.ended = end.is_ok();
                Poll::Ready(end.err().map(Err))
            }
            None => {
                inbound.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.len.map_or_else(SizeHint::default, |len| SizeHint::with_exact(len.saturating_sub(self.given)))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.part == 0 {
            // A consumer that knows the length stops at it, and never asks for the end.
            let complete = self.ended || self.len == Some(self.given) || self.link.is_drained(self.stream);
            self.link.abandon(self.stream, complete, Instant::now());
        } else {
            self.link.ignore(self.stream, self.part);
        }
    }
}

impl Link {
    /// All of a response's body has been consumed, though its end was not asked for.
    fn is_drained(&self, stream: StreamId) -> bool {
        let mut state = self.state.lock();
        state.entry(stream).is_none_or(|entry| entry.inbound.is_drained())
    }

    /// A subrequest's body has no consumer any more: the worker may write the rest into the void.
    fn ignore(&self, stream: StreamId, part: Part) {
        let mut guard = self.state.lock();
        let State { streams, outbox, .. } = &mut *guard;
        let entry = streams.get_mut(index(stream)).filter(|entry| entry.id == stream && !entry.done);
        if let Some(inbound) = entry.and_then(|entry| entry.inbound(part)) {
            inbound.unwanted = true;
            while inbound.take().is_some() {}
            if let Some(bytes) = inbound.grant() {
                // Cannot fail: it has no field with a bound.
                let _ = encode(outbox, &ToRunner::Credit { stream, part, bytes });
            }
        }
        self.flush(guard);
    }
}
