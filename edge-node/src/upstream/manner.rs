//! How the servers of an upstream are spoken to: the numbers and the TLS that their owner declared, and the node's own where it did not.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use selvedge_origin::registry::{Protocol, Upstream};
use selvedge_origin::tls::trust;
use tokio_rustls::TlsConnector;

use super::{UpstreamError, UpstreamsConfig, UpstreamsConfigError};

/// All that is asked of a connection and an exchange.
#[derive(Clone)]
pub(super) struct Manner {
    /// The name that TLS asks for, where it is not the address's.
    pub(super) server_name: Option<ServerName<'static>>,
    /// TLS, with the authorities that are trusted.
    pub(super) tls: TlsConnector,
    /// What is spoken.
    pub(super) protocol: Protocol,
    /// Time for a connection: name, TCP and TLS together.
    pub(super) connect_timeout: Duration,
    /// Time to the response's head.
    pub(super) head_timeout: Duration,
    /// Time without a byte of a response's body.
    pub(super) body_idle_timeout: Duration,
    /// Time that a connection is kept without a request. Zero: it serves one request.
    pub(super) idle_timeout: Duration,
    /// Requests that one connection serves.
    pub(super) requests_per_connection_max: u32,
    /// Requests in flight to one server.
    pub(super) requests_max: usize,
    /// Requests that wait beyond those.
    pub(super) queue_max: usize,
    /// Time that a request waits there.
    pub(super) queue_wait: Duration,
}

impl std::fmt::Debug for Manner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manner").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl Manner {
    /// The node's own: for workers' fetches, and for what an upstream's owner does not say.
    pub(super) fn usual(config: &UpstreamsConfig) -> Result<Self, UpstreamsConfigError> {
        let mut roots = public_roots();
        for authority in &config.authorities {
            roots.add(authority.clone()).map_err(|error| UpstreamsConfigError::Authority(error.to_string()))?;
        }
        Ok(Self {
            server_name: None,
            tls: connector(roots, Protocol::Auto).map_err(UpstreamsConfigError::Authority)?,
            protocol: Protocol::Auto,
            connect_timeout: config.connect_timeout,
            head_timeout: config.head_timeout,
            body_idle_timeout: config.body_idle_timeout,
            idle_timeout: config.idle_timeout,
            requests_per_connection_max: u32::MAX,
            requests_max: config.requests_per_upstream_max,
            queue_max: config.queue_per_upstream_max,
            queue_wait: config.queue_wait,
        })
    }

    /// What an owner declared; `self` for the rest. An error says what of the TLS cannot be used.
    pub(super) fn declared(&self, upstream: &Upstream, authorities: &[rustls_pki_types::CertificateDer<'static>]) -> Result<Self, String> {
        let ms = |declared: Option<u32>, usual: Duration| declared.map_or(usual, |ms| Duration::from_millis(ms.into()));
        let count = |declared: Option<u32>, usual: usize| declared.map_or(usual, |count| usize::try_from(count).unwrap_or(usize::MAX));
        let tls = match &upstream.authority {
            Some(pem) => connector(trust(pem)?, upstream.protocol)?,
            None if upstream.protocol == Protocol::Auto => self.tls.clone(),
            None => {
                let mut roots = public_roots();
                for authority in authorities {
                    roots.add(authority.clone()).map_err(|error| error.to_string())?;
                }
                connector(roots, upstream.protocol)?
            }
        };
        let server_name = upstream.server_name.clone().map(ServerName::try_from).transpose().map_err(|error| error.to_string())?;
        Ok(Self {
            server_name,
            tls,
            protocol: upstream.protocol,
            connect_timeout: ms(upstream.connect_timeout_ms, self.connect_timeout),
            head_timeout: ms(upstream.head_timeout_ms, self.head_timeout),
            body_idle_timeout: ms(upstream.body_idle_timeout_ms, self.body_idle_timeout),
            idle_timeout: ms(upstream.keep_alive.idle_ms, self.idle_timeout),
            requests_per_connection_max: upstream.keep_alive.requests_max.unwrap_or(self.requests_per_connection_max),
            requests_max: count(upstream.requests_max, self.requests_max),
            queue_max: count(upstream.queue_max, self.queue_max),
            queue_wait: ms(upstream.queue_wait_ms, self.queue_wait),
        })
    }

    /// The error where a connection took too long.
    pub(super) fn connect_timed_out(&self, host: &str) -> UpstreamError {
        UpstreamError::ConnectTimeout { host: host.to_owned(), ms: self.connect_timeout.as_millis() as u64 }
    }
}

fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn connector(roots: RootCertStore, protocol: Protocol) -> Result<TlsConnector, String> {
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (h1, h2) = (b"http/1.1".to_vec(), b"h2".to_vec());
    tls.alpn_protocols = match protocol {
        Protocol::Auto => vec![h2, h1],
        Protocol::H1 => vec![h1],
        Protocol::H2 => vec![h2],
    };
    Ok(TlsConnector::from(Arc::new(tls)))
}
