//! Connections: accept, TLS, HTTP/1.1 and HTTP/2, and a graceful end.

use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Api;
use super::life::{End, Life, Waits, Watched};
use super::room::{Place, Room};
use super::strict::{self, Opening};
use crate::limits::{ACCEPT_PAUSE, FEED_SILENCE_MAX, HEAD_TIMEOUT, REQUEST_FIELDS_MAX, REQUEST_HEAD_BYTES_MAX, STREAMS_PER_CONNECTION_MAX};

/// Where a registry listens, and how.
pub(crate) struct Listener {
    /// The socket.
    pub(crate) socket: TcpListener,
    /// TLS; without it, cleartext.
    pub(crate) tls: Option<tokio_rustls::TlsAcceptor>,
    /// Ends accepting, lets what runs finish.
    pub(crate) stop: CancellationToken,
    /// Ends everything.
    pub(crate) abort: CancellationToken,
    /// Every connection.
    pub(crate) tasks: TaskTracker,
}

/// Accepts connections until the listener is stopped.
pub(crate) async fn serve(listener: Listener, api: Arc<Api>) {
    let room = Room::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            () = listener.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Accepted and closed where there is no room: who waits in the backlog would hear nothing.
                let Some(place) = room.enter(peer.ip()) else {
                    tracing::debug!(client = %peer, "there is no room for a connection");
                    continue;
                };
                let (abort, stop) = (listener.abort.clone(), listener.stop.clone());
                let connection = connection(stream, listener.tls.clone(), api.clone(), stop, place);
                listener.tasks.spawn(async move { abort.run_until_cancelled(connection).await });
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<tokio_rustls::TlsAcceptor>, api: Arc<Api>, stop: CancellationToken, place: Place) {
    let _ = stream.set_nodelay(true);
    match tls {
        Some(acceptor) => {
            let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await else { return };
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(crate::tls::ALPN_H2);
            let speaks = if is_h2 { Speaks::Http2 } else { Speaks::Http1 };
            http(speaks, stream, api, stop, Life::new(place, Waits::default())).await;
        }
        None => http(Speaks::Either, stream, api, stop, Life::new(place, Waits::default())).await,
    }
}

/// What a client may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
    /// The first bytes say which.
    Either,
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // So that the head that was looked at is the only one: see `strict`.
        .keep_alive(false)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(REQUEST_FIELDS_MAX)
        .max_buf_size(REQUEST_HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(u32::try_from(REQUEST_HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(FEED_SILENCE_MAX))
        .keep_alive_timeout(FEED_SILENCE_MAX);
    builder
}

/// Serves a connection until it ends, or has to: see [`Life::end`].
pub(super) async fn http<I>(speaks: Speaks, io: I, api: Arc<Api>, stop: CancellationToken, life: Arc<Life>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut io = Watched::new(io, life.clone());
    let builder = match begin(speaks, &mut io, &stop, &life).await {
        Some(Opening::Http2) => builder().http2_only(),
        Some(Opening::Http1) => builder().http1_only(),
        Some(Opening::Refused(error)) => return strict::refuse(io, &error).await,
        Some(Opening::Closed) | None => return,
    };
    let answers = life.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (api, life) = (api.clone(), answers.clone());
        async move {
            let running = life.begin();
            let answer = api.answer(request, &life).await;
            Ok::<_, std::convert::Infallible>(answer.map(|body| running.with(body)))
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut look = tokio::time::interval(life.look_every());
    let mut is_leaving = false;
    let ended = loop {
        let has_to_end = tokio::select! {
            ended = connection.as_mut() => break ended,
            () = stop.cancelled(), if !is_leaving => Some(End::Goodbye),
            _ = look.tick() => life.end(),
        };
        match has_to_end {
            Some(End::Goodbye) if !is_leaving => {
                is_leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            Some(End::Cut) => return tracing::debug!("a connection of no use is cut"),
            _ => {}
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection ended");
    }
}

/// What a connection begins with; none where that is nothing until it has to end.
async fn begin<I>(speaks: Speaks, io: &mut Watched<I>, stop: &CancellationToken, life: &Life) -> Option<Opening>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    if speaks == Speaks::Http2 {
        return Some(Opening::Http2);
    }
    let mut seen = BytesMut::new();
    let mut look = tokio::time::interval(life.look_every());
    let opening = {
        let mut opening = pin!(strict::opening(io, &mut seen));
        loop {
            tokio::select! {
                opening = opening.as_mut() => break opening.ok()?,
                () = stop.cancelled() => return None,
                _ = look.tick() => if life.end().is_some() { return None },
            }
        }
    };
    io.again(seen);
    // Over TLS it was agreed on before.
    Some(if speaks == Speaks::Http1 && matches!(opening, Opening::Http2) { Opening::Http1 } else { opening })
}
