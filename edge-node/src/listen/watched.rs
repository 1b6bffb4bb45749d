//! A TCP or TLS stream that notes whether the client takes our bytes, and that closes without losing the last answer.
//!
//! Closing a socket with unread bytes in it makes the kernel send RST, which can destroy an answer that the client has not read yet
//! (a 413 while the client still uploads, RFC 9112, section 9.6). So the write side is closed first, and the rest is read and
//! dropped, within bounds.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::activity::Activity;
use crate::limits;

/// Wraps a stream of one connection.
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    /// A flush waits for the client.
    flushing: bool,
    closing: Closing,
}

enum Closing {
    No,
    /// The write side is closed; reading and dropping what the client still sends.
    Lingering {
        until: Pin<Box<Sleep>>,
        bytes_left: u64,
    },
    Done,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, flushing: false, closing: Closing::No }
    }

    fn wrote<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &polled {
            Poll::Ready(Ok(_)) => self.activity.wrote(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.activity.blocked(),
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(polled)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        let was_flushing = std::mem::replace(&mut self.flushing, polled.is_pending());
        if polled.is_pending() {
            self.activity.blocked();
        } else if was_flushing {
            // Nothing may be written for long after this.
            self.activity.wrote();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.closing {
                Closing::Done => return Poll::Ready(Ok(())),
                Closing::No => {
                    ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                    let until = Box::pin(tokio::time::sleep(limits::UNREAD_BODY_WAIT));
                    this.closing = Closing::Lingering { until, bytes_left: limits::UNREAD_BODY_BYTES_MAX };
                }
                Closing::Lingering { until, bytes_left } => {
                    let mut chunk = [0; 4096];
                    let mut buffer = ReadBuf::new(&mut chunk);
                    let read = Pin::new(&mut this.stream).poll_read(cx, &mut buffer);
                    let length = buffer.filled().len() as u64;
                    let over = match read {
                        Poll::Ready(Ok(())) => length == 0 || length > *bytes_left,
                        Poll::Ready(Err(_)) => true,
                        Poll::Pending => {
                            ready!(until.as_mut().poll(cx));
                            true
                        }
                    };
                    *bytes_left = bytes_left.saturating_sub(length);
                    if over {
                        this.closing = Closing::Done;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

    use super::*;

    #[tokio::test]
    async fn a_client_that_has_taken_all_is_not_stalled_though_nothing_follows() {
        let activity = Activity::new();
        let (mut client, server) = tokio::io::duplex(8);
        // Holds back what the socket does not take, as TLS does.
        let mut watched = Watched::new(BufWriter::new(server), activity.clone());
        watched.write_all(b"twelve bytes").await.unwrap();
        let mut flush = Box::pin(watched.flush());
        assert!(futures::poll!(flush.as_mut()).is_pending());
        assert!(activity.stalled_for(Duration::ZERO), "nobody reads");
        client.read_exact(&mut [0; 8]).await.unwrap();
        flush.await.unwrap();
        assert!(!activity.stalled_for(Duration::ZERO));
    }
}
