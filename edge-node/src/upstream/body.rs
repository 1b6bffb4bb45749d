//! The two bodies of an exchange: the request's on its way out, and the response's on its way in.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use selvedge_runtime::{Body, BodyError};
use tokio::time::{Instant, Sleep};

use super::http2;
use super::limits;
use super::lost::told;
use super::pool::Lease;
use crate::cache::tags::Tags;
use crate::request::strip_hop;

/// When the request's body last moved, whether it is what is waited for, and whether it failed.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) last: Mutex<Instant>,
    pub(super) awaited: Mutex<bool>,
    pub(super) failed: Mutex<Option<BodyError>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { last: Mutex::new(Instant::now()), awaited: Mutex::default(), failed: Mutex::default() }
    }
}

/// A request's body on its way out, without its trailers: a server may take them for fields (RFC 9110, section 6.5.1), and nobody has looked at what they
/// say of who asks.
pub(crate) struct Outgoing {
    pub(super) body: Body,
    pub(super) progress: Arc<Progress>,
}

impl Outgoing {
    /// No body.
    pub(crate) fn none() -> Self {
        Self { body: Body::empty(), progress: Arc::default() }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        *self.progress.awaited.lock() = frame.is_pending();
        let frame = ready!(frame);
        *self.progress.last.lock() = Instant::now();
        // Nothing comes after trailers.
        let frame = frame.filter(|frame| !frame.as_ref().is_ok_and(Frame::is_trailers));
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

/// A short body of a request that takes long: what has come of it, and what is still to come.
pub(super) struct Slow {
    pub(super) came: Option<Bytes>,
    pub(super) rest: Body,
    /// Bytes of both that have not gone on.
    pub(super) left: u64,
}

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match self.came.take() {
            Some(came) => Some(Ok(Frame::data(came))),
            None => ready!(Pin::new(&mut self.rest).poll_frame(cx)),
        };
        if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
            self.left = self.left.saturating_sub(data.map_or(0, |data| data.len() as u64));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.came.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A response's body as it comes from its connection.
pub(super) enum Incoming {
    /// All that is on it.
    Http1(hyper::body::Incoming),
    /// What is on one of its streams.
    Http2(http2::Incoming),
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        match &mut *self {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(|error| told(&error)),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(|error| told(&error)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// Takes off trailers what a head of an answer is not left with either: what is said of one connection, how long the body is, and tags, which are for nodes.
fn clean(trailers: &mut HeaderMap) {
    strip_hop(trailers);
    trailers.remove(CONTENT_LENGTH);
    Tags::strip(trailers);
}

/// A response's body on its way in. Read to its end it gives the connection back; dropped before, it closes it.
pub(super) struct Answer {
    incoming: Incoming,
    lease: Option<Lease>,
    first: Option<Result<Frame<Bytes>, BodyError>>,
    idle: Option<Pin<Box<Sleep>>>,
    timeout: Duration,
    ended: bool,
}

impl Answer {
    /// The body of a response on this connection, not longer without a byte than `timeout`.
    pub(super) fn new(incoming: Incoming, lease: Lease, timeout: Duration) -> Self {
        Self { incoming, lease: Some(lease), first: None, idle: None, timeout, ended: false }
    }

    /// All of it, where it is short and here already; else the same body as a stream.
    pub(super) async fn into_body(mut self) -> Body {
        if self.incoming.size_hint().exact().is_none_or(|length| length > limits::WHOLE_BYTES_MAX) {
            return Body::stream(self);
        }
        let first = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut self).poll_frame(cx))).await;
        match first {
            Poll::Ready(Some(Ok(frame))) if self.ended && frame.is_data() => Body::full(frame.into_data().unwrap_or_default()),
            Poll::Ready(first) => {
                self.first = first;
                Body::stream(self)
            }
            Poll::Pending => Body::stream(self),
        }
    }

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
                Poll::Ready(Some(Ok(mut frame))) => {
                    if let Some(trailers) = frame.trailers_mut() {
                        clean(trailers);
                    }
                    this.idle = None;
                    // A consumer that knows the length may never ask again.
                    if this.incoming.is_end_stream() {
                        this.end();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(reason))) => {
                    this.fail();
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

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[tokio::test]
    async fn what_a_client_says_in_trailers_does_not_go_on() {
        let trailers: HeaderMap = [(http::header::FORWARDED, "for=6.6.6.6".parse().expect("a value"))].into_iter().collect();
        let frames = [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
        let body = Body::stream(StreamBody::new(futures::stream::iter(frames)));
        let sent = Outgoing { body, progress: Arc::default() }.collect().await.expect("a body");
        assert!(sent.trailers().is_none());
        assert_eq!(sent.to_bytes(), "body");
    }
}
