//! A body on its way to a worker: pulled from its maker as the worker's credit allows.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use tokio::time::Sleep;

use super::link::{Link, Sent};
use crate::protocol::{CHUNK_BYTES_MAX, INITIAL_CREDIT, Part, StreamId};
use crate::{Body, BodyError};

/// The request's body of an invocation (part 0), or a subrequest's response body.
pub(super) struct Upload {
    part: Part,
    body: Body,
    pending: Bytes,
    /// How the body ended, once it has. Kept for who may need it again elsewhere.
    end: Option<Result<(), BodyError>>,
    /// All of it was sent, or nobody wants the rest.
    finished: bool,
    total: u64,
    bytes_max: u64,
    idle: Duration,
    stall: Option<Pin<Box<Sleep>>>,
    /// What was sent, as long as it is within the first credit: a handler that was not started needs it again elsewhere.
    kept: Option<BytesMut>,
}

/// A body before it is sent.
pub(super) enum Gathered {
    /// All of it is here, and small enough to travel with its head.
    Whole(Bytes),
    /// The rest comes later.
    Stream(Box<Upload>, Option<u64>),
}

impl Upload {
    pub(super) fn new(part: Part, body: Body, bytes_max: u64, idle: Duration) -> Self {
        Self {
            part,
            body,
            pending: Bytes::new(),
            end: None,
            finished: false,
            total: 0,
            bytes_max,
            idle,
            stall: None,
            kept: (part == 0).then(BytesMut::new),
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Takes what is here already, without waiting.
    fn gather(mut self, cx: &mut Context<'_>) -> Gathered {
        if let Some(whole) = self.body.as_whole().filter(|whole| whole.len() <= CHUNK_BYTES_MAX) {
            return Gathered::Whole(whole);
        }
        let len = self.body.size_hint().exact();
        if len.is_none_or(|len| len > CHUNK_BYTES_MAX as u64) {
            return Gathered::Stream(Box::new(self), len);
        }
        let mut all = BytesMut::new();
        while let Poll::Ready(end) = self.poll_body(cx) {
            all.extend_from_slice(&std::mem::take(&mut self.pending));
            if let Some(end) = end {
                if end.is_ok() && all.len() <= CHUNK_BYTES_MAX {
                    return Gathered::Whole(all.freeze());
                }
                self.end = Some(end);
                break;
            }
        }
        self.pending = all.freeze();
        Gathered::Stream(Box::new(self), len)
    }

    /// [`Self::gather`], for who has no context at hand.
    pub(super) async fn gathered(self) -> Gathered {
        let mut upload = Some(self);
        poll_fn(|cx| upload.take().map_or(Poll::Pending, |upload| Poll::Ready(upload.gather(cx)))).await
    }

    /// The next bytes into `pending`, or the body's end.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), BodyError>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else { return Poll::Ready(Some(Ok(()))) };
        let data = match frame.map(http_body::Frame::into_data) {
            Err(error) => return Poll::Ready(Some(Err(error))),
            // Trailers have no place in a `Request`.
            Ok(Err(_)) => return Poll::Ready(None),
            Ok(Ok(data)) => data,
        };
        self.total += data.len() as u64;
        if self.total > self.bytes_max {
            return Poll::Ready(Some(Err(BodyError::TooLarge { bytes_max: self.bytes_max })));
        }
        self.pending = data;
        Poll::Ready(None)
    }

    /// Goes on as far as it can. Ready when all of it is sent, or nobody wants more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, link: &Link, stream: StreamId) -> Poll<()> {
        while !self.finished {
            if !self.pending.is_empty() {
                match link.send_body(stream, self.part, &self.pending, cx, Instant::now()) {
                    Sent::Some(len) => self.sent(len),
                    Sent::Blocked => return Poll::Pending,
                    Sent::Closed => self.finished = true,
                }
            } else if let Some(end) = &self.end {
                link.end_body(stream, self.part, end.clone().err());
                self.finished = true;
            } else {
                match self.poll_body(cx) {
                    Poll::Ready(end) => {
                        self.end = end;
                        self.stall = None;
                    }
                    Poll::Pending => {
                        if link.poll_unwanted(stream, self.part, cx).is_ready() {
                            self.finished = true;
                        } else {
                            ready!(self.poll_stall(cx));
                        }
                    }
                }
            }
        }
        Poll::Ready(())
    }

    fn sent(&mut self, len: usize) {
        let sent = self.pending.split_to(len);
        match &mut self.kept {
            Some(kept) if kept.len() + sent.len() <= INITIAL_CREDIT as usize => kept.extend_from_slice(&sent),
            kept => *kept = None,
        }
    }

    /// Ready when the body's maker has been silent for too long.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.idle;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        ready!(stall.as_mut().poll(cx));
        let ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        self.end = Some(Err(BodyError::Stalled { ms }));
        self.stall = None;
        Poll::Ready(())
    }

    /// Begins again for another runner. `false` where that cannot be done any more.
    pub(super) fn rewind(&mut self) -> bool {
        let Some(kept) = self.kept.take() else { return false };
        self.finished = false;
        let mut again = kept;
        again.extend_from_slice(&self.pending);
        self.pending = again.freeze();
        self.kept = Some(BytesMut::new());
        true
    }
}

/// Sends the rest, after the response has begun.
pub(super) async fn run(mut upload: Box<Upload>, link: std::sync::Arc<Link>, stream: StreamId) {
    poll_fn(|cx| upload.poll(cx, &link, stream)).await;
}
