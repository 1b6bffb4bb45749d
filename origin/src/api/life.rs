//! One connection's life: what runs on it, whether its client is known and takes what it is sent, and so when it has to end.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::feed::Permit;
use super::reply::Body;
use super::room::Place;
use super::strict::Seen;
use crate::limits::{CONNECTION_IDLE_MAX, HEAD_TIMEOUT, REMOVED_FEED_MAX, SEND_STALL_MAX};

/// How long a connection waits for its client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    /// For a request of somebody known.
    pub(super) head: Duration,
    /// For the next request.
    pub(super) idle: Duration,
    /// Until the client takes a byte.
    pub(super) stall: Duration,
    /// Until the feed of a node that was removed has ended.
    pub(super) removed: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self { head: HEAD_TIMEOUT, idle: CONNECTION_IDLE_MAX, stall: SEND_STALL_MAX, removed: REMOVED_FEED_MAX }
    }
}

/// How a connection ends that has no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a goodbye: a request that is under way is still answered.
    Goodbye,
    /// At once.
    Cut,
}

/// Shared by a connection's driver, its bytes and its requests.
#[derive(Debug)]
pub(super) struct Life {
    waits: Waits,
    opened: Instant,
    place: Mutex<Place>,
    running: AtomicUsize,
    /// Milliseconds since `opened` at which a request last ended.
    ended_ms: AtomicU64,
    /// What the feeds that were opened may go on by: one that is not read does not look itself, and what it has said already may never leave.
    permits: Mutex<Vec<Arc<Permit>>>,
    /// Milliseconds since `opened` (and one) at which the socket stopped to take bytes; 0 while it takes them.
    blocked_ms: AtomicU64,
}

impl Life {
    pub(super) fn new(place: Place, waits: Waits) -> Arc<Self> {
        Arc::new(Self {
            waits,
            opened: Instant::now(),
            place: Mutex::new(place),
            running: AtomicUsize::new(0),
            ended_ms: AtomicU64::new(0),
            permits: Mutex::default(),
            blocked_ms: AtomicU64::new(0),
        })
    }

    /// A request was admitted: its caller is known.
    pub(super) fn admitted(&self) {
        self.place.lock().admitted();
    }

    /// A feed is open. (A connection has [`crate::limits::STREAMS_PER_CONNECTION_MAX`] at most.)
    pub(super) fn follows(&self, permit: &Arc<Permit>) {
        let mut permits = self.permits.lock();
        permits.retain(|permit| Arc::strong_count(permit) > 1);
        permits.push(permit.clone());
    }

    fn is_removed(&self) -> bool {
        self.permits.lock().iter().any(|permit| permit.has_ended_for(self.waits.removed))
    }

    /// How often to ask for [`Life::end`].
    pub(super) fn look_every(&self) -> Duration {
        self.waits.head.min(self.waits.idle).min(self.waits.stall).min(self.waits.removed) / 4
    }

    /// Whether the connection has to end.
    pub(super) fn end(&self) -> Option<End> {
        let now_ms = self.now_ms();
        let is_over = |since_ms: u64, bound: Duration| u128::from(now_ms.saturating_sub(since_ms)) >= bound.as_millis();
        let blocked_ms = self.blocked_ms.load(Relaxed);
        let is_stranger = self.place.lock().is_stranger() && is_over(0, self.waits.head);
        if is_stranger || self.is_removed() || (blocked_ms != 0 && is_over(blocked_ms, self.waits.stall)) {
            return Some(End::Cut);
        }
        let ended_ms = self.ended_ms.load(Relaxed);
        if self.running.load(Relaxed) > 0 || !is_over(ended_ms, self.waits.idle) {
            return None;
        }
        // Who says nothing to a goodbye either is not waited for.
        Some(if is_over(ended_ms, self.waits.idle + self.waits.head) { End::Cut } else { End::Goodbye })
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Relaxed);
        Running(self.clone())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wrote<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.blocked_ms.store(0, Relaxed);
        } else if self.blocked_ms.load(Relaxed) == 0 {
            self.blocked_ms.store(self.now_ms() + 1, Relaxed);
        }
        polled
    }
}

/// A request that runs until its answer's body has ended or was dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Running(Arc<Life>);

impl Running {
    /// The body of its answer.
    pub(super) fn with(self, body: Body) -> RunningBody {
        RunningBody { body, _running: self }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.ended_ms.store(self.0.now_ms(), Relaxed);
        self.0.running.fetch_sub(1, Relaxed);
    }
}

/// A body while which its request runs.
pub(super) struct RunningBody {
    body: Body,
    _running: Running,
}

impl hyper::body::Body for RunningBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that notes whether the client takes our bytes.
pub(super) struct Watched<S> {
    stream: S,
    life: Arc<Life>,
    seen: Seen,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, life: Arc<Life>) -> Self {
        Self { stream, life, seen: Seen::default() }
    }

    /// Gives these bytes once more before those that are still to come.
    pub(super) fn again(&mut self, seen: BytesMut) {
        self.seen = Seen::again(seen);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.seen.give(buffer) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.life.wrote(polled)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.life.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.life.wrote(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
