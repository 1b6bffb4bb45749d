//! A server with all listeners and a small answer behind them, and clients' TLS.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use selvedge_runtime::{Body, BodyError};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::client::TlsStream;

use crate::config::CertificateFiles;
use crate::limits::Limits;
use crate::listen::{Answer, Bound, Certificates, Connection, Interim, ListenConfig, Refusal, Reply};
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// No wait of a test lasts longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Answers by path.
#[derive(Default)]
pub(crate) struct Site {
    /// What was asked, in order.
    pub(crate) asked: parking_lot::Mutex<Vec<String>>,
    /// `/wait` has begun.
    pub(crate) waiting: Notify,
    /// Lets `/wait` go on.
    pub(crate) go: Semaphore0,
    /// A request or body was dropped before its end.
    pub(crate) cancelled: Notify,
    /// Requests for `/wait` that have not ended.
    pub(crate) held: AtomicUsize,
    /// Pieces of `/endless` that were asked for.
    pub(crate) pieces: AtomicUsize,
}

/// A semaphore of nothing to begin with.
pub(crate) struct Semaphore0(Semaphore);

impl Default for Semaphore0 {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Semaphore0 {
    pub(crate) fn open(&self) {
        self.0.add_permits(1);
    }

    async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }
}

struct Cancelled(Option<Arc<Site>>);

struct Held(Arc<Site>);

impl Held {
    fn new(site: &Arc<Site>) -> Self {
        site.held.fetch_add(1, Relaxed);
        Self(site.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let Some(site) = self.0.take() {
            site.cancelled.notify_one();
        }
    }
}

pub(crate) struct Behind(pub(crate) Arc<Site>);

impl Behind {
    async fn respond(&self, request: Request<Body>, connection: &Arc<Connection>, interim: Interim) -> Response<Body> {
        self.0.asked.lock().push(request.uri().to_string());
        match request.uri().path() {
            "/hello" => Response::new(Body::full("hello")),
            "/big" => Response::new(Body::full(vec![b'x'; 1 << 20])),
            "/uri" => Response::new(Body::full(format!("{} {}", request.uri(), connection.protocol.name()))),
            "/whole" => Response::new(Body::full(format!("{:?}", request.body().as_whole()))),
            "/echo" => Response::new(request.into_body()),
            "/count" => match request.into_body().collect(64 << 20).await {
                Ok(bytes) => Response::new(Body::full(bytes.len().to_string())),
                Err(error) => Response::builder().status(StatusCode::BAD_GATEWAY).body(Body::full(error.to_string())).unwrap(),
            },
            "/refuse" => Response::builder().status(StatusCode::PAYLOAD_TOO_LARGE).body(Body::full("too large")).unwrap(),
            "/cut" => Response::new(Body::chunks(futures::stream::iter([
                Ok(Bytes::from_static(b"half")),
                Err(BodyError::Worker(selvedge_runtime::Outcome::ExceededCpu)),
            ]))),
            "/panic" => {
                let pieces = futures::stream::iter(["half", ""])
                    .map(|piece| if piece.is_empty() { panic!("of a test") } else { Ok(Bytes::from(piece)) });
                Response::new(Body::chunks(pieces))
            }
            "/trailers" => {
                let trailers = [(http::header::ETAG, http::HeaderValue::from_static("late"))].into_iter().collect();
                let frames = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"short"))), Ok(Frame::trailers(trailers))]);
                let body = Body::stream(http_body_util::StreamBody::new(frames));
                Response::builder().header("content-length", "9").body(body).unwrap()
            }
            "/endless" => {
                let guard = Cancelled(Some(self.0.clone()));
                Response::new(Body::chunks(futures::stream::unfold(guard, |guard| async {
                    guard.0.as_ref()?.pieces.fetch_add(1, Relaxed);
                    Some((Ok(Bytes::from_static(&[b'.'; 4096])), guard))
                })))
            }
            "/longer" => sized("3", "longer"),
            "/shorter" => sized("9", "shorter"),
            "/late" => {
                // Reads on after it has answered.
                let (mut body, site) = (request.into_body(), self.0.clone());
                tokio::spawn(async move {
                    while let Some(Ok(_)) = std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await {
                        site.pieces.fetch_add(1, Relaxed);
                    }
                    site.cancelled.notify_one();
                });
                Response::new(Body::full("early"))
            }
            "/hints" => {
                let hint = |link| [(http::header::LINK, http::HeaderValue::from_static(link))].into_iter().collect();
                interim.send(StatusCode::EARLY_HINTS, hint("</first>"));
                tokio::task::yield_now().await;
                interim.send(StatusCode::EARLY_HINTS, hint("</second>"));
                Response::new(Body::full("hinted"))
            }
            "/stay" => stay(self.0.clone(), interim).await,
            "/wait" => {
                let mut guard = Cancelled(Some(self.0.clone()));
                let _held = Held::new(&self.0);
                self.0.waiting.notify_one();
                self.0.go.pass().await;
                guard.0 = None;
                Response::new(Body::full("waited"))
            }
            _ => Response::builder().status(StatusCode::NOT_FOUND).body(Body::empty()).unwrap(),
        }
    }
}

