//! The body of a request between the connection, which reads it, and whoever answers, who may take it to another task: nothing is read before it is asked for,
//! and no more ahead than a bound.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use selvedge_runtime::{Body, BodyError};

use crate::limits::H1_BODY_AHEAD_BYTES_MAX;

/// The connection's end. Dropped before [`Self::end`], it fails the body.
#[derive(Debug)]
pub(super) struct Intake(Arc<Mutex<Shared>>);

/// The end of whoever answers.
struct ReceivedBody {
    shared: Arc<Mutex<Shared>>,
    /// Bytes that are still to be taken, of a body with a length.
    left: Option<u64>,
}

#[derive(Debug, Default)]
struct Shared {
    pieces: VecDeque<Bytes>,
    /// In `pieces`.
    bytes: usize,
    wanted: bool,
    given_up: bool,
    ended: Option<Result<(), BodyError>>,
    consumer: Option<Waker>,
    connection: Option<Waker>,
}

impl Intake {
    /// Both ends, for a body of this length, where it is known.
    pub(super) fn open(length: Option<u64>) -> (Self, Body) {
        let shared = Arc::<Mutex<Shared>>::default();
        (Self(shared.clone()), Body::stream(ReceivedBody { shared, left: length }))
    }

    /// Ready when there is room for more of a body that somebody wants.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.0.lock();
        if shared.wanted && !shared.given_up && shared.bytes < H1_BODY_AHEAD_BYTES_MAX {
            return Poll::Ready(());
        }
        if !shared.connection.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            shared.connection = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Nobody will take more of it.
    pub(super) fn is_given_up(&self) -> bool {
        self.0.lock().given_up
    }

    /// Hands on a piece.
    pub(super) fn push(&self, piece: Bytes) {
        let mut shared = self.0.lock();
        shared.bytes += piece.len();
        shared.pieces.push_back(piece);
        wake(shared.consumer.take());
    }

    /// All of it has been handed on.
    pub(super) fn end(self) {
        self.finish(Ok(()));
    }

    /// There will be no more of it.
    pub(super) fn fail(self, error: BodyError) {
        self.finish(Err(error));
    }

    fn finish(&self, how: Result<(), BodyError>) {
        let mut shared = self.0.lock();
        shared.ended.get_or_insert(how);
        wake(shared.consumer.take());
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.finish(Err(BodyError::Aborted("the client's connection ended before the request's body".into())));
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl HttpBody for ReceivedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut shared = this.shared.lock();
        if let Some(piece) = shared.pieces.pop_front() {
            shared.bytes -= piece.len();
            // A connection that waits for room is looking again, also where it is on another thread.
            wake(shared.connection.take());
            this.left = this.left.map(|left| left.saturating_sub(piece.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &shared.ended {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error.clone()))),
            None => {
                shared.wanted = true;
                shared.consumer = Some(cx.waker().clone());
                wake(shared.connection.take());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock();
        shared.pieces.is_empty() && matches!(shared.ended, Some(Ok(())))
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for ReceivedBody {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        shared.given_up = true;
        shared.pieces.clear();
        wake(shared.connection.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn room(intake: &Intake) -> bool {
        std::future::poll_fn(|cx| intake.poll_room(cx)).now_or_never().is_some()
    }

    async fn next(body: &mut Body) -> Option<Result<Bytes, BodyError>> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test]
    async fn nothing_is_read_before_it_is_wanted_nor_beyond_the_bound() {
        let (intake, mut body) = Intake::open(Some(3 + H1_BODY_AHEAD_BYTES_MAX as u64));
        assert!(!room(&intake));
        assert!(next(&mut body).now_or_never().is_none());
        assert!(room(&intake));
        intake.push(Bytes::from_static(b"one"));
        assert!(room(&intake));
        intake.push(vec![0; H1_BODY_AHEAD_BYTES_MAX].into());
        assert!(!room(&intake));
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "one");
        assert_eq!(body.size_hint().exact(), Some(H1_BODY_AHEAD_BYTES_MAX as u64));
        assert!(!room(&intake));
        intake.end();
        assert!(!body.is_end_stream());
        next(&mut body).await.unwrap().unwrap();
        assert!(body.is_end_stream() && next(&mut body).await.is_none());
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_fails() {
        let (intake, mut body) = Intake::open(None);
        intake.push(Bytes::from_static(b"one"));
        drop(intake);
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "one");
        assert!(!body.is_end_stream());
        assert!(next(&mut body).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_body_that_nobody_wants_is_given_up() {
        let (intake, mut body) = Intake::open(None);
        assert!(next(&mut body).now_or_never().is_none());
        intake.push(vec![0; H1_BODY_AHEAD_BYTES_MAX].into());
        assert!(!intake.is_given_up());
        drop(body);
        assert!(intake.is_given_up() && !room(&intake));
    }
}
