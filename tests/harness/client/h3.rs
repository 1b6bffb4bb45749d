//! HTTP/3 over QUIC.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::Request;
use quinn::crypto::rustls::QuicClientConfig;

use super::{Answer, tls};

/// A connection that can be used again. Closed when dropped.
pub struct H3Connection {
    sender: SendRequest<OpenStreams, Bytes>,
    /// The QUIC connection, for tests that look beneath.
    pub quic: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

impl H3Connection {
    /// Connects, asking for `name`.
    pub async fn open(address: SocketAddr, name: &str) -> anyhow::Result<Self> {
        let bind: SocketAddr = if address.is_ipv4() { "127.0.0.1:0".parse()? } else { "[::1]:0".parse()? };
        let mut endpoint = quinn::Endpoint::client(bind)?;
        let config = QuicClientConfig::try_from(tls::anyone(b"h3"))?;
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(config)));
        let quic = endpoint.connect(address, name)?.await?;
        let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(quic.clone())).await?;
        tokio::spawn(async move { driver.wait_idle().await });
        Ok(Self { sender, quic, _endpoint: endpoint })
    }

    /// One request; the answer is read whole.
    pub async fn send(&mut self, request: Request<Bytes>) -> anyhow::Result<Answer> {
        let (mut parts, body) = request.into_parts();
        let mut uri = parts.uri.into_parts();
        uri.scheme = Some("https".parse()?);
        parts.uri = http::Uri::from_parts(uri)?;
        // Both directions at one time: a server that streams the body back fills our window while it reads.
        let (mut sending, mut receiving) = self.sender.send_request(Request::from_parts(parts, ())).await?.split();
        let send = async {
            if !body.is_empty() {
                sending.send_data(body).await?;
            }
            sending.finish().await
        };
        let receive = async {
            let mut interim = Vec::new();
            let parts = loop {
                let (parts, ()) = receiving.recv_response().await?.into_parts();
                if !parts.status.is_informational() {
                    break parts;
                }
                interim.push((parts.status.as_u16(), parts.headers));
            };
            let mut body = bytes::BytesMut::new();
            while let Some(mut chunk) = receiving.recv_data().await? {
                body.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
            }
            Ok(Answer { interim, status: parts.status.as_u16(), headers: parts.headers, body: body.freeze() })
        };
        // A server may answer without reading on (413): then the answer counts, not that sending failed.
        let (_, answer) = tokio::join!(send, receive);
        answer
    }
}

/// One request on a connection of its own.
pub async fn exchange(address: SocketAddr, request: Request<Bytes>) -> anyhow::Result<Answer> {
    let name = request.uri().host().unwrap_or("localhost").to_owned();
    H3Connection::open(address, &name).await?.send(request).await
}
