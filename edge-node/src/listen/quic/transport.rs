//! quinn under h3: our own binding, because it must bound what h3 buffers and must tell when a client has given up on a stream.
//!
//! h3 0.0.8 reads a HEADERS or unknown frame whole before it decodes it, whatever length the frame says, and the bytes that it has taken
//! give the client credit for more. So each stream counts what h3 has taken since it last gave something back, and closes the
//! connection beyond [`limits::H3_BUFFERED_BYTES_MAX`]; the same for the client's control streams.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::unfold;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use parking_lot::Mutex;
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use super::code;
use crate::limits;

/// Bytes asked for by the first read of a stream: a request's head fits.
const FIRST_READ_BYTES: usize = 2 << 10;

/// Bytes asked for by later reads: bodies in few pieces.
const READ_BYTES: usize = 16 << 10;

type Streams<T> = Pin<Box<dyn Stream<Item = Result<T, ConnectionError>> + Send>>;
type Bidi = (quinn::SendStream, quinn::RecvStream);

/// What h3 took from a stream.
#[derive(Debug)]
pub(super) struct Intake {
    bytes_max: u64,
    taken: AtomicU64,
    ended: AtomicBool,
}

impl Intake {
    fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max, taken: AtomicU64::new(0), ended: AtomicBool::new(false) })
    }

    /// h3 gave something back: what it holds now is little.
    pub(super) fn delivered(&self) {
        self.taken.store(0, Relaxed);
    }

    /// The client has sent its last byte, and h3 has taken it.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Relaxed)
    }
}

/// What our side needs of a request's stream beside what h3 gives.
pub(super) struct Accepted {
    pub(super) intake: Arc<Intake>,
    /// Resolves when the client stops reading the answer, has all of it, or is gone.
    pub(super) stopped: BoxFuture<'static, ()>,
}

/// The stream that h3 has accepted last.
#[derive(Clone, Default)]
pub(super) struct LastAccepted(Arc<Mutex<Option<Accepted>>>);

impl LastAccepted {
    /// Takes it; once for each request that h3 gives.
    pub(super) fn take(&self) -> Option<Accepted> {
        self.0.lock().take()
    }
}

/// A QUIC connection for h3.
pub(super) struct Transport {
    connection: quinn::Connection,
    bidi: Streams<Bidi>,
    uni: Streams<quinn::RecvStream>,
    opening: Streams<quinn::SendStream>,
    control: Arc<Intake>,
    last: LastAccepted,
}

impl Transport {
    pub(super) fn new(connection: quinn::Connection) -> Self {
        type Quic = quinn::Connection;
        let bidi = unfold(connection.clone(), |quic: Quic| async { Some((quic.accept_bi().await, quic)) });
        let uni = unfold(connection.clone(), |quic: Quic| async { Some((quic.accept_uni().await, quic)) });
        let opening = unfold(connection.clone(), |quic: Quic| async { Some((quic.open_uni().await, quic)) });
        let control = Intake::new(limits::H3_CONTROL_BYTES_MAX);
        Self { connection, bidi: Box::pin(bidi), uni: Box::pin(uni), opening: Box::pin(opening), control, last: LastAccepted::default() }
    }

    pub(super) fn accepted(&self) -> LastAccepted {
        self.last.clone()
    }

    fn receiving(&self, stream: quinn::RecvStream, intake: Arc<Intake>) -> Receiving {
        Receiving { stream, intake, connection: self.connection.clone(), spare: Vec::new(), read_bytes: FIRST_READ_BYTES }
    }
}

/// The next item of a stream that never ends.
fn next<T>(streams: &mut Streams<T>, cx: &mut Context<'_>) -> Poll<Result<T, ConnectionErrorIncoming>> {
    match ready!(streams.as_mut().poll_next(cx)) {
        Some(Ok(item)) => Poll::Ready(Ok(item)),
        Some(Err(error)) => Poll::Ready(Err(connection_error(error))),
        None => Poll::Ready(Err(ConnectionErrorIncoming::InternalError("no more streams".into()))),
    }
}

