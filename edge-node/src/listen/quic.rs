//! Connections over QUIC: HTTP/3. Only this file and its folder know quinn and h3.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use h3::error::Code;
use quinn::{Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TransportConfig, VarInt};
use ring::rand::SecureRandom;

use super::admission::Permit;
use super::exchange::Exchange;
use super::resets::Resets;
use super::{Answer, Connection, ListenError, Protocol, Shared, TlsInfo, authority};
use crate::limits::{self, Limits};
use crate::metrics::ConnectionRefusal;

pub(crate) mod client;
mod request;
mod transport;

use transport::Transport;

/// RFC 9114, section 6.2.3: 0x1f * N + 0x21.
const RESERVED_STREAM_TYPE: u8 = 0x21;

/// Binds a UDP socket.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Best effort: the kernel's bound may be lower.
    let _ = socket.set_recv_buffer_size(limits::UDP_SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(limits::UDP_SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Makes an endpoint of a socket.
pub(super) fn open(socket: UdpSocket, tls: rustls::ServerConfig, data: &Path, bounds: &Limits) -> Result<Endpoint, ListenError> {
    let failed = |error: String| ListenError::Tls(error);
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).map_err(|error| failed(error.to_string()))?;
    // Kept over restarts, so that connections of the last run end at once by a stateless reset, and tokens stay good
    // (RFC 9000, sections 10.3 and 8.1.3).
    let keys = authority::keep(&data.join("quic.keys"), || {
        let mut keys = vec![0; 128];
        ring::rand::SystemRandom::new().fill(&mut keys).map_err(|_| "no random numbers".to_owned())?;
        Ok(keys)
    })?;
    let (reset, token) =
        keys.split_at_checked(64).filter(|(_, token)| token.len() == 64).ok_or_else(|| failed("quic.keys: not 128 bytes".into()))?;
    let mut endpoint = EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset)));
    endpoint.min_reset_interval(limits::QUIC_RESET_INTERVAL);
    let token = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, b"selvedge retry token").extract(token);
    let mut server = ServerConfig::new(Arc::new(crypto), Arc::new(token));
    server
        .transport_config(Arc::new(transport_config(bounds)))
        .max_incoming(limits::QUIC_INCOMING_MAX)
        .incoming_buffer_size(limits::QUIC_INCOMING_CONNECTION_BYTES_MAX)
        .incoming_buffer_size_total(limits::QUIC_INCOMING_BYTES_MAX);
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(endpoint, Some(server), socket, runtime).map_err(|error| failed(error.to_string()))
}

fn transport_config(bounds: &Limits) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(bounds.streams_per_connection_max.into())
        .max_concurrent_uni_streams(limits::QUIC_UNI_STREAMS_MAX.into())
        .stream_receive_window(limits::QUIC_STREAM_WINDOW_BYTES.into())
        .receive_window(limits::QUIC_CONNECTION_WINDOW_BYTES.into())
        .send_window(limits::QUIC_SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        // Finds clients that are gone. One that is there answers the pings; whether a connection is idle is told by its requests (`requests`).
        .max_idle_timeout(IdleTimeout::try_from(bounds.idle_timeout()).ok())
        .keep_alive_interval(Some(limits::QUIC_KEEPALIVE_INTERVAL.min(bounds.idle_timeout() / 3)));
    config
}

/// Accepts until the node drains, then waits for the connections to end.
pub(super) async fn accept<A: Answer>(endpoint: Endpoint, shared: Arc<Shared<A>>) {
    let draining = shared.tasks.draining().clone();
    let handshakes = Arc::new(AtomicU64::new(0));
    while let Some(Some(incoming)) = draining.run_until_cancelled(endpoint.accept()).await {
        // Before a client has shown that it can read at its address, it may be somebody else's.
        let crowded = handshakes.load(Relaxed) >= limits::QUIC_HANDSHAKES_BEFORE_RETRY;
        if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        match shared.admission.admit(incoming.remote_address().ip()) {
            Ok(permit) => {
                handshakes.fetch_add(1, Relaxed);
                shared.tasks.spawn(serve(incoming, shared.clone(), permit, Handshake(handshakes.clone())));
            }
            Err(refusal) => {
                shared.metrics.refused(refusal);
                incoming.refuse();
            }
        }
    }
    endpoint.set_server_config(None);
    endpoint.wait_idle().await;
}

