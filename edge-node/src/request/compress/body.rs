//! A body that is compressed while it is sent: a bounded piece at a time, and flushed whenever whoever makes it pauses, so that an event reaches the client when
//! it happens.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use selvedge_runtime::{Body, BodyError};

use super::encoder::Encoder;
use crate::limits::{COMPRESS_PIECE_BYTES, COMPRESS_PIECES_PER_TURN};

/// A body and its compressor.
pub(super) struct Encoded {
    plain: Body,
    /// Gone once the coding has ended.
    encoder: Option<Encoder>,
    /// Plain bytes that have come and wait for their turn.
    waiting: Bytes,
    /// There is something in the compressor that the client does not have.
    unflushed: bool,
    trailers: Option<Frame<Bytes>>,
}

impl Encoded {
    pub(super) fn body(plain: Body, encoder: Encoder) -> Body {
        Body::stream(Self { plain, encoder: Some(encoder), waiting: Bytes::new(), unflushed: false, trailers: None })
    }

    /// The next plain bytes. None: there are no more.
    fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if !self.waiting.is_empty() {
                let piece = self.waiting.split_to(self.waiting.len().min(COMPRESS_PIECE_BYTES));
                return Poll::Ready(Some(Ok(piece)));
            }
            match ready!(Pin::new(&mut self.plain).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    // An empty frame counts as a piece, so that many of them take turns too.
                    Ok(data) if data.is_empty() => return Poll::Ready(Some(Ok(data))),
                    Ok(data) => self.waiting = data,
                    Err(trailers) => {
                        self.trailers = Some(trailers);
                        return Poll::Ready(None);
                    }
                },
            }
        }
    }
}

fn broken(error: std::io::Error) -> BodyError {
    BodyError::Aborted(format!("compression failed: {error}"))
}

fn some(coded: Bytes) -> Option<Result<Frame<Bytes>, BodyError>> {
    (!coded.is_empty()).then(|| Ok(Frame::data(coded)))
}

impl HttpBody for Encoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        for _ in 0..COMPRESS_PIECES_PER_TURN {
            if this.encoder.is_none() {
                return Poll::Ready(this.trailers.take().map(Ok));
            }
            let plain = this.poll_plain(cx);
            let Some(encoder) = &mut this.encoder else { continue };
            let coded = match plain {
                Poll::Ready(Some(Ok(piece))) => {
                    this.unflushed |= !piece.is_empty();
                    encoder.write(&piece).map(|()| encoder.take())
                }
                // The coding stays without its end: nobody can take it for whole.
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => this.encoder.take().map_or(Ok(Bytes::new()), Encoder::finish),
                Poll::Pending if this.unflushed => {
                    this.unflushed = false;
                    let flushed = encoder.flush().map(|()| encoder.take());
                    match flushed.map(some) {
                        Ok(None) => return Poll::Pending,
                        Ok(coded) => return Poll::Ready(coded),
                        Err(error) => return Poll::Ready(Some(Err(broken(error)))),
                    }
                }
                Poll::Pending => return Poll::Pending,
            };
            match coded.map(some) {
                Ok(None) => {}
                Ok(coded) => return Poll::Ready(coded),
                Err(error) => return Poll::Ready(Some(Err(broken(error)))),
            }
        }
        // A body that compresses very well gives nothing for long: others get their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use selvedge_origin::registry::Coding;
    use tokio::sync::mpsc;

    use super::super::encoder::tests::{decode, encoder};
    use super::*;

    async fn next(body: &mut Body) -> Option<Result<Bytes, BodyError>> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(frame.map(|frame| frame.into_data().expect("data")))
    }

    fn stream(receiver: mpsc::UnboundedReceiver<Result<Bytes, BodyError>>) -> Body {
        Body::chunks(futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }).fuse())
    }

    #[tokio::test]
    async fn an_event_can_be_read_before_the_next_one_is_made() {
        for coding in Coding::ALL {
            let (sender, receiver) = mpsc::unbounded_channel();
            let mut body = Encoded::body(stream(receiver), encoder(coding, None));
            let mut coded = Vec::new();
            for number in 0..5 {
                sender.send(Ok(Bytes::from(format!("data: {number}\n\n")))).expect("read");
                let expected: String = (0..=number).map(|number| format!("data: {number}\n\n")).collect();
                let arrives = async {
                    // The header of the stream may come before.
                    while decode(coding, &coded).0 != expected.as_bytes() {
                        coded.extend_from_slice(&next(&mut body).await.expect("more").expect("bytes"));
                    }
                };
                tokio::time::timeout(std::time::Duration::from_secs(5), arrives).await.expect("flushed");
            }
            drop(sender);
            while let Some(rest) = next(&mut body).await {
                coded.extend_from_slice(&rest.expect("bytes"));
            }
            assert!(decode(coding, &coded).1, "{coding:?} ends");
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_whole() {
        for coding in Coding::ALL {
            let (sender, receiver) = mpsc::unbounded_channel();
            let mut body = Encoded::body(stream(receiver), encoder(coding, None));
            sender.send(Ok(Bytes::from_static(b"half"))).expect("read");
            sender.send(Err(BodyError::Aborted("gone".into()))).expect("read");
            let mut coded = Vec::new();
            let error = loop {
                match next(&mut body).await.expect("an error") {
                    Ok(bytes) => coded.extend_from_slice(&bytes),
                    Err(error) => break error,
                }
            };
            assert!(error.to_string().contains("gone"));
            assert!(!decode(coding, &coded).1, "{coding:?}: no end");
        }
    }

    #[tokio::test]
    async fn a_large_whole_body_comes_in_bounded_pieces() {
        let plain = vec![b'x'; 8 << 20];
        let mut body = Encoded::body(Body::full(plain.clone()), encoder(Coding::Zstd, None));
        let mut coded = Vec::new();
        while let Some(bytes) = next(&mut body).await {
            coded.extend_from_slice(&bytes.expect("bytes"));
        }
        assert_eq!(decode(Coding::Zstd, &coded), (plain, true));
    }
}
