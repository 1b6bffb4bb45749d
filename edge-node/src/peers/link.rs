//! One connection to a peer: HTTP/2, made when it is first needed, used by all, made again after it broke. A peer that cannot be reached, or that does not answer a
//! ping, is left alone for a while: whoever would have asked it asks the upstream.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use selvedge_origin::keys::PublicKey;
use selvedge_origin::registry::NodeName;
use selvedge_runtime::{Body, BodyError};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::choose;
use super::tls::{self, Proof};
use crate::limits::{HEADER_LIST_BYTES_MAX, PEER_CONNECT_TIMEOUT, PEER_PING_INTERVAL, PEER_PING_TIMEOUT, PEER_REQUESTS_MAX, PEER_REST};
use crate::upstream::http2::{self, Bounds, Http2, Incoming};
use crate::upstream::{Outgoing, Transport};

/// Another node of the region.
pub struct Peer {
    pub(super) name: NodeName,
    /// Its part of every rank, see [`choose`].
    pub(super) score: u64,
    address: SocketAddr,
    key: PublicKey,
    connection: tokio::sync::Mutex<Option<Arc<Http2>>>,
    places: Arc<Semaphore>,
    /// It is not asked until then.
    rests_until: Mutex<Option<Instant>>,
}

/// Why a peer gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// This node has no identity yet.
    #[error("this node has not joined")]
    NotJoined,
    /// As many requests as it takes are under way.
    #[error("too many requests to it are under way")]
    Busy,
    /// No connection, or not in time.
    #[error("no connection: {0}")]
    Connect(String),
    /// The connection broke, or it gave no head in time.
    #[error("no answer: {0}")]
    Answer(String),
}

impl Peer {
    pub(super) fn new(name: NodeName, address: SocketAddr, key: PublicKey) -> Self {
        Self {
            score: choose::node(name.as_str()),
            name,
            address,
            key,
            connection: tokio::sync::Mutex::new(None),
            places: Arc::new(Semaphore::new(PEER_REQUESTS_MAX)),
            rests_until: Mutex::new(None),
        }
    }

    pub(super) fn is(&self, name: &NodeName, address: SocketAddr, key: &PublicKey) -> bool {
        self.name == *name && self.address == address && self.key == *key
    }

    /// Its name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Whether it is asked now.
    pub(super) fn is_usable(&self) -> bool {
        self.rests_until.lock().is_none_or(|until| Instant::now() >= until)
    }

    fn rest(&self) {
        *self.rests_until.lock() = Some(Instant::now() + PEER_REST);
    }

    pub(super) async fn ask(&self, proof: &Proof, request: Request<()>, patience: Duration) -> Result<Response<Body>, AskError> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| AskError::Busy)?;
        let connection = self.connection(proof).await?;
        let asked = http2::ask(&connection, request.map(|()| Outgoing::none()), patience);
        let failed = match tokio::time::timeout(patience, asked).await {
            Ok(Ok(response)) => return Ok(response.map(|body| Body::stream(Answer { body, _connection: connection, _place: place }))),
            Ok(Err(lost)) => lost.error.to_string(),
            Err(_) => format!("none within {patience:?}"),
        };
        // A stream that was refused says nothing of the peer; a connection that is gone does.
        if connection.is_closed() {
            self.rest();
        }
        Err(AskError::Answer(failed))
    }

    /// The connection that is open, or a new one.
    async fn connection(&self, proof: &Proof) -> Result<Arc<Http2>, AskError> {
        let mut kept = self.connection.lock().await;
        if let Some(open) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(open.clone());
        }
        // Others waited for the attempt that failed.
        if !self.is_usable() {
            return Err(AskError::Connect("it could not be reached a moment ago".into()));
        }
        let connected = tokio::time::timeout(PEER_CONNECT_TIMEOUT, self.connect(proof)).await;
        let connected = connected.unwrap_or_else(|_| Err(AskError::Connect(format!("none within {PEER_CONNECT_TIMEOUT:?}"))));
        // Before the next one has its turn.
        let connection = connected.inspect_err(|_| self.rest())?;
        *kept = Some(connection.clone());
        Ok(connection)
    }

    async fn connect(&self, proof: &Proof) -> Result<Arc<Http2>, AskError> {
        const BOUNDS: Bounds =
            Bounds { header_list_bytes_max: HEADER_LIST_BYTES_MAX, ping_interval: PEER_PING_INTERVAL, ping_timeout: PEER_PING_TIMEOUT };
        let failed = |reason: &dyn std::fmt::Display| AskError::Connect(format!("{}: {reason}", self.address));
        let config = tls::client(proof, self.key).map_err(|error| failed(&error))?;
        let tcp = TcpStream::connect(self.address).await.map_err(|error| failed(&error))?;
        let _ = tcp.set_nodelay(true);
        // Raw keys have no names: it is only there to be sent.
        let name = ServerName::try_from("peer.selvedge.internal").map_err(|error| failed(&error))?;
        let transport = Transport::to_peer(tcp, TlsConnector::from(Arc::new(config)), name).await.map_err(|error| failed(&error))?;
        Http2::begin(transport, BOUNDS, ()).await.map_err(|error| failed(&error))
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

/// The body of a peer's answer; its place is free once it ends.
struct Answer {
    body: Incoming,
    _connection: Arc<Http2>,
    _place: OwnedSemaphorePermit,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Aborted(format!("the peer's answer broke off: {error}")))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
