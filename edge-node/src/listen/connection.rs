//! What a listener knows of a connection, and the rest of the path may ask.

use std::net::SocketAddr;
use std::sync::Arc;

use selvedge_origin::keys::PublicKey;

/// One client connection. Shared by its requests.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client's address as the socket shows it.
    pub peer: SocketAddr,
    /// How it speaks.
    pub protocol: Protocol,
    /// What TLS negotiated; none on cleartext.
    pub tls: Option<TlsInfo>,
}

/// An HTTP version on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
    /// HTTP/3
    Http3,
}

/// What TLS negotiated.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The name that the client asked for.
    pub server_name: Option<Arc<str>>,
    /// The key that another node has proved to hold; on the listener for peers only.
    pub node: Option<PublicKey>,
}

impl Protocol {
    /// As in `request.cf.httpProtocol` and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Http3 => "HTTP/3",
        }
    }
}
