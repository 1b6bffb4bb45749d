//! Connections over TCP: one accept loop for https and http, then h1 or h2 as TLS negotiated it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::admission::Permit;
use super::h1::{self, Abort};
use super::h2;
use super::{Answer, Connection, Protocol, Shared, TlsInfo};
use crate::limits;
use crate::metrics::ConnectionRefusal;

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
    let _ = stream.set_nodelay(true);
    // Finds clients that vanished while a request runs; idle ones are closed anyway.
    let keepalive = socket2::TcpKeepalive::new().with_time(limits::TCP_KEEPALIVE).with_interval(limits::TCP_KEEPALIVE_INTERVAL);
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let connection = |protocol, tls| Arc::new(Connection { peer, protocol, tls });
    match transport {
        Transport::Cleartext => h1::serve(stream, shared.exchange(connection(Protocol::Http1, None), None), &shared).await,
        Transport::Tls(acceptor, alt_svc) => {
            let stream = match shared.shake_hands(acceptor.accept(stream)).await {
                Ok(stream) => stream,
                Err(error) => {
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
                h2::serve(stream, shared.exchange(connection(Protocol::Http2, tls), alt_svc), &shared).await;
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
