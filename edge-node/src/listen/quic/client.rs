//! A small HTTP/3 client for tests.
#![cfg(test)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3::error::StreamError;
use http_body::Body;
use selvedge_runtime::BodyError;

/// One connection.
pub(crate) struct Client {
    pub(crate) quic: quinn::Connection,
    requests: SendRequest<h3_quinn::OpenStreams, Bytes>,
    _driver: tokio::task::JoinHandle<h3::error::ConnectionError>,
    _endpoint: quinn::Endpoint,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) interim: Vec<http::Response<()>>,
    pub(crate) head: http::Response<()>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// A connection whose streams nobody reads but the test.
    pub(crate) async fn without_h3(to: SocketAddr, tls: rustls::ClientConfig) -> quinn::Connection {
        Self::open(to, tls).await.0
    }

    async fn open(to: SocketAddr, tls: rustls::ClientConfig) -> (quinn::Connection, quinn::Endpoint) {
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        (endpoint.connect(to, "localhost").unwrap().await.unwrap(), endpoint)
    }

    pub(crate) async fn connect(to: SocketAddr, tls: rustls::ClientConfig) -> Self {
        let (quic, endpoint) = Self::open(to, tls).await;
        let (mut connection, requests) = h3::client::new(h3_quinn::Connection::new(quic.clone())).await.unwrap();
        let driver = tokio::spawn(async move { std::future::poll_fn(|cx| connection.poll_close(cx)).await });
        Self { quic, requests, _driver: driver, _endpoint: endpoint }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer, StreamError> {
        self.send("GET", path, &[], http_body_util::Empty::new().map_err_never()).await
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        mut body: impl Body<Data = Bytes, Error = BodyError> + Unpin,
    ) -> Result<Answer, StreamError> {
        let mut request = http::Request::builder().method(method).uri(format!("https://localhost{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let stream = self.requests.send_request(request.body(()).unwrap()).await?;
        let (mut sending, mut receiving) = stream.split();
        let sent = async {
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                // Fails where the server wants no more: its answer says why.
                if sending.send_data(frame.unwrap().into_data().unwrap()).await.is_err() {
                    return;
                }
            }
            let _ = sending.finish().await;
        };
        let received = async {
            let (mut interim, mut head) = (Vec::new(), receiving.recv_response().await?);
            while head.status().is_informational() {
                interim.push(std::mem::replace(&mut head, receiving.recv_response().await?));
            }
            let mut body = Vec::new();
            while let Some(mut piece) = receiving.recv_data().await? {
                body.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
            }
            Ok(Answer { interim, head, body })
        };
        futures::future::join(sent, received).await.1
    }
}

/// An empty body has no errors of its own.
trait NeverFails: Sized {
    fn map_err_never(self) -> http_body_util::combinators::MapErr<Self, fn(std::convert::Infallible) -> BodyError>;
}

impl NeverFails for http_body_util::Empty<Bytes> {
    fn map_err_never(self) -> http_body_util::combinators::MapErr<Self, fn(std::convert::Infallible) -> BodyError> {
        http_body_util::BodyExt::map_err(self, |never| match never {})
    }
}
