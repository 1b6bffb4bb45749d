//! The edge's end of a link's socket.
//!
//! It is registered for reading only. A stream socket tells whoever polls it for room that there is some each time the other side has
//! read: registered for both, every message would wake the edge twice, once for nothing. Where the socket is full, which is rare,
//! the writer registers a second descriptor until there is room again. That is made with the link: later there may be none left.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use bytes::{BufMut, BytesMut};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One end of a socket pair.
pub(super) struct Socket {
    stream: AsyncFd<UnixStream>,
    second: OwnedFd,
}

/// All that becomes one.
pub(super) struct End {
    stream: UnixStream,
    second: OwnedFd,
}

impl End {
    /// One of our own, and one for a runner.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (stream, theirs) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let second = stream.as_fd().try_clone_to_owned()?;
        Ok((Self { stream, second }, theirs.into()))
    }
}

impl Socket {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(End { stream, second }: End) -> io::Result<Self> {
        // SAFETY: the stream owns its descriptor, and nothing closes or replaces it while it is registered.
        Ok(Self { stream: unsafe { AsyncFd::register_with_interest(stream, Interest::READABLE) }?, second })
    }

    /// Appends what is there to `buffer`, which has room; waits where there is nothing. 0 is the end. Cancel-safe.
    pub(super) async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            let mut ready = self.stream.readable().await?;
            let room = buffer.chunk_mut();
            let asked = room.len();
            // SAFETY: the bytes of a chunk may be uninitialised, and recv only writes to them.
            match rustix::net::recv(self.stream.get_ref(), unsafe { room.as_uninit_slice_mut() }, RecvFlags::DONTWAIT) {
                Ok((_, len)) => {
                    // A short read has emptied the socket; what comes later is announced again.
                    if len < asked && len > 0 {
                        ready.clear_ready();
                    }
                    // SAFETY: so many bytes were just written.
                    unsafe { buffer.advance_mut(len) };
                    return Ok(len);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes what the socket takes now; `WouldBlock` where it is full.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.stream.get_ref(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    /// Waits for room; one caller at a time. Cancel-safe.
    pub(super) async fn writable(&self) -> io::Result<()> {
        // SAFETY: as above.
        let second = unsafe { AsyncFd::register_with_interest(self.second.as_fd(), Interest::WRITABLE) }?;
        let _room = second.writable().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_written_when_the_other_side_has_read() {
        let (ours, theirs) = End::pair().expect("a socket pair");
        let mut theirs = UnixStream::from(theirs);
        theirs.set_nonblocking(false).expect("a socket");
        let socket = Arc::new(Socket::new(ours).expect("inside a runtime"));
        let piece = vec![7; 1 << 20];
        let mut written = 0;
        loop {
            match socket.try_write(&piece) {
                Ok(len) => written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let waits = tokio::time::timeout(std::time::Duration::from_millis(20), socket.writable()).await;
        assert!(waits.is_err(), "a full socket has room");
        let reader = std::thread::spawn(move || {
            let mut bytes = vec![0; written];
            theirs.read_exact(&mut bytes).expect("all that was written");
            theirs.write_all(b"read").expect("a peer");
            theirs
        });
        socket.writable().await.expect("room");
        let mut answer = BytesMut::with_capacity(64);
        assert_eq!(socket.read(&mut answer).await.expect("an answer"), 4);
        drop(reader.join().expect("a thread"));
        assert_eq!((socket.read(&mut answer).await.expect("the end"), &answer[..]), (0, b"read".as_slice()));
    }
}
