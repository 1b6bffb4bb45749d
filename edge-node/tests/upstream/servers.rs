//! Servers that the tests talk to, on ports that the kernel chooses.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use selvedge_edge::Body;
use selvedge_edge::upstream::{Reach, UpstreamError, Upstreams, UpstreamsConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Upstreams with these bounds.
pub(crate) fn upstreams(config: UpstreamsConfig) -> Upstreams {
    Upstreams::new(config).expect("a configuration that works")
}

/// A request without a body.
pub(crate) fn get(url: impl AsRef<str>) -> Request<Body> {
    Request::builder().uri(url.as_ref()).body(Body::empty()).expect("a request")
}

/// A request with a body.
pub(crate) fn post(url: impl AsRef<str>, body: Body) -> Request<Body> {
    Request::builder().method("POST").uri(url.as_ref()).body(body).expect("a request")
}

/// Sends as the operator, and reads the whole answer.
pub(crate) async fn fetch(upstreams: &Upstreams, request: Request<Body>) -> Result<(http::StatusCode, String), UpstreamError> {
    let response = upstreams.send(request, Reach::Operator).await?;
    let status = response.status();
    let body = response.into_body().collect(1 << 20).await.expect("a whole body");
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// A server that answers each connection with `serve(its number from 1, stream)`.
pub(crate) async fn raw<F, S>(serve: S) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send,
    S: Fn(usize, TcpStream) -> F + Send + Sync + Clone + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let serve = serve.clone();
            tokio::spawn(async move { serve(number, stream).await });
        }
    });
    (address, count)
}

/// Reads one request head, and gives it; empty at the connection's end.
pub(crate) async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return String::new(),
        }
    }
    String::from_utf8(head).expect("text")
}

/// A server that answers every request of every connection with the same bytes.
pub(crate) async fn scripted(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    raw(move |_, mut stream| async move {
        while !head(&mut stream).await.is_empty() {
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// The body of a hyper server's answers.
pub(crate) type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A whole body.
pub(crate) fn whole(text: impl Into<Bytes>) -> BoxBody<Bytes, hyper::Error> {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A certificate for `localhost`, made for this run.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(crate) fn new(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        Self { certificate: made.cert.der().clone(), key }
    }

    /// The certificate as PEM.
    pub(crate) fn pem(&self) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&self.certificate);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    pub(crate) fn acceptor(&self, alpn: &[&str]) -> tokio_rustls::TlsAcceptor {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .expect("a certificate and its key");
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    }
}

/// A TLS server that speaks what ALPN says; counts the connections whose handshake worked.
pub(crate) async fn secure<F, S>(identity: &Identity, alpn: &[&str], serve: S) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = Answer> + Send + 'static,
    S: Fn(Request<Incoming>) -> F + Send + Sync + Clone + 'static,
{
    let acceptor = identity.acceptor(alpn);
    let counted = Arc::new(AtomicUsize::new(0));
    let counter = counted.clone();
    let (address, _) = raw(move |_, stream| {
        let (acceptor, serve, counter) = (acceptor.clone(), serve.clone(), counter.clone());
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            counter.fetch_add(1, Ordering::SeqCst);
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let service = service_fn(move |request| {
                let answer = serve(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            if h2 {
                let _ =
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        }
    })
    .await;
    (address, counted)
}

/// A cleartext HTTP/1.1 server of hyper.
pub(crate) async fn plain<F, S>(serve: S) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = Answer> + Send + 'static,
    S: Fn(Request<Incoming>) -> F + Send + Sync + Clone + 'static,
{
    raw(move |_, stream| {
        let serve = serve.clone();
        async move {
            let service = service_fn(move |request| {
                let answer = serve(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}
