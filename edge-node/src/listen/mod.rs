//! Stage 1, ACCEPT: connections of three protocols become requests of one kind.
//!
//! One accept loop for each socket (`tcp`, `quic`); every connection holds a permit (`admission`) and notes what moves on it (`activity`). Every request of every
//! protocol goes through one `exchange`: check, answer, shape for the wire.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::HeaderValue;
use ipnet::IpNet;
use selvedge_runtime::Body;

use crate::limits::{self, Limits};
use crate::metrics::Metrics;
use crate::tasks::Tasks;

mod activity;
mod admission;
mod authority;
mod check;
mod connection;
mod date;
mod exchange;
mod h1;
mod h2;
mod interim;
mod linger;
pub(crate) mod quic;
mod refusal;
mod reply;
mod resets;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;
mod watched;

pub use connection::{Connection, Protocol, TlsInfo};
pub(crate) use exchange::has_no_content;
pub use interim::Interim;
pub use refusal::Refusal;
pub use reply::Reply;
pub(crate) use tcp::bind as bind_tcp;
pub use tls::{CertificateError, Certificates, Routed, check_certificate};

/// What stands behind the listeners: [`crate::request::RequestPath`], or a small one in a test.
pub trait Answer: Send + Sync + 'static {
    /// Answers a request; its URI is absolute, its authority is valid and equals its Host field where there is one. Dropping the future, or the
    /// response's body before its end, cancels the work. Until the response is there, interim ones may be sent.
    fn answer(&self, request: http::Request<Body>, connection: &Arc<Connection>, interim: Interim) -> impl Future<Output = Reply> + Send;

    /// The answer to what is not a request. The connection is closed after it on HTTP/1.1.
    fn refuse(&self, refusal: Refusal, connection: &Arc<Connection>) -> http::Response<Body>;
}

/// What listeners are made with.
#[derive(Debug, Clone)]
pub struct ListenConfig {
    /// h1 and h2 over TCP, h3 over UDP on the same port.
    pub https: Option<SocketAddr>,
    /// h1 in cleartext.
    pub http: Option<SocketAddr>,
    /// h2 over TLS with keys of nodes, for other nodes.
    pub peer: Option<SocketAddr>,
    /// Keeps QUIC's keys over restarts.
    pub data: std::path::PathBuf,
    /// Bounds.
    pub limits: Limits,
    /// Clients that are exempt from the bound of one address.
    pub trusted_proxies: Vec<IpNet>,
}

/// Sockets that are bound, but not served yet: their ports are known before anything that needs them is built.
pub struct Bound {
    config: ListenConfig,
    https: Option<(tokio::net::TcpListener, std::net::UdpSocket)>,
    http: Option<tokio::net::TcpListener>,
    peer: Option<tokio::net::TcpListener>,
}

/// Why listeners do not start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A socket.
    #[error("{listener} on {address}: {reason}")]
    Bind {
        /// `https`, `http` or `peer`.
        listener: &'static str,
        /// Where it should be.
        address: SocketAddr,
        /// Why.
        reason: io::Error,
    },
    /// TLS or QUIC.
    #[error("tls: {0}")]
    Tls(String),
    /// A file.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// What all connections of a node share.
struct Shared<A> {
    answer: Arc<A>,
    limits: Limits,
    admission: admission::Admission,
    metrics: Arc<Metrics>,
    tasks: Tasks,
}

impl<A: Answer> Shared<A> {
    fn exchange(&self, connection: Arc<Connection>, alt_svc: Option<HeaderValue>) -> exchange::Exchange<A> {
        let activity = activity::Activity::new();
        exchange::Exchange { answer: self.answer.clone(), connection, activity, metrics: self.metrics.clone(), alt_svc }
    }

    /// What a handshake gives, or its error; no error where it takes too long or the node drains: nothing has been asked yet.
    async fn shake_hands<T, E>(&self, handshake: impl Future<Output = Result<T, E>>) -> Result<T, Option<E>> {
        let in_time = tokio::time::timeout(self.limits.handshake_timeout(), handshake);
        // Of its own: see `Tasks::spawn`.
        match self.tasks.draining().child_token().run_until_cancelled(in_time).await {
            Some(Ok(shaken)) => shaken.map_err(Some),
            Some(Err(_)) | None => Err(None),
        }
    }
}

impl Bound {
    /// Binds all sockets. With port 0 for https the kernel chooses one that is free for TCP and for UDP.
    pub fn bind(config: ListenConfig) -> Result<Self, ListenError> {
        let failed = |listener, address| move |reason| ListenError::Bind { listener, address, reason };
        let https = config.https.map(|address| bind_both(address).map_err(failed("https", address))).transpose()?;
        let http = config.http.map(|address| tcp::bind(address).map_err(failed("http", address))).transpose()?;
        let peer = config.peer.map(|address| tcp::bind(address).map_err(failed("peer", address))).transpose()?;
        Ok(Self { config, https, http, peer })
    }

    /// Where https is served.
    pub fn https(&self) -> Option<SocketAddr> {
        self.https.as_ref().and_then(|(tcp, _)| tcp.local_addr().ok())
    }

