//! TLS between the registry and its clients: the registry's own authority, and the pin by which clients know it.

mod authority;
mod files;
mod own;
mod pin;
mod trust;

pub(crate) use authority::TlsServer;
pub(crate) use files::FileCertificate;
pub(crate) use pin::client_config;
pub use trust::trust;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// HTTP/2 as ALPN names it.
pub(crate) const ALPN_H2: &[u8] = b"h2";
/// HTTP/1.1 as ALPN names it.
const ALPN_H1: &[u8] = b"http/1.1";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
