//! An HTTP/3 client for one node, which trusts the node's own authority and nobody else.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::{Buf, Bytes, BytesMut};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::{HeaderMap, Request};
use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::limits::{DEMO_ANSWER_TIMEOUT, DEMO_BODY_BYTES_MAX};

/// A connection to a node.
pub(super) struct Connection {
    sender: SendRequest<OpenStreams, Bytes>,
    address: SocketAddr,
    _endpoint: quinn::Endpoint,
}

/// A whole answer.
pub(super) struct Answer {
    /// Its status.
    pub(super) status: u16,
    /// Its fields.
    pub(super) headers: HeaderMap,
    /// Its body.
    pub(super) body: Bytes,
    /// From sending the request to the end of the answer.
    pub(super) time: Duration,
}

impl Connection {
    /// Connects to a node as a client of `name`, whose certificate must come from the authority in the file.
    pub(super) async fn open(address: SocketAddr, name: &str, authority: &Path) -> anyhow::Result<Self> {
        let open = async {
            let mut endpoint = quinn::Endpoint::client(SocketAddr::new(address.ip(), 0)).context("a UDP socket")?;
            endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls(authority)?)?)));
            let connection = endpoint.connect(address, name)?.await?;
            let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
            // Ends with the connection.
            tokio::spawn(async move { drop(driver.wait_idle().await) });
            Ok::<_, anyhow::Error>(Self { sender, address, _endpoint: endpoint })
        };
        let failed = || format!("connecting to {name} at {address} over HTTP/3");
        tokio::time::timeout(DEMO_ANSWER_TIMEOUT, open).await.with_context(failed)?.with_context(failed)
    }

    /// Gets a path of `host`.
    pub(super) async fn get(&mut self, host: &str, path: &str) -> anyhow::Result<Answer> {
        let uri = format!("https://{host}:{}{path}", self.address.port());
        let request = Request::get(&uri).body(())?;
        let ask = async {
            let start = Instant::now();
            let mut stream = self.sender.send_request(request).await?;
            stream.finish().await?;
            let (head, ()) = stream.recv_response().await?.into_parts();
            let mut body = BytesMut::new();
            while let Some(mut chunk) = stream.recv_data().await? {
                body.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
                anyhow::ensure!(body.len() <= DEMO_BODY_BYTES_MAX, "more than {DEMO_BODY_BYTES_MAX} bytes");
            }
            Ok::<_, anyhow::Error>(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.freeze(),
                time: start.elapsed(),
            })
        };
        tokio::time::timeout(DEMO_ANSWER_TIMEOUT, ask).await.with_context(|| uri.clone())?.with_context(|| uri)
    }
}

fn tls(authority: &Path) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority).with_context(|| authority.display().to_string())?;
    roots.add(certificate)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h3".to_vec()];
    Ok(config)
}