impl quic::Connection<Bytes> for Transport {
    type RecvStream = Receiving;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receiving, ConnectionErrorIncoming>> {
        let stream = ready!(next(&mut self.uni, cx))?;
        Poll::Ready(Ok(self.receiving(stream, self.control.clone())))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Request, ConnectionErrorIncoming>> {
        let (sending, receiving) = ready!(next(&mut self.bidi, cx))?;
        self.control.delivered();
        let intake = Intake::new(limits::H3_BUFFERED_BYTES_MAX);
        let stopped = sending.stopped();
        let stopped = Box::pin(async move { drop(stopped.await) });
        *self.last.0.lock() = Some(Accepted { intake: intake.clone(), stopped });
        Poll::Ready(Ok(Request { sending: Sending { stream: sending, writing: None }, receiving: self.receiving(receiving, intake) }))
    }

    fn opener(&self) -> Opener {
        Opener(self.connection.clone())
    }
}

impl quic::OpenStreams<Bytes> for Transport {
    type BidiStream = Request;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Request, StreamErrorIncoming>> {
        Poll::Ready(Err(no_opening()))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        let opened = ready!(next(&mut self.opening, cx));
        Poll::Ready(match opened {
            Ok(stream) => Ok(Sending { stream, writing: None }),
            Err(connection_error) => Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error }),
        })
    }

    fn close(&mut self, reason: Code, text: &[u8]) {
        self.connection.close(code(reason), text);
    }
}

/// h3 wants one; a server opens no stream after the first three, which [`Transport`] opens.
pub(super) struct Opener(quinn::Connection);

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Request;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Request, StreamErrorIncoming>> {
        Poll::Ready(Err(no_opening()))
    }

    fn poll_open_send(&mut self, _: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        Poll::Ready(Err(no_opening()))
    }

    fn close(&mut self, reason: Code, text: &[u8]) {
        self.0.close(code(reason), text);
    }
}

fn no_opening() -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown("a server opens no request streams".into())
}

/// The stream of one request.
pub(super) struct Request {
    sending: Sending,
    receiving: Receiving,
}

impl quic::BidiStream<Bytes> for Request {
    type SendStream = Sending;
    type RecvStream = Receiving;

    fn split(self) -> (Sending, Receiving) {
        (self.sending, self.receiving)
    }
}

impl quic::RecvStream for Request {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receiving.poll_data(cx)
    }

    fn stop_sending(&mut self, reason: u64) {
        self.receiving.stop_sending(reason);
    }

    fn recv_id(&self) -> StreamId {
        self.receiving.recv_id()
    }
}

impl quic::SendStream<Bytes> for Request {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sending.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.sending.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sending.poll_finish(cx)
    }

    fn reset(&mut self, reason: u64) {
        self.sending.reset(reason);
    }

    fn send_id(&self) -> StreamId {
        self.sending.send_id()
    }
}

/// What the client sends on a stream.
pub(super) struct Receiving {
    stream: quinn::RecvStream,
    intake: Arc<Intake>,
    connection: quinn::Connection,
    /// Kept while a read is pending.
    spare: Vec<u8>,
    read_bytes: usize,
}

impl quic::RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if self.spare.is_empty() {
            self.spare = vec![0; self.read_bytes];
        }
        let length = ready!(self.stream.poll_read(cx, &mut self.spare)).map_err(read_error)?;
        let mut data = std::mem::take(&mut self.spare);
        if length == 0 {
            self.intake.ended.store(true, Relaxed);
            return Poll::Ready(Ok(None));
        }
        data.truncate(length);
        self.read_bytes = READ_BYTES;
        let taken = self.intake.taken.fetch_add(length as u64, Relaxed) + length as u64;
        if taken > self.intake.bytes_max {
            self.connection.close(code(Code::H3_EXCESSIVE_LOAD), b"a frame is too long");
            let connection_error = ConnectionErrorIncoming::Undefined(Arc::new(ConnectionError::LocallyClosed));
            return Poll::Ready(Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error }));
        }
        Poll::Ready(Ok(Some(Bytes::from(data))))
    }

    fn stop_sending(&mut self, reason: u64) {
        // Fails where the stream has ended already.
        let _ = self.stream.stop(VarInt::from_u64(reason).unwrap_or(VarInt::MAX));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

/// What we send on a stream.
pub(super) struct Sending {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
}

impl quic::SendStream<Bytes> for Sending {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = self.writing.as_mut().filter(|data| data.has_remaining()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk())).map_err(write_error)?;
            data.advance(written);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let connection_error = ConnectionErrorIncoming::InternalError("a frame is being written".into());
            return Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error });
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        Poll::Ready(self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, reason: u64) {
        // Fails where the stream has ended already.
        let _ = self.stream.reset(VarInt::from_u64(reason).unwrap_or(VarInt::MAX));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

fn stream_id(id: quinn::StreamId) -> StreamId {
    // Both are numbers below 2^62 (RFC 9000, section 2.1).
    StreamId::try_from(u64::from(id)).expect("a stream's number is below 2^62")
}

fn connection_error(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn read_error(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(reason) => StreamErrorIncoming::StreamTerminated { error_code: reason.into_inner() },
        ReadError::ConnectionLost(lost) => StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(lost) },
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn write_error(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(reason) => StreamErrorIncoming::StreamTerminated { error_code: reason.into_inner() },
        WriteError::ConnectionLost(lost) => StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(lost) },
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}
