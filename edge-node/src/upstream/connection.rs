//! One connection that speaks HTTP, with the task that drives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::body::Outgoing;
use super::connect::{Speaks, Transport};
use super::http2::{Bounds, Http2};
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

/// A connection on loan.
pub(super) enum Connection {
    /// All of it.
    Http1(Http1),
    /// A stream of it.
    Http2(Arc<Http2>),
}

impl Connection {
    /// Begins to speak on a connected stream; `open` is its place among all connections.
    pub(super) async fn begin(transport: Transport, speaks: Speaks, open: OwnedSemaphorePermit) -> Result<Self, String> {
        match speaks {
            Speaks::Http1 => http1_connection(transport, open).await.map_err(|error| error.to_string()),
            Speaks::Http2 => Http2::begin(transport, Bounds::UPSTREAM, open).await.map(Self::Http2).map_err(|error| error.to_string()),
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
