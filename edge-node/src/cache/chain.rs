//! Bodies one after the other, as one: the parts of a multipart answer, and a stored part with the rest that is still on its way.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use selvedge_runtime::{Body, BodyError};

/// Sends each body to its end, then the next.
struct Chain {
    left: VecDeque<Body>,
}

/// One body of several.
pub fn chain(bodies: impl IntoIterator<Item = Body>) -> Body {
    Body::stream(Chain { left: bodies.into_iter().collect() })
}

impl HttpBody for Chain {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while let Some(first) = self.left.front_mut() {
            match std::task::ready!(Pin::new(first).poll_frame(cx)) {
                Some(frame) => return Poll::Ready(Some(frame)),
                None => drop(self.left.pop_front()),
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left.iter().all(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let all: Option<u64> = self.left.iter().map(|body| body.size_hint().exact()).try_fold(0u64, |sum, one| sum.checked_add(one?));
        all.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_sent_one_after_the_other() {
        let stream = Body::chunks(futures::stream::iter(["b", "c"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())))));
        let all = chain([Body::full("a"), Body::empty(), stream, Body::full("d")]);
        assert_eq!(futures::executor::block_on(all.collect(99)).expect("whole"), "abcd");
        let known = chain([Body::full("ab"), Body::full("c")]);
        assert_eq!(known.size_hint().exact(), Some(3));
        assert!(chain([Body::empty()]).is_end_stream());
    }
}
