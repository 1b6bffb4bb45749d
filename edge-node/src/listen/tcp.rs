//! Connections over TCP: one accept loop for https and http, then h1 or h2 as TLS negotiated it.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::activity::Activity;
use super::admission::Permit;
use super::exchange::{Exchange, ReceivedBody, SentBody};
use super::h1::{self, Abort};
use super::watched::Watched;
use super::{Answer, Connection, Interim, Protocol, Shared, TlsInfo};
use crate::limits;
use crate::metrics::ConnectionRefusal;
use crate::tasks::Tasks;

/// What is spoken on a listener.
#[derive(Clone)]
pub(super) enum Transport {
    /// h1 in cleartext.
    Cleartext,
    /// h1 or h2 over TLS; the field announces h3.
    Tls(TlsAcceptor, Option<HeaderValue>),
}

/// Opens a listening socket.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    // A restart must not wait for connections of the last run that are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits::TCP_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the node drains.
pub(super) async fn accept<A: Answer>(listener: TcpListener, transport: Transport, shared: Arc<Shared<A>>) {
    let draining = shared.tasks.draining().clone();
    while let Some(accepted) = draining.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory, mostly; a client that went away while it waited is among the errors too.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(limits::ACCEPT_RETRY_WAIT).await;
                continue;
            }
        };
        match shared.admission.admit(peer.ip()) {
            Ok(permit) => {
                let connection = serve(stream, peer, transport.clone(), shared.clone(), permit);
                shared.tasks.spawn(connection);
            }
            Err(refusal) => shared.metrics.refused(refusal),
        }
    }
}

async fn serve<A: Answer>(stream: TcpStream, peer: SocketAddr, transport: Transport, shared: Arc<Shared<A>>, permit: Permit) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let Ok(local) = stream.local_addr() else { return };
    let _ = stream.set_nodelay(true);
    // Finds clients that vanished while a request runs; idle ones are closed anyway.
    let keepalive = socket2::TcpKeepalive::new().with_time(limits::TCP_KEEPALIVE).with_interval(limits::TCP_KEEPALIVE_INTERVAL);
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let connection = |protocol, tls| Arc::new(Connection { peer, local, protocol, tls });
    match transport {
        Transport::Cleartext => h1::serve(stream, shared.exchange(connection(Protocol::Http1, None), None), &shared).await,
        Transport::Tls(acceptor, alt_svc) => {
            let handshake = tokio::time::timeout(shared.limits.handshake_timeout(), acceptor.accept(stream));
            let stream = match handshake.await {
                Ok(Ok(stream)) => stream,
                failed => {
                    let error = failed.map(|failed| failed.err());
                    tracing::debug!(client.address = %peer, ?error, "TLS handshake failed");
                    return shared.metrics.refused(ConnectionRefusal::Handshake);
                }
            };
            let (_, session) = stream.get_ref();
            let version = match session.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            };
            let tls = Some(TlsInfo {
                version,
                server_name: session.server_name().map(Arc::from),
                node: crate::peers::proven_key(session.peer_certificates()),
            });
            if session.alpn_protocol() == Some(b"h2") {
                h2(stream, shared.exchange(connection(Protocol::Http2, tls), alt_svc), &shared).await;
            } else {
                h1::serve(stream, shared.exchange(connection(Protocol::Http1, tls), alt_svc), &shared).await;
            }
        }
    }
    drop(permit);
}

impl Abort for TcpStream {
    fn abort(&self) {
        // Closing becomes RST. Where that cannot be set, the client sees an ordinary end.
        let _ = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl Abort for TlsStream<TcpStream> {
    fn abort(&self) {
        // Closing comes without TLS's goodbye.
        self.get_ref().0.abort();
    }
}

async fn h2<A: Answer, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, exchange: Exchange<A>, shared: &Shared<A>) {
    let activity = exchange.activity.clone();
    let _open = shared.metrics.connected(Protocol::Http2);
    let io = TokioIo::new(Watched::new(stream, activity.clone()));
    let mut builder = http2::Builder::new(Streams(shared.tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(shared.limits.streams_per_connection_max)
        .max_frame_size(limits::H2_FRAME_BYTES_MAX)
        .max_send_buf_size(limits::H2_SEND_BUFFER_BYTES_MAX)
        .max_header_list_size(limits::HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(limits::H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(limits::H2_LOCAL_RESETS_MAX);
    let connection = builder.serve_connection(io, service(exchange));
    let graceful = http2::Connection::graceful_shutdown;
    drive(connection, graceful, activity, shared, Some(shared.limits.idle_timeout())).await;
}

/// Runs a connection to its end: says goodbye once, when the node drains or nothing happens any more, and gives up on clients that take nothing.
async fn drive<A, C, E>(connection: C, graceful: fn(Pin<&mut C>), activity: Arc<Activity>, shared: &Shared<A>, idle: Option<Duration>)
where
    C: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    tokio::pin!(connection);
    let shortest = idle.unwrap_or(limits::SEND_STALL).min(limits::SEND_STALL);
    let mut look = tokio::time::interval((shortest / 4).max(Duration::from_millis(20)));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Of its own: see `Tasks::spawn`.
    let draining = shared.tasks.draining().child_token();
    let drain = draining.cancelled();
    tokio::pin!(drain);
    let mut goodbye = None;
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = &mut drain, if goodbye.is_none() => {
                graceful(connection.as_mut());
                goodbye = Some(tokio::time::Instant::now());
            }
            _ = look.tick() => {
                if activity.stalled_for(limits::SEND_STALL) {
                    return tracing::debug!("connection closed: the client takes nothing");
                }
                if !idle.is_some_and(|idle| activity.idle_for(idle)) {
                    continue;
                }
                match goodbye {
                    None => {
                        graceful(connection.as_mut());
                        goodbye = Some(tokio::time::Instant::now());
                    }
                    Some(said) if said.elapsed() >= limits::GOODBYE_WAIT => return,
                    Some(_) => {}
                }
            }
        }
    }
}

/// hyper's view of an exchange.
fn service<A: Answer>(
    exchange: Exchange<A>,
) -> impl hyper::service::HttpService<Incoming, ResBody = SentBody, Error = Infallible, Future: Send> {
    let exchange = Arc::new(exchange);
    service_fn(move |request: http::Request<Incoming>| {
        let exchange = exchange.clone();
        async move {
            let request = request.map(|body| ReceivedBody::open(body, &exchange.metrics));
            // hyper's server has no way to send interim responses.
            Ok::<_, Infallible>(exchange.run(request, Interim::none()).await)
        }
    })
}

/// Runs the streams of h2 connections.
#[derive(Clone)]
struct Streams(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.spawn_bound(stream);
    }
}
