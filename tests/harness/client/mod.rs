//! Clients of every protocol: one request, one whole answer. Certificates are not checked here; a test that is about them brings its own.

mod h1;
mod h2;
mod h3;
mod tls;

pub use h1::{Connection, exchange, exchange_tls};
pub use h2::{H2Connection, exchange as exchange_h2, prior_knowledge as exchange_h2c};
pub use h3::{H3Connection, exchange as exchange_h3};
pub use tls::{anyone, certificate_of};

use std::net::SocketAddr;

use bytes::Bytes;

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Fields of the interim responses before it.
    pub interim: Vec<(u16, http::HeaderMap)>,
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub headers: http::HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A field as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A GET of `path` at `authority`.
pub fn get(authority: &str, path: &str) -> http::Request<Bytes> {
    request("GET", authority, path, Bytes::new())
}

/// A request with a whole body.
pub fn request(method: &str, authority: &str, path: &str, body: impl Into<Bytes>) -> http::Request<Bytes> {
    http::Request::builder()
        .method(method)
        .uri(format!("http://{authority}{path}"))
        .body(body.into())
        .expect("a test's own request is valid")
}

/// The protocols that a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// HTTP/1.1 in cleartext.
    Cleartext,
    /// HTTP/1.1 over TLS.
    H1,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/3.
    H3,
}

/// Sends one request over a protocol, on a connection of its own.
pub async fn send(over: Over, address: SocketAddr, request: http::Request<Bytes>) -> anyhow::Result<Answer> {
    match over {
        Over::Cleartext => exchange(address, request).await,
        Over::H1 => exchange_tls(address, request).await,
        Over::H2 => exchange_h2(address, request).await,
        Over::H3 => exchange_h3(address, request).await,
    }
}
