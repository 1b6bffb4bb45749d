//! One link: the socket of a thread, what came in and waits for it, and what goes out.
//!
//! Inbox and outbox are each behind a lock, so that the watchdog can take over a link whose thread does not come back
//! to it. The thread holds the locks only while it reads, takes one message, appends one, or writes.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::{Buf, BytesMut};
use http::StatusCode;
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use selvedge_runtime::Outcome;
use selvedge_runtime::protocol::{BodyKind, Decoder, EncodeError, OUTBOX_BYTES_MAX, StreamId, ToEdge, ToRunner, encode, encode_response};

use crate::isolate::FieldIter;
use crate::last_words::{Exit, end};
use crate::limits::{INBOX_BYTES_MAX, LOG_OUTBOX_BYTES_MAX, OUTBOX_ABANDON_BYTES, READS_PER_TURN_MAX};

/// One link.
pub(crate) struct Link {
    socket: OwnedFd,
    /// The same socket, for waiting until it has room: the sandbox lets no descriptor be made later.
    room: OwnedFd,
    pub(crate) inbox: Mutex<Inbox>,
    outbox: Mutex<BytesMut>,
}

/// What has been read and waits for the thread.
pub(crate) struct Inbox {
    decoder: Decoder<ToRunner>,
    queue: VecDeque<ToRunner>,
    bytes: usize,
}

/// How far reading a socket went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// There is no more for now.
    Drained,
    /// There may be more.
    More,
}

/// How far writing a socket went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Everything is written.
    Written,
    /// The socket is full.
    Full,
}

impl Link {
    /// Before the system call filter.
    pub(crate) fn new(socket: OwnedFd) -> std::io::Result<Self> {
        let room = socket.try_clone()?;
        let inbox = Inbox { decoder: Decoder::new(), queue: VecDeque::new(), bytes: 0 };
        Ok(Self { socket, room, inbox: Mutex::new(inbox), outbox: Mutex::new(BytesMut::with_capacity(64 << 10)) })
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn room(&self) -> BorrowedFd<'_> {
        self.room.as_fd()
    }

    /// Appends a message for the edge. It is written at the end of the turn, or by the watchdog if that does not come.
    pub(crate) fn send(&self, message: &ToEdge) {
        if matches!(message, ToEdge::Log { .. }) && self.outbox.lock().len() > LOG_OUTBOX_BYTES_MAX {
            return;
        }
        // The lock is not held below: the watchdog takes the locks in the other order.
        let Err(error) = self.append(|outbox| encode(outbox, message)) else { return };
        match message {
            // The worker waits for an answer to it: make one.
            ToEdge::Fetch { stream, part, head, .. } => {
                let (result, url) = (Err(format!("request is too large: {error}")), head.url.clone());
                self.inbox.lock().push(ToRunner::Fetched { stream: *stream, part: *part, result, url, redirects: 0 });
            }
            ToEdge::Cache { stream, part, .. } => {
                let result = Err(format!("what is asked of the cache is too large: {error}"));
                self.inbox.lock().push(ToRunner::Fetched { stream: *stream, part: *part, result, url: String::new(), redirects: 0 });
            }
            ToEdge::Response { stream, .. } | ToEdge::BodyData { stream, .. } => self.fail(*stream, error),
            _ => eprintln!("runner: a message was not sent: {error}"),
        }
    }

    /// Appends the beginning of a response, likewise.
    pub(crate) fn respond(&self, stream: StreamId, status: StatusCode, fields: &mut FieldIter<'_>, body: &BodyKind) {
        if let Err(error) = self.append(|outbox| encode_response(outbox, stream, status, fields, body.into())) {
            self.fail(stream, error);
        }
    }

    fn append(&self, encode: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>) -> Result<(), EncodeError> {
        let mut outbox = self.outbox.lock();
        if outbox.len() > OUTBOX_ABANDON_BYTES {
            end(Exit::Protocol, "the edge does not read");
        }
        encode(&mut outbox)
    }

    /// There is no response, for it does not fit. This message is short: it cannot fail again.
    fn fail(&self, stream: StreamId, error: EncodeError) {
        let message = format!("response is too large: {error}");
        self.send(&ToEdge::Failed { stream, outcome: Outcome::Exception, message });
    }

    /// Whether so much waits to be written that nothing more should be taken in.
    pub(crate) fn is_clogged(&self) -> bool {
        self.outbox.lock().len() > OUTBOX_BYTES_MAX
    }

    /// Writes what is ready, as far as the socket takes it.
    pub(crate) fn flush(&self) -> Flush {
        let mut outbox = self.outbox.lock();
        while !outbox.is_empty() {
            match rustix::net::send(&self.socket, &outbox, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(written) => outbox.advance(written),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Flush::Full,
                Err(_) => end(Exit::Finished, ""),
            }
        }
        Flush::Written
    }

    /// Reads and decodes what is there, as far as there is room. Ends the process where the link has ended, or makes no sense.
    pub(crate) fn fill(&self, inbox: &mut Inbox) -> Fill {
        for _ in 0..READS_PER_TURN_MAX {
            if inbox.bytes > INBOX_BYTES_MAX {
                return Fill::More;
            }
            let buffer = inbox.decoder.buffer();
            let room = buffer.spare_capacity_mut();
            let asked = room.len();
            let read = match rustix::net::recv(&self.socket, room, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => end(Exit::Finished, ""),
                Ok((_, read)) => read,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Fill::Drained,
                Err(_) => end(Exit::Finished, ""),
            };
            // SAFETY: so many bytes of the spare capacity were just written.
            unsafe { buffer.set_len(buffer.len() + read) };
            inbox.decode();
            // A short read has emptied the socket; what comes later wakes the thread again.
            if read < asked {
                return Fill::Drained;
            }
        }
        Fill::More
    }
}

impl Inbox {
    fn decode(&mut self) {
        loop {
            match self.decoder.next() {
                Ok(Some(message)) => self.push(message),
                Ok(None) => return,
                Err(error) => end(Exit::Protocol, &error.to_string()),
            }
        }
    }

    fn push(&mut self, message: ToRunner) {
        self.bytes += weight(&message);
        self.queue.push_back(message);
    }

    pub(crate) fn pop(&mut self) -> Option<ToRunner> {
        let message = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(weight(&message));
        Some(message)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes out the messages for which `keep` is false; the others keep their order.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&ToRunner) -> bool) {
        let bytes = &mut self.bytes;
        self.queue.retain(|message| {
            let kept = keep(message);
            if !kept {
                *bytes = bytes.saturating_sub(weight(message));
            }
            kept
        });
    }
}

/// About how many bytes a message holds.
fn weight(message: &ToRunner) -> usize {
    const HEAD: usize = 512;
    let body = |body: &BodyKind| if let BodyKind::Whole(bytes) = body { bytes.len() } else { 0 };
    HEAD + match message {
        ToRunner::LoadBytes { bytes, .. } | ToRunner::BodyData { bytes, .. } => bytes.len(),
        ToRunner::Start { body: kind, .. } | ToRunner::Fetched { result: Ok((_, kind)), .. } => body(kind),
        _ => 0,
    }
}
