//! Bytes on their way to the client: what is small is gathered, so that one write takes it; what is large is not copied.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use crate::limits::{H1_COPIED_BYTES_MAX, H1_OUTPUT_BYTES_MAX};

/// What waits to be written: a buffer, then one large piece, then what ends it.
#[derive(Debug, Default)]
pub(super) struct Output {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are written.
    written: usize,
    piece: Bytes,
    after_piece: &'static [u8],
    /// Everything is written, but a layer below (TLS) may hold some of it.
    unflushed: bool,
}

impl Output {
    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.piece.is_empty() && self.after_piece.is_empty() && !self.unflushed
    }

    /// Takes nothing more before it is written.
    pub(super) fn is_full(&self) -> bool {
        !self.piece.is_empty() || !self.after_piece.is_empty() || self.buffer.len() >= H1_OUTPUT_BYTES_MAX
    }

    /// To write heads into. Only while it is not full.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Adds a piece of a body, and what must stand after it. Only while it is not full.
    pub(super) fn add(&mut self, piece: Bytes, after: &'static [u8]) {
        if piece.len() <= H1_COPIED_BYTES_MAX {
            self.buffer.extend_from_slice(&piece);
            self.buffer.extend_from_slice(after);
        } else {
            self.piece = piece;
            self.after_piece = after;
        }
    }

    /// Writes some, or flushes when all is written. Ready with whether nothing is left.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let rest = self.buffer.get(self.written..).unwrap_or_default();
        let slices = [IoSlice::new(rest), IoSlice::new(&self.piece), IoSlice::new(self.after_piece)];
        let stream = Pin::new(stream);
        let count = if self.piece.is_empty() && self.after_piece.is_empty() {
            if rest.is_empty() {
                ready!(stream.poll_flush(cx))?;
                self.unflushed = false;
                return Poll::Ready(Ok(true));
            }
            ready!(stream.poll_write(cx, rest))?
        } else {
            ready!(stream.poll_write_vectored(cx, &slices))?
        };
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(count);
        Poll::Ready(Ok(false))
    }

    fn advance(&mut self, mut count: usize) {
        self.unflushed = true;
        let of_buffer = count.min(self.buffer.len() - self.written);
        self.written += of_buffer;
        count -= of_buffer;
        if self.written == self.buffer.len() {
            self.written = 0;
            self.buffer.clear();
            // A buffer that was needed once is not kept for ever.
            if self.buffer.capacity() > H1_OUTPUT_BYTES_MAX {
                self.buffer = Vec::new();
            }
        }
        let of_piece = count.min(self.piece.len());
        if of_piece == self.piece.len() {
            self.piece = Bytes::new();
        } else {
            let _ = self.piece.split_to(of_piece);
        }
        count -= of_piece;
        self.after_piece = self.after_piece.get(count..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn everything_comes_out_in_order_whatever_is_taken_at_once() {
        for room in [1, 7, 64, 100_000] {
            let (mut near, mut far) = tokio::io::duplex(room);
            let large = Bytes::from(vec![b'x'; H1_COPIED_BYTES_MAX + 1]);
            let expected = [&b"head"[..], &large, b"\r\n"].concat();
            let writing = async {
                let mut output = Output::default();
                output.buffer().extend_from_slice(b"head");
                assert!(!output.is_full());
                output.add(large.clone(), b"\r\n");
                assert!(output.is_full());
                while !std::future::poll_fn(|cx| output.poll_write(&mut near, cx)).await.unwrap() {}
                assert!(output.is_empty());
                output.add(Bytes::from_static(b"small"), b"\r\n");
                while !std::future::poll_fn(|cx| output.poll_write(&mut near, cx)).await.unwrap() {}
                drop(near);
            };
            let mut got = Vec::new();
            let ((), read) = tokio::join!(writing, far.read_to_end(&mut got));
            read.unwrap();
            assert_eq!(got, [&expected[..], b"small\r\n"].concat(), "room {room}");
        }
    }
}