    /// Where http is served.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Where peers are answered.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Takes the socket for peers, to be served by [`serve_peers`].
    pub fn take_peer(&mut self) -> Option<tokio::net::TcpListener> {
        self.peer.take()
    }

    /// Serves clients until the node drains.
    pub fn serve<A: Answer>(
        self,
        answer: Arc<A>,
        certificates: Arc<Certificates>,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<(), ListenError> {
        let https = self.https();
        let admission = admission::Admission::new(&self.config.limits, self.config.trusted_proxies);
        let shared = Arc::new(Shared { answer, limits: self.config.limits, admission, metrics, tasks: tasks.clone() });
        if let (Some((tcp, udp)), Some(address)) = (self.https, https) {
            let tls_failed = |error: rustls::Error| ListenError::Tls(error.to_string());
            let for_quic = tls::server_config(certificates.clone(), &[b"h3"]).map_err(tls_failed)?;
            let endpoint = quic::open(udp, for_quic, &self.config.data, &shared.limits)?;
            let for_tcp = tls::server_config(certificates.clone(), &[b"h2", b"http/1.1"]).map_err(tls_failed)?;
            // RFC 7838, section 3: the same host, a day.
            let alt_svc = HeaderValue::try_from(format!("h3=\":{}\"; ma=86400", address.port())).ok();
            tasks.spawn(quic::accept(endpoint, shared.clone()));
            tasks.spawn(tcp::accept(tcp, tcp::Transport::Tls(Arc::new(for_tcp).into(), alt_svc), shared.clone()));
            tasks.spawn(refresh(certificates, tasks.clone()));
        }
        if let Some(tcp) = self.http {
            tasks.spawn(tcp::accept(tcp, tcp::Transport::Cleartext, shared));
        }
        Ok(())
    }
}

/// For tests/fuzz: any bytes as what a client of HTTP/1.1 sends.
pub fn fuzz(bytes: &[u8]) {
    h1::fuzz(bytes);
}

/// Serves other nodes, which prove their keys, until the node drains.
pub fn serve_peers<A: Answer>(
    socket: tokio::net::TcpListener,
    answer: Arc<A>,
    config: rustls::ServerConfig,
    limits: &Limits,
    metrics: Arc<Metrics>,
    tasks: &Tasks,
) {
    serve_alone(socket, tcp::Transport::Tls(Arc::new(config).into(), None), answer, limits, metrics, tasks);
}

/// Serves HTTP/1.1 in cleartext to whom no client's counters and no client's drain concern, until these tasks drain.
pub(crate) fn serve_cleartext<A: Answer>(socket: tokio::net::TcpListener, answer: Arc<A>, limits: &Limits, tasks: &Tasks) {
    serve_alone(socket, tcp::Transport::Cleartext, answer, limits, Arc::default(), tasks);
}

/// Serves one socket, whose connections are counted by themselves.
fn serve_alone<A: Answer>(
    socket: tokio::net::TcpListener,
    transport: tcp::Transport,
    answer: Arc<A>,
    limits: &Limits,
    metrics: Arc<Metrics>,
    tasks: &Tasks,
) {
    let admission = admission::Admission::new(limits, Vec::new());
    let shared = Arc::new(Shared { answer, limits: limits.clone(), admission, metrics, tasks: tasks.clone() });
    tasks.spawn(tcp::accept(socket, transport, shared));
}

fn bind_both(address: SocketAddr) -> io::Result<(tokio::net::TcpListener, std::net::UdpSocket)> {
    let mut attempts = if address.port() == 0 { limits::BIND_ATTEMPTS } else { 1 };
    loop {
        let tcp = tcp::bind(address)?;
        match quic::bind(tcp.local_addr()?) {
            Ok(udp) => return Ok((tcp, udp)),
            Err(error) => {
                attempts -= 1;
                if attempts == 0 {
                    return Err(io::Error::new(error.kind(), format!("UDP: {error}")));
                }
            }
        }
    }
}

/// Looks at the certificate files until the node drains.
async fn refresh(certificates: Arc<Certificates>, tasks: Tasks) {
    let mut look = tokio::time::interval(limits::CERTIFICATE_POLL);
    while tasks.draining().run_until_cancelled(look.tick()).await.is_some() {
        let certificates = certificates.clone();
        let _ = tokio::task::spawn_blocking(move || certificates.refresh()).await;
    }
}

/// The addresses that a client may name when it connects to `listening`: for the local authority. An unspecified address stands for loopback and
/// the address that the machine uses towards the world (connecting a UDP socket sends nothing).
pub fn own_addresses(listening: SocketAddr) -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
    if !listening.ip().is_unspecified() {
        addresses.push(listening.ip().to_canonical());
    } else {
        // Documentation prefixes (RFC 5737, RFC 3849): never a host, always routed by the default route.
        for (from, to) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
            let outward = std::net::UdpSocket::bind(from).and_then(|socket| socket.connect(to).and_then(|()| socket.local_addr()));
            addresses.extend(outward.map(|address| address.ip()));
        }
    }
    addresses.sort();
    addresses.dedup();
    addresses
}
