//! The bytes of one connection: what was read and not used yet, what waits to be written, and the times that a client may take for both.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::output::Output;
use crate::limits::{H1_READ_BYTES, SEND_STALL, UNREAD_BODY_WAIT};
use crate::listen::linger::Closing;
use crate::tasks::Tasks;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The last answer said that it would.
    #[error("as announced")]
    Announced,
    /// A response was cut short; its framing shows it.
    #[error("a response was cut short")]
    Cut,
    /// A response was cut short whose end is that of the connection.
    #[error("a response without a length was cut short")]
    CutWithoutEnd,
    /// The client closed it, perhaps in the middle of a request.
    #[error("the client closed it")]
    ByClient,
    /// Nothing came for longer than is allowed.
    #[error("idle")]
    Idle,
    /// A head did not come to its end in time.
    #[error("the head of a request took too long")]
    SlowHead,
    /// The client takes nothing.
    #[error("the client takes nothing")]
    Stalled,
    /// The node drains.
    #[error("the node drains")]
    Drained,
    /// The body of a request that nobody wanted was too long, too slow or malformed.
    #[error("the rest of a request's body is not worth its bytes")]
    UnreadBody,
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A stream whose client must be shown that it did not get all of it.
pub(in crate::listen) trait Abort {
    /// Makes closing a reset.
    fn abort(&self);
}

/// A connection's bytes.
pub(super) struct Wire<S> {
    stream: S,
    pub(super) input: BytesMut,
    pub(super) output: Output,
    /// Armed once for many requests: whoever waits looks at its own time when this comes, and arms it again.
    timer: Pin<Box<Sleep>>,
    tasks: Tasks,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    drained: bool,
    /// Whom the timer and the drain wake. As long as that is who asks, and neither has come, they need not be asked: that would take locks.
    timer_wakes: Option<Waker>,
    drain_wakes: Option<Waker>,
}

fn wakes(waker: &Option<Waker>, cx: &Context<'_>) -> bool {
    waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// A connection that has just been opened.
    pub(super) fn new(stream: S, tasks: &Tasks) -> Self {
        // A token of its own: see `Tasks::spawn`.
        let drain = Box::pin(tasks.draining().child_token().cancelled_owned());
        let timer = Box::pin(tokio::time::sleep(SEND_STALL));
        let (input, output, tasks) = (BytesMut::new(), Output::default(), tasks.clone());
        Self { stream, input, output, timer, tasks, drain, drained: false, timer_wakes: None, drain_wakes: None }
    }

    /// The node ends its connections.
    pub(super) fn is_draining(&self) -> bool {
        self.drained || self.tasks.is_draining()
    }

    /// Notices when the node begins to drain. To be asked last before a wait: it leaves the waker.
    pub(super) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.drained {
            return Poll::Ready(());
        }
        if wakes(&self.drain_wakes, cx) && !self.tasks.is_draining() {
            return Poll::Pending;
        }
        self.drain_wakes = Some(cx.waker().clone());
        ready!(self.drain.as_mut().poll(cx));
        self.drained = true;
        Poll::Ready(())
    }

    /// Ready when `since` is longer ago than `bound`.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>, since: Instant, bound: Duration) -> Poll<()> {
        let due = since + bound;
        // It may stand at a later time for a longer wait of before; at an earlier one it costs a look.
        if self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        } else if wakes(&self.timer_wakes, cx) && !self.timer.is_elapsed() {
            return Poll::Pending;
        }
        self.timer_wakes = Some(cx.waker().clone());
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// Reads what has come, about `bytes` at most. An end of the stream is an error.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<Result<(), Ended>> {
        if self.input.capacity() - self.input.len() < bytes / 2 {
            self.input.reserve(bytes);
        }
        match ready!(pin!(self.stream.read_buf(&mut self.input)).poll(cx)) {
            Ok(0) => Poll::Ready(Err(Ended::ByClient)),
            Ok(_) => Poll::Ready(Ok(())),
            // A client that leaves without saying so: a reset, or TLS without its goodbye.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => {
                Poll::Ready(Err(Ended::ByClient))
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Writes what waits, as far as the client takes it.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        while !self.output.is_empty() {
            ready!(self.output.poll_write(&mut self.stream, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes all that waits. A client that takes nothing for [`SEND_STALL`] loses its connection.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        let mut blocked: Option<Instant> = None;
        poll_fn(|cx| {
            while !self.output.is_empty() {
                if self.output.poll_write(&mut self.stream, cx)?.is_pending() {
                    let since = *blocked.get_or_insert_with(Instant::now);
                    return self.poll_late(cx, since, SEND_STALL).map(|()| Err(Ended::Stalled));
                }
                blocked = None;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Lets go of a buffer that one large body or head needed. To be called while nothing is read.
    pub(super) fn shrink(&mut self) {
        if self.input.is_empty() && self.input.capacity() > H1_READ_BYTES * 2 {
            self.input = BytesMut::new();
        }
    }

    /// Closes it so that the client gets what was sent.
    pub(super) async fn close(mut self) {
        self.input = BytesMut::new();
        let mut closing = Closing::default();
        // A client that takes nothing more holds it no longer than one that still sends.
        let _ = tokio::time::timeout(UNREAD_BODY_WAIT, poll_fn(|cx| closing.poll(&mut self.stream, cx))).await;
    }

    /// Closes it so that the client sees that it did not get all.
    pub(super) fn abort(self)
    where
        S: Abort,
    {
        self.stream.abort();
    }
}