impl Answer for Behind {
    async fn answer(&self, request: Request<Body>, connection: &Arc<Connection>, interim: Interim) -> Reply {
        self.respond(request, connection, interim).await.into()
    }

    fn refuse(&self, refusal: Refusal, _: &Arc<Connection>) -> Response<Body> {
        Response::builder().status(StatusCode::BAD_REQUEST).header("x-refusal", refusal.name()).body(Body::empty()).unwrap()
    }
}

/// Never answers; something of it runs on when its client has left.
async fn stay(site: Arc<Site>, interim: Interim) -> Response<Body> {
    site.waiting.notify_one();
    tokio::spawn(async move {
        let _held = interim;
        site.go.pass().await;
    });
    std::future::pending().await
}

/// A response with a false length.
fn sized(length: &'static str, body: &'static str) -> Response<Body> {
    let body = Body::chunks(futures::stream::iter([Ok(Bytes::from_static(body.as_bytes()))]));
    Response::builder().header("content-length", length).body(body).unwrap()
}

/// All listeners on loopback, ports by the kernel.
pub(crate) struct Server {
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) site: Arc<Site>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: Tasks,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) data: tempfile::TempDir,
}

impl Server {
    /// Waits until its site holds no request.
    pub(crate) async fn holds_none(&self) {
        soon(async {
            while self.site.held.load(Relaxed) > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) fn start() -> Self {
        Self::with(Limits::default(), Vec::new())
    }

    pub(crate) fn with(limits: Limits, files: Vec<CertificateFiles>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let bound = Bound::bind(ListenConfig {
            https: Some(any),
            http: Some(any),
            peer: None,
            data: data.path().to_owned(),
            limits,
            trusted_proxies: Vec::new(),
        })
        .unwrap();
        let (https, http) = (bound.https().unwrap(), bound.http().unwrap());
        let routed = Arc::new(|name: &str| name == "routed.example");
        let addresses = crate::listen::own_addresses(https);
        let certificates = Arc::new(Certificates::open(files, data.path(), addresses, routed).unwrap());
        let (site, metrics, tasks) = (Arc::new(Site::default()), Arc::new(Metrics::default()), Tasks::new());
        bound.serve(Arc::new(Behind(site.clone())), certificates.clone(), metrics.clone(), &tasks).unwrap();
        Self { https, http, site, metrics, tasks, certificates, data }
    }

    /// A client that trusts this server's authority only.
    pub(crate) fn client_tls(&self, alpn: &[&[u8]]) -> rustls::ClientConfig {
        let authority = std::fs::read(self.data.path().join("authority/ca.pem")).unwrap();
        trusting(&authority, alpn)
    }

    pub(crate) async fn connect_tls(&self, name: &str, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
        connect_tls(self.https, name, self.client_tls(alpn)).await
    }
}

pub(crate) fn trusting(authority: &[u8], alpn: &[&[u8]]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

pub(crate) async fn connect_tls(to: SocketAddr, name: &str, tls: rustls::ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await
}

/// Everything of a body, or its error.
pub(crate) async fn all<B: http_body::Body<Data = Bytes> + Unpin>(mut body: B) -> Result<Vec<u8>, B::Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        bytes.extend_from_slice(&frame?.into_data().unwrap_or_default());
    }
    Ok(bytes)
}

/// A body of `pieces` pieces of `bytes` bytes.
pub(crate) fn pieces(pieces: usize, bytes: usize) -> impl http_body::Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static {
    let piece = Bytes::from(vec![b'p'; bytes]);
    http_body_util::StreamBody::new(futures::stream::iter((0..pieces).map(move |_| Ok(Frame::data(piece.clone())))))
}

/// The test fails where this takes too long.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}
