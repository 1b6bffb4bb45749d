//! One reader of a fill: waits for its head, and reads its body as that arrives.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use selvedge_runtime::{Body, BodyError};

use super::{Fill, Head};
use crate::cache::entry::Entry;

/// One reader of a fill.
#[derive(Debug)]
#[must_use]
pub struct Reader {
    pub(super) fill: Arc<Fill>,
    pub(super) id: usize,
    pub(super) owner: bool,
}

impl Reader {
    /// Waits for the head. Cancel-safe.
    pub async fn head(&self) -> Head {
        std::future::poll_fn(|cx| {
            let mut state = self.fill.state.lock();
            if let Some(head) = &state.head {
                return Poll::Ready(head.clone());
            }
            if let Some(reader) = state.readers.get_mut(self.id) {
                reader.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Whether it ordered the fetch.
    pub fn is_owner(&self) -> bool {
        self.owner
    }

    /// The response that is not for the cache, once, for whoever ordered the fill.
    pub fn take_private(&self) -> Option<Response<Body>> {
        if self.owner { self.fill.state.lock().private.take() } else { None }
    }

    /// What the fill became.
    pub fn stored(&self) -> Option<Arc<Entry>> {
        self.fill.stored()
    }

    /// The fill that it reads.
    pub fn fill(&self) -> Arc<Fill> {
        self.fill.clone()
    }

    /// The body, from its first byte. Whole at once where all of it is there already.
    pub fn into_body(self, length: Option<u64>) -> Body {
        let whole = {
            let state = self.fill.state.lock();
            match (&state.end, state.chunks.len(), state.chunks.front()) {
                (Some(Ok(())), 0, None) if state.len == 0 => Some(Bytes::new()),
                (Some(Ok(())), 1, Some((0, chunk))) => Some(chunk.clone()),
                _ => None,
            }
        };
        match whole {
            Some(bytes) => Body::full(bytes),
            None => Body::stream(Following { reader: self, length, read: 0, from_disk: None, done: false }),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let unwanted = {
            let mut state = self.fill.state.lock();
            state.readers.try_remove(self.id);
            state.forget_read();
            state.owner_gone |= self.owner;
            if self.owner { state.private.take() } else { None }
        };
        drop(unwanted);
    }
}

/// A body that follows a fill.
struct Following {
    reader: Reader,
    length: Option<u64>,
    read: u64,
    /// What it reads until it has caught up with what is in memory.
    from_disk: Option<Body>,
    done: bool,
}

/// What a reader reads next.
pub(super) enum Next {
    /// This.
    Bytes(Bytes),
    /// This, from disk: it is far behind.
    OnDisk(Body),
}

impl Following {
    /// Notes what the reader has got.
    fn took(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        self.read += frame.data_ref().map_or(0, |data| data.len() as u64);
        let mut state = self.reader.fill.state.lock();
        if let Some(reader) = state.readers.get_mut(self.reader.id) {
            reader.at = self.read;
        }
        state.forget_read();
        drop(state);
        frame
    }
}

impl HttpBody for Following {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Some(body) = &mut self.from_disk {
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => return Poll::Ready(Some(Ok(self.took(frame)))),
                Some(Err(error)) => {
                    self.done = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => self.from_disk = None,
            }
        }
        let (answer, done) = {
            let mut state = self.reader.fill.state.lock();
            match state.next(self.read) {
                _ if state.readers.get(self.reader.id).is_some_and(|reader| reader.left_behind) => {
                    (Some(Err(BodyError::Stalled { ms: self.reader.fill.patience.as_millis() as u64 })), true)
                }
                Some(Next::Bytes(chunk)) => (Some(Ok(chunk)), false),
                Some(Next::OnDisk(body)) => {
                    drop(state);
                    self.from_disk = Some(body);
                    return self.poll_frame(cx);
                }
                None if let Some(end) = &state.end => (end.clone().err().map(Err), true),
                None => {
                    if let Some(reader) = state.readers.get_mut(self.reader.id) {
                        reader.waker = Some(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
        };
        self.done = done;
        Poll::Ready(answer.map(|answer| answer.map(|chunk| self.took(Frame::data(chunk)))))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, |length| SizeHint::with_exact(length.saturating_sub(self.read)))
    }
}
