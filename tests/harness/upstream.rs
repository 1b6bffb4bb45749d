//! A customer's server: counts what it is asked, and answers as the test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::task::{JoinHandle, JoinSet};

/// A running server on a loopback port. Stopped when dropped, with its connections.
pub struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Answers every request with what `answer` makes of it.
    pub async fn start(answer: impl Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(answer);
        let counter = asked.clone();
        let task = tokio::spawn(async move {
            // They end with it.
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let (answer, counter) = (answer.clone(), counter.clone());
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (answer, counter) = (answer.clone(), counter.clone());
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        counter.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, hyper::Error>(answer(Request::from_parts(parts, body)).map(Full::new))
                    }
                });
                connections.spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        Self { address, asked, task }
    }

    /// Its base address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}
