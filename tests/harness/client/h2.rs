//! HTTP/2 over TLS, and in cleartext with prior knowledge.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use ::h2::client::SendRequest;
use bytes::{Bytes, BytesMut};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{Answer, tls};

/// A connection that can be used again.
pub struct H2Connection {
    sender: SendRequest<Bytes>,
    scheme: &'static str,
}

impl H2Connection {
    /// Connects over TLS, asking for `name`.
    pub async fn open(address: SocketAddr, name: &str) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls::anyone(b"h2"))).connect(name.to_owned().try_into()?, socket).await?;
        anyhow::ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "the server does not choose h2");
        Self::over(stream, "https").await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, scheme: &'static str) -> anyhow::Result<Self> {
        let (sender, connection) = ::h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        Ok(Self { sender, scheme })
    }

    /// One request; the answer is read whole.
    pub async fn send(&mut self, request: Request<Bytes>) -> anyhow::Result<Answer> {
        let (mut parts, body) = request.into_parts();
        let mut uri = parts.uri.into_parts();
        uri.scheme = Some(self.scheme.parse()?);
        parts.uri = http::Uri::from_parts(uri)?;
        let mut sender = self.sender.clone().ready().await?;
        let (mut answer, mut stream) = sender.send_request(Request::from_parts(parts, ()), body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(body, true)?;
        }
        let mut interim = Vec::new();
        while let Some(head) = poll_fn(|cx| answer.poll_informational(cx)).await {
            let head = head?;
            interim.push((head.status().as_u16(), head.headers().clone()));
        }
        let (parts, mut receiving) = answer.await?.into_parts();
        let mut body = BytesMut::new();
        while let Some(data) = receiving.data().await {
            let data = data?;
            receiving.flow_control().release_capacity(data.len())?;
            body.extend_from_slice(&data);
        }
        Ok(Answer { interim, status: parts.status.as_u16(), headers: parts.headers, body: body.freeze() })
    }
}

/// One request over TLS.
pub async fn exchange(address: SocketAddr, request: Request<Bytes>) -> anyhow::Result<Answer> {
    let name = request.uri().host().unwrap_or("localhost").to_owned();
    H2Connection::open(address, &name).await?.send(request).await
}

/// One request in cleartext.
pub async fn prior_knowledge(address: SocketAddr, request: Request<Bytes>) -> anyhow::Result<Answer> {
    H2Connection::over(TcpStream::connect(address).await?, "http").await?.send(request).await
}
