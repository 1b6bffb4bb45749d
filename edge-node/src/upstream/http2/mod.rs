//! HTTP/2 with an upstream, or with another node (RFC 9113), frame by frame in the crate h2: one connection that many requests share, and the task that drives it.
//!
//! Not by hyper's client: it drops interim responses over HTTP/2, and takes a body that was reset in its middle for a whole one.

mod exchange;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::connect::Transport;
use super::limits;
use crate::tasks;

pub(crate) use exchange::{Incoming, ask};

/// What the other side is held to.
pub(crate) struct Bounds {
    /// Bytes of a header list, as h2 counts it.
    pub(crate) header_list_bytes_max: u32,
    /// A connection without traffic is pinged this often.
    pub(crate) ping_interval: Duration,
    /// Time for the answer to such a ping.
    pub(crate) ping_timeout: Duration,
}

impl Bounds {
    /// Of upstreams.
    pub(super) const UPSTREAM: Self = Self {
        header_list_bytes_max: limits::HEAD_BYTES_MAX as u32,
        ping_interval: limits::H2_PING_INTERVAL,
        ping_timeout: limits::H2_PING_TIMEOUT,
    };
}

/// One HTTP/2 connection, shared by its streams. Dropped with the last of them, it says goodbye and is closed.
pub(crate) struct Http2 {
    /// Opens streams one after the other. While the server takes no more, the first one waits, and the others behind it: with their requests, which have not gone out.
    opening: tokio::sync::Mutex<SendRequest<Bytes>>,
    /// Only asked whether the connection still takes requests.
    asked: SendRequest<Bytes>,
    received: Arc<AtomicU64>,
    /// When it was made.
    pub(super) born: Instant,
    /// When a stream was opened or ended on it last.
    pub(super) used: Mutex<Instant>,
    /// Requests that it has been given.
    begun: AtomicU32,
    /// Dropped with it: its task ends then.
    _in_use: oneshot::Sender<Infallible>,
}

impl Http2 {
    /// Begins to speak on a connected stream; `open` is its place among all connections, if it has one.
    pub(crate) async fn begin(transport: Transport, bounds: Bounds, open: impl Send + 'static) -> Result<Arc<Self>, h2::Error> {
        let received = transport.received();
        let (sender, mut connection) = Builder::new()
            .initial_window_size(limits::H2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
            .max_header_list_size(bounds.header_list_bytes_max)
            .max_send_buffer_size(limits::H2_SEND_BUFFER_BYTES)
            .max_local_error_reset_streams(Some(limits::H2_LOCAL_RESETS_MAX))
            .initial_max_send_streams(limits::H2_FIRST_STREAMS)
            .enable_push(false)
            .handshake(transport)
            .await?;
        let silence = silence(connection.ping_pong(), received.clone(), bounds);
        let (in_use, unused) = oneshot::channel();
        tasks::spawn("h2 client", async move {
            let _open = open;
            drive(connection, silence, unused).await;
        });
        let now = Instant::now();
        Ok(Arc::new(Self {
            opening: tokio::sync::Mutex::new(sender.clone()),
            asked: sender,
            received,
            born: now,
            used: Mutex::new(now),
            begun: AtomicU32::new(1),
            _in_use: in_use,
        }))
    }

    /// Whether it takes no more requests: it has ended, or the server has said goodbye.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.asked.clone().poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// Gives it one more request, unless it has had `max`.
    pub(super) fn begin_request(&self, max: u32) -> bool {
        self.begun.fetch_add(1, Ordering::Relaxed) < max
    }

    /// Bytes received on it until now.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// Moves frames until the connection ends, the server falls silent, or nobody uses it.
async fn drive(mut connection: Connection<Transport, Bytes>, silence: impl Future<Output = ()>, unused: oneshot::Receiver<Infallible>) {
    tokio::select! {
        biased;
        ended = &mut connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "HTTP/2 connection closed");
            }
        }
        () = silence => tracing::debug!("HTTP/2 connection closed: no answer to a ping"),
        _ = unused => {
            let _ = timeout(limits::H2_GOODBYE_WAIT, connection).await;
        }
    }
}

/// Ends when the server has sent nothing for a while, and has not answered a ping either.
async fn silence(pings: Option<PingPong>, received: Arc<AtomicU64>, bounds: Bounds) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        let before = received.load(Ordering::Relaxed);
        sleep(bounds.ping_interval).await;
        if received.load(Ordering::Relaxed) != before {
            continue;
        }
        match timeout(bounds.ping_timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection's own end says more.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}