/// Counts a handshake as unfinished.
struct Handshake(Arc<AtomicU64>);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

async fn serve<A: Answer>(incoming: Incoming, shared: Arc<Shared<A>>, permit: Permit, handshake: Handshake) {
    let peer = incoming.remote_address();
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let connection = shared.shake_hands(async { incoming.accept()?.await }).await;
    drop(handshake);
    let connection = match connection {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(client.address = %peer, ?error, "QUIC handshake failed");
            return shared.metrics.refused(ConnectionRefusal::Handshake);
        }
    };
    let _open = shared.metrics.connected(Protocol::Http3);
    let server_name = connection
        .handshake_data()
        .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
        .and_then(|data| data.server_name.as_deref().map(Arc::from));
    let tls = Some(TlsInfo { version: "TLSv1.3", server_name, node: None });
    let exchange = shared.exchange(Arc::new(Connection { peer, protocol: Protocol::Http3, tls }), None);
    requests(connection, Arc::new(exchange), &shared).await;
    drop(permit);
}

/// Takes the requests of a connection until the client leaves, the node drains, or nothing happens any more.
async fn requests<A: Answer>(quic: quinn::Connection, exchange: Arc<Exchange<A>>, shared: &Shared<A>) {
    let transport = Transport::new(quic.clone());
    let accepted = transport.accepted();
    let mut builder = h3::server::builder();
    builder.max_field_section_size(limits::HEADER_LIST_BYTES_MAX.into());
    let Ok(mut connection) = shared.shake_hands(builder.build(transport)).await else { return };
    let resets = Arc::new(Resets::default());
    let activity = exchange.activity.clone();
    let idle = shared.limits.idle_timeout();
    let mut look = tokio::time::interval((idle / 4).max(limits::LOOK_INTERVAL_MIN));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut goodbye, mut draining): (Option<Instant>, bool) = (None, false);
    loop {
        tokio::select! {
            next = connection.accept() => {
                let (Ok(Some(resolver)), Some(stream)) = (next, accepted.take()) else { break };
                resets.asked();
                if resets.excessive() {
                    tracing::debug!(client.address = %exchange.connection.peer, "h3 connection closed: too many cancelled requests");
                    quic.close(code(Code::H3_EXCESSIVE_LOAD), b"too many cancelled requests");
                    break;
                }
                let (exchange, resets, head_timeout) = (exchange.clone(), resets.clone(), shared.limits.head_timeout());
                // It runs from here on: a drain must not cut off what this node has accepted.
                shared.tasks.spawn_bound(request::serve(resolver, stream, activity.begin(), exchange, resets, head_timeout));
            }
            () = shared.tasks.draining().cancelled(), if !draining => {
                draining = true;
                // The identifier in GOAWAY is the first request that will not be answered: the next one (RFC 9114, section 5.2).
                if connection.shutdown(1).await.is_err() {
                    break;
                }
            }
            () = activity.quiet(), if draining => {
                // Closing takes back what was not sent yet.
                let _ = tokio::time::timeout(limits::GOAWAY_WAIT, acknowledged(&quic)).await;
                quic.close(code(Code::H3_NO_ERROR), b"going away");
                break;
            }
            _ = look.tick() => match goodbye {
                _ if !activity.idle_for(idle) => {}
                None => {
                    goodbye = Some(Instant::now());
                    if connection.shutdown(1).await.is_err() {
                        break;
                    }
                }
                Some(said) if said.elapsed() >= limits::GOODBYE_WAIT => {
                    quic.close(code(Code::H3_NO_ERROR), b"idle");
                    break;
                }
                Some(_) => {}
            },
        }
    }
    // Requests that are still answered hold the connection through their streams.
    activity.quiet().await;
}

/// Resolves when the client has what was sent before, or has left: QUIC tells that of whole streams only, and the control stream never ends. So a stream of
/// a reserved type, which every client ignores (RFC 9114, section 6.2.3), goes the same way after it.
async fn acknowledged(quic: &quinn::Connection) {
    let Ok(mut marker) = quic.open_uni().await else { return };
    if marker.write_all(&[RESERVED_STREAM_TYPE]).await.is_ok() && marker.finish().is_ok() {
        let _ = marker.stopped().await;
    }
}

fn code(code: Code) -> VarInt {
    VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX)
}
