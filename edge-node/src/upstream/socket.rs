//! A TCP stream that can be asked to look at its end once more before it is used: tokio tells of it only when its driver has had a turn, and a server may have closed
//! an idle connection since.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TCP stream, and the wish to look.
pub(super) struct Socket {
    tcp: TcpStream,
    look: Look,
}

/// Asks that the next read asks the kernel, whatever was heard of it before.
#[derive(Debug, Clone, Default)]
pub(super) struct Look(Arc<AtomicBool>);

impl Look {
    /// From now on, once.
    pub(super) fn again(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Socket {
    /// Wraps a connected stream.
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, look: Look::default() }
    }

    /// The handle for whoever is about to use it.
    pub(super) fn look(&self) -> Look {
        self.look.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.look.0.load(Ordering::Acquire) && self.look.0.swap(false, Ordering::AcqRel) {
            match rustix::net::recv(&self.tcp, buffer.initialize_unfilled(), RecvFlags::DONTWAIT) {
                Ok((_, count)) => {
                    buffer.advance(count.min(buffer.remaining()));
                    return Poll::Ready(Ok(()));
                }
                // Nothing there: it is open, and tokio wakes when that changes.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
