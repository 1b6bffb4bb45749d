//! Closing a connection so that the client gets what was sent.
//!
//! Closing a socket with unread bytes in it makes the kernel send RST, which can destroy an answer that the client has not read yet (a 413 while the client still
//! uploads, RFC 9112, section 9.6). So the write side is closed first, and the rest is read and dropped, within bounds.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::limits;

/// How far a connection is closed.
#[derive(Default)]
pub(super) enum Closing {
    #[default]
    No,
    /// The write side is closed; reading and dropping what the client still sends.
    Lingering {
        until: Pin<Box<Sleep>>,
        bytes_left: u64,
    },
    Done,
}

impl Closing {
    /// Closes it, or goes on with that.
    pub(super) fn poll<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self {
                Self::Done => return Poll::Ready(Ok(())),
                Self::No => {
                    ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
                    let until = Box::pin(tokio::time::sleep(limits::UNREAD_BODY_WAIT));
                    *self = Self::Lingering { until, bytes_left: limits::UNREAD_BODY_BYTES_MAX };
                }
                Self::Lingering { until, bytes_left } => {
                    let mut chunk = [0; 4096];
                    let mut buffer = ReadBuf::new(&mut chunk);
                    let read = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
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
                        *self = Self::Done;
                    }
                }
            }
        }
    }
}
