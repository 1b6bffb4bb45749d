//! HTTP/2 over TLS, and in cleartext with prior knowledge.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{Answer, tls};

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    scheme: &str,
    request: Request<Bytes>,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (mut parts, body) = request.into_parts();
    let mut uri = parts.uri.into_parts();
    uri.scheme = Some(scheme.parse()?);
    parts.uri = http::Uri::from_parts(uri)?;
    let (parts, body) = sender.send_request(Request::from_parts(parts, Full::new(body))).await?.into_parts();
    Ok(Answer { interim: Vec::new(), status: parts.status.as_u16(), headers: parts.headers, body: body.collect().await?.to_bytes() })
}

/// One request over TLS.
pub async fn exchange(address: SocketAddr, request: Request<Bytes>) -> anyhow::Result<Answer> {
    let name = request.uri().host().unwrap_or("localhost").to_owned();
    let socket = TcpStream::connect(address).await?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls::anyone(b"h2"))).connect(name.try_into()?, socket).await?;
    anyhow::ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "the server does not choose h2");
    over(stream, "https", request).await
}

/// One request in cleartext.
pub async fn prior_knowledge(address: SocketAddr, request: Request<Bytes>) -> anyhow::Result<Answer> {
    over(TcpStream::connect(address).await?, "http", request).await
}
