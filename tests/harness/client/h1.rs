//! HTTP/1.1 in cleartext and over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{Answer, tls};

/// A connection that can be used again.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// Connects in cleartext.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Self::over(socket).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> anyhow::Result<Self> {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// One request; the answer is read whole.
    pub async fn send(&mut self, request: Request<Bytes>) -> anyhow::Result<Answer> {
        let (mut parts, body) = request.into_parts();
        let authority = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
        parts.headers.entry("host").or_insert(authority.parse()?);
        parts.uri = parts.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
        self.0.ready().await?;
        let mut request = Request::from_parts(parts, Full::new(body));
        let (seen, interim) = std::sync::mpsc::channel();
        hyper::ext::on_informational(&mut request, move |head| drop(seen.send((head.status().as_u16(), head.headers().clone()))));
        let (parts, body) = self.0.send_request(request).await?.into_parts();
        let (interim, body) = (interim.try_iter().collect(), body.collect().await?.to_bytes());
        Ok(Answer { interim, status: parts.status.as_u16(), headers: parts.headers, body })
    }
}

/// One request on a cleartext connection of its own.
pub async fn exchange(address: SocketAddr, request: Request<Bytes>) -> anyhow::Result<Answer> {
    Connection::open(address).await?.send(request).await
}

/// One request over TLS.
pub async fn exchange_tls(address: SocketAddr, request: Request<Bytes>) -> anyhow::Result<Answer> {
    let name = request.uri().host().unwrap_or("localhost").to_owned();
    let socket = TcpStream::connect(address).await?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls::anyone(b"http/1.1"))).connect(name.try_into()?, socket).await?;
    Connection::over(stream).await?.send(request).await
}
