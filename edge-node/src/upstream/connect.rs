//! A connection to an upstream: resolve → check each address → race them → TLS. What comes out speaks HTTP/1.1 or HTTP/2.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use selvedge_origin::registry::Protocol;

use super::manner::Manner;
use super::policy::Policy;
use super::resolve::{self, Resolver};
use super::socket::{Look, Socket};
use super::{Reach, UpstreamError, UpstreamsConfig, UpstreamsConfigError, limits};

/// Where a request goes: what connections are shared by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Destination {
    /// TLS or not.
    pub secure: bool,
    /// Lower case, without a trailing dot; IPv6 addresses in brackets.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
    /// Who named it: connections that an operator's route may make must not serve a worker's fetch.
    pub reach: Reach,
}

/// What a connection speaks, by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

/// Makes connections.
pub(super) struct Connector {
    resolver: Resolver,
    policy: Policy,
}

impl Connector {
    /// Sets up resolver and policy.
    pub(super) fn new(config: &UpstreamsConfig) -> Result<Self, UpstreamsConfigError> {
        Ok(Self {
            resolver: Resolver::new(&config.resolvers).map_err(UpstreamsConfigError::Resolver)?,
            policy: Policy::new(config.fetch_allow.clone(), config.own_listeners.clone()),
        })
    }

    /// Connects within the manner's time. Cancel-safe: dropping the future closes what was opened.
    pub(super) async fn connect(&self, to: &Destination, manner: &Manner) -> Result<(Transport, Speaks), UpstreamError> {
        match tokio::time::timeout(manner.connect_timeout, self.connect_unbounded(to, manner)).await {
            Ok(result) => result,
            Err(_) => Err(manner.connect_timed_out(&to.host)),
        }
    }

    async fn connect_unbounded(&self, to: &Destination, manner: &Manner) -> Result<(Transport, Speaks), UpstreamError> {
        let addresses = self
            .resolver
            .resolve(&to.host)
            .await
            .map_err(|error| UpstreamError::Dns { host: to.host.to_string(), reason: error.to_string() })?;
        let addresses = self.within_reach(to, &addresses)?;
        let tcp = race(addresses).await.map_err(|error| UpstreamError::Connect { host: to.host.to_string(), reason: error.to_string() })?;
        let _ = tcp.set_nodelay(true);
        let socket = Socket::new(tcp);
        let look = socket.look();
        if !to.secure {
            // By prior knowledge, or not at all (RFC 9113, section 3.3).
            let speaks = if manner.protocol == Protocol::H2 { Speaks::Http2 } else { Speaks::Http1 };
            return Ok((Transport::new(Io::Plain(socket), look), speaks));
        }
        let tls_error = |reason: String| UpstreamError::Tls { host: to.host.to_string(), reason };
        let name = manner.server_name.clone().map_or_else(|| server_name(&to.host), Ok).map_err(tls_error)?;
        let stream = manner.tls.connect(name, socket).await.map_err(|error| tls_error(error.to_string()))?;
        let speaks = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Speaks::Http2,
            _ if manner.protocol == Protocol::H2 => return Err(tls_error("the server does not offer HTTP/2".to_owned())),
            _ => Speaks::Http1,
        };
        Ok((Transport::new(Io::Tls(Box::new(stream)), look), speaks))
    }

    /// The addresses that this destination may reach, with the port; an error where there is none.
    fn within_reach(&self, to: &Destination, addresses: &[IpAddr]) -> Result<Vec<SocketAddr>, UpstreamError> {
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in addresses {
            let target = SocketAddr::new(*address, to.port);
            match to.reach {
                Reach::Operator => allowed.push(target),
                Reach::Worker => match self.policy.check(target, is_of_this_machine) {
                    Ok(()) => allowed.push(target),
                    Err(refusal) => {
                        tracing::debug!(host = &*to.host, %address, ?refusal, "address refused");
                        refused = refused.or(Some(*address));
                    }
                },
            }
        }
        match (allowed.is_empty(), refused) {
            (true, Some(address)) => Err(UpstreamError::Prohibited { host: to.host.to_string(), address }),
            (true, None) => Err(UpstreamError::Dns { host: to.host.to_string(), reason: "no address".into() }),
            (false, _) => Ok(allowed),
        }
    }
}

/// The kernel routes to one of its own addresses from that same address. Nothing is sent by connecting a UDP socket.
fn is_of_this_machine(address: IpAddr) -> bool {
    if address.is_loopback() || address.is_unspecified() {
        return true;
    }
    let any: IpAddr = if address.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let source = std::net::UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

/// Happy eyeballs (RFC 8305, section 5): each attempt has a head start over the next; a failed one hands over at once; the first that
/// connects wins and the rest are dropped.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
    attempts.extend(waiting.next().map(attempt));
    while !attempts.is_empty() {
        let head_start = tokio::time::sleep(limits::ATTEMPT_DELAY);
        tokio::select! {
            biased;
            ended = attempts.next() => match ended {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => {
                    last_error = error;
                    attempts.extend(waiting.next().map(attempt));
                }
                None => break,
            },
            () = head_start, if waiting.len() > 0 => attempts.extend(waiting.next().map(attempt)),
        }
    }
    Err(last_error)
}

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address).await.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    match resolve::literal(host) {
        Some(address) => Ok(ServerName::IpAddress(address.into())),
        None => ServerName::try_from(host.to_owned()).map_err(|error| error.to_string()),
    }
}

/// A connected stream that counts the bytes it received: a connection that died without any was never answered on.
pub(crate) struct Transport {
    io: Io,
    received: Arc<AtomicU64>,
    look: Look,
}

enum Io {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Transport {
    fn new(io: Io, look: Look) -> Self {
        Self { io, received: Arc::default(), look }
    }

    /// Over TLS to another node, on a stream that is connected.
    pub(crate) async fn to_peer(tcp: TcpStream, tls: TlsConnector, name: ServerName<'static>) -> io::Result<Self> {
        let socket = Socket::new(tcp);
        let look = socket.look();
        Ok(Self::new(Io::Tls(Box::new(tls.connect(name, socket).await?)), look))
    }

    /// Has the next read ask the kernel.
    pub(super) fn look(&self) -> Look {
        self.look.clone()
    }

    /// Bytes received until now (of the plain text), as it rises.
    pub(super) fn received(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        });
        self.received.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(result)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
