//! One connection that speaks HTTP, with the task that drives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::body::Outgoing;
use super::connect::{Speaks, Transport};
use super::limits;
use super::socket::Look;
use crate::tasks;

/// One HTTP/1.1 connection. Dropping it closes it.
pub(super) struct Http1 {
    /// Sends requests.
    pub(super) sender: http1::SendRequest<Outgoing>,
    received: Arc<AtomicU64>,
    /// Has its task look whether the server has closed it, before it sends anything.
    pub(super) look: Look,
    /// When it was made.
    pub(super) born: Instant,
    /// When it was given back last.
    pub(super) idle_since: Instant,
    /// Requests that it has served.
    pub(super) served: u32,
    _task: AbortOnDropHandle<()>,
    _open: OwnedSemaphorePermit,
}

/// One HTTP/2 connection, shared by its streams. Dropped with the last of them, it is closed.
pub(super) struct Http2 {
    /// Sends requests; cloned for each.
    pub(super) sender: http2::SendRequest<Outgoing>,
    received: Arc<AtomicU64>,
    /// When it was made.
    pub(super) born: Instant,
    /// When a stream was opened or ended on it last.
    pub(super) used: Mutex<Instant>,
    /// Requests that it has been given.
    begun: AtomicU32,
    _task: AbortOnDropHandle<()>,
    _open: OwnedSemaphorePermit,
}

/// A connection on loan.
pub(super) enum Connection {
    /// All of it.
    Http1(Http1),
    /// A stream of it.
    Http2(Arc<Http2>),
}

impl Connection {
    /// Begins to speak on a connected stream; `open` is its place among all connections.
    pub(super) async fn begin(transport: Transport, speaks: Speaks, open: OwnedSemaphorePermit) -> hyper::Result<Self> {
        match speaks {
            Speaks::Http1 => http1_connection(transport, open).await,
            Speaks::Http2 => http2_connection(transport, open).await,
        }
    }

    /// Bytes received on it until now.
    pub(super) fn received(&self) -> u64 {
        match self {
            Self::Http1(connection) => connection.received.load(Ordering::Relaxed),
            Self::Http2(connection) => connection.received(),
        }
    }
}

impl Http2 {
    /// Gives it one more request, unless it has had `max`.
    pub(super) fn begin_request(&self, max: u32) -> bool {
        self.begun.fetch_add(1, Ordering::Relaxed) < max
    }

    /// Bytes received on it until now.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

async fn http1_connection(transport: Transport, open: OwnedSemaphorePermit) -> hyper::Result<Connection> {
    let (received, look) = (transport.received(), transport.look());
    let (sender, connection) = http1::Builder::new()
        .max_headers(limits::HEAD_FIELDS_MAX)
        .max_header_size(limits::HEAD_BYTES_MAX)
        .max_buf_size(limits::HEAD_BYTES_MAX + limits::H1_READ_BYTES)
        .handshake(TokioIo::new(transport))
        .await?;
    let task = tasks::owned("upstream h1", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection closed");
        }
    });
    let now = Instant::now();
    Ok(Connection::Http1(Http1 { sender, received, look, born: now, idle_since: now, served: 0, _task: task, _open: open }))
}

async fn http2_connection(transport: Transport, open: OwnedSemaphorePermit) -> hyper::Result<Connection> {
    let received = transport.received();
    let (sender, connection) = http2::Builder::new(Streams)
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits::HEAD_BYTES_MAX as u32)
        .max_send_buf_size(limits::H2_SEND_BUFFER_BYTES)
        .keep_alive_interval(limits::H2_PING_INTERVAL)
        .keep_alive_timeout(limits::H2_PING_TIMEOUT)
        .handshake(TokioIo::new(transport))
        .await?;
    let task = tasks::owned("upstream h2", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection closed");
        }
    });
    let now = Instant::now();
    Ok(Connection::Http2(Arc::new(Http2 {
        sender,
        received,
        born: now,
        used: Mutex::new(now),
        begun: AtomicU32::new(1),
        _task: task,
        _open: open,
    })))
}

/// Where hyper runs what belongs to one HTTP/2 stream; each ends with its connection.
#[derive(Clone)]
struct Streams;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        tasks::spawn("upstream h2 stream", future);
    }
}
