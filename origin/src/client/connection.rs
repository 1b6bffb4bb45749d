//! One HTTP/2 connection to a registry, made when it is needed and again after it broke. Cleartext is HTTP/2 with prior knowledge
//! (RFC 9113 section 3.3), and only to loopback addresses: tokens and secrets travel here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::{ClientError, Credential};
use crate::api::wire::ErrorReply;
use crate::limits::{CLIENT_CONNECT_TIMEOUT, FEED_SILENCE_MAX, NODE_CLOCK_SKEW};
use crate::registry::Digest;
use crate::tls;

/// Bytes of an error's body that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// One call.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Bytes,
    /// Fields beside `Authorization`.
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
}

/// A registry's address and the connection to it.
pub(super) struct Connection {
    url: String,
    authority: String,
    host: String,
    port: u16,
    tls: Option<Arc<rustls::ClientConfig>>,
    open: tokio::sync::Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Connection {
    pub(super) fn new(url: &str, pin: Option<Digest>) -> Result<Self, ClientError> {
        let bad = |reason| ClientError::Url { url: url.to_owned(), reason };
        let uri: Uri = url.parse().map_err(|_| bad("not a URL; it looks like https://origin.example.org:7070"))?;
        let authority = uri.authority().ok_or_else(|| bad("it needs a scheme and a host, as in https://HOST:PORT"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(bad("only scheme, host and port, as in https://HOST:PORT"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match uri.scheme_str() {
            Some("https") => Some(tls::client_config(pin).map_err(bad)?),
            Some("http") if is_loopback(&host) => None,
            Some("http") => return Err(bad("cleartext is for loopback addresses only: use https")),
            _ => return Err(bad("the scheme must be https, or http on a loopback address")),
        };
        let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let url = format!("{}://{authority}", uri.scheme_str().unwrap_or("https"));
        Ok(Self { url, authority: authority.to_string(), host, port, tls, open: tokio::sync::Mutex::new(None) })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Sends one call and gives the answer's head, with the body to come. Answers that are no success become errors.
    pub(super) async fn send(&self, credential: &Credential, call: Call, timeout: Duration) -> Result<Response<Incoming>, ClientError> {
        let work = async {
            let answer = match self.once(credential, &call).await {
                // The connection had died meanwhile: the call was not processed, a new connection may take it.
                Err(Unsent::Closed) => self.once(credential, &call).await,
                answer => answer,
            };
            let answer = answer.map_err(|unsent| match unsent {
                Unsent::Closed => ClientError::broken(&self.url, "closed twice before the call was sent"),
                Unsent::Failed(error) => error,
            })?;
            if answer.status().is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
        };
        tokio::time::timeout(timeout, work).await.map_err(|_| ClientError::timeout(&self.url, timeout))?
    }

    async fn once(&self, credential: &Credential, call: &Call) -> Result<Response<Incoming>, Unsent> {
        let mut sender = self.sender().await.map_err(Unsent::Failed)?;
        let request = self.request(credential, call).map_err(Unsent::Failed)?;
        match sender.send_request(request).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let never_sent = error.is_closed() || error.is_canceled();
                Err(if never_sent { Unsent::Closed } else { Unsent::Failed(ClientError::broken(&self.url, error)) })
            }
        }
    }

    fn request(&self, credential: &Credential, call: &Call) -> Result<Request<Full<Bytes>>, ClientError> {
        let authorization = match credential {
            Credential::Bearer(token) => format!("Bearer {}", token.secret()),
            Credential::Node(identity) => identity.authorization(call.method.as_str(), &call.path, &call.body, now_us()),
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{scheme}://{}{}", self.authority, call.path))
            .header(header::AUTHORIZATION, authorization);
        for (name, value) in &call.fields {
            request = request.header(name, value);
        }
        request.body(Full::new(call.body.clone())).map_err(|error| ClientError::protocol(&self.url, error))
    }

    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let mut open = self.open.lock().await;
        if let Some(sender) = open.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let connect = tokio::time::timeout(CLIENT_CONNECT_TIMEOUT, self.handshake()).await;
        let sender = connect.map_err(|_| ClientError::timeout(&self.url, CLIENT_CONNECT_TIMEOUT))??;
        *open = Some(sender.clone());
        Ok(sender)
    }

    async fn handshake(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let unreachable = |error: std::io::Error| ClientError::Connect { url: self.url.clone(), reason: error.to_string() };
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        match &self.tls {
            None => self.http2(TokioIo::new(stream)).await,
            Some(config) => {
                let name = rustls::pki_types::ServerName::try_from(self.host.clone())
                    .map_err(|_| ClientError::Url { url: self.url.clone(), reason: "the host is neither a name nor an address" })?;
                let connector = tokio_rustls::TlsConnector::from(config.clone());
                let stream = connector.connect(name, stream).await.map_err(|error| match error.kind() {
                    // What TLS itself found wrong; everything else is a connection that broke, as when a registry is started anew.
                    std::io::ErrorKind::InvalidData => ClientError::Tls { url: self.url.clone(), reason: error.to_string() },
                    _ => unreachable(error),
                })?;
                self.http2(TokioIo::new(stream)).await
            }
        }
    }

    async fn http2<I>(&self, io: I) -> Result<SendRequest<Full<Bytes>>, ClientError>
    where
        I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(FEED_SILENCE_MAX / 3))
            .keep_alive_timeout(FEED_SILENCE_MAX)
            .handshake(io)
            .await;
        let (sender, driver) = handshake.map_err(|error| ClientError::broken(&self.url, error))?;
        let url = self.url.clone();
        // Ends with the last clone of `sender`, or with the connection.
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(url, error = %error, "connection to the registry ended");
            }
        });
        Ok(sender)
    }

    async fn refusal(&self, answer: Response<Incoming>) -> ClientError {
        let status = answer.status();
        let reply = collect(&self.url, answer, ERROR_BYTES_MAX).await.ok().and_then(|body| serde_json::from_slice(&body).ok());
        let reply = reply.unwrap_or_else(|| ErrorReply { code: "unknown".to_owned(), message: format!("status {status}"), hint: None });
        ClientError::Refused { url: self.url.clone(), status: status.as_u16(), reply }
    }
}

enum Unsent {
    Closed,
    Failed(ClientError),
}

/// Reads a whole body of at most `bytes_max`.
pub(super) async fn collect(url: &str, answer: Response<Incoming>, bytes_max: usize) -> Result<Bytes, ClientError> {
    match Limited::new(answer.into_body(), bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ClientError::protocol(url, format!("an answer of more than {bytes_max} bytes")))
        }
        Err(error) => Err(ClientError::broken(url, error)),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The time, in microseconds since 1970; no two calls of this process give the same: the registry takes two requests of one time for one that is played again.
fn now_us() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_micros()).ok()).unwrap_or(0);
    LAST.fetch_update(Relaxed, Relaxed, |last| Some(later(last, now))).map_or(now, |last| later(last, now))
}

/// The time of the next request. A clock that is put back by a little is waited for, so that times only rise; after one that had run far ahead they begin anew:
/// the registry refuses what is far from its own clock, and knows each of the others that it has taken by its time.
fn later(last: u64, now: u64) -> u64 {
    let ahead_us = u128::from(last.saturating_sub(now));
    if ahead_us > (NODE_CLOCK_SKEW / 2).as_micros() { now } else { now.max(last.saturating_add(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_registry_that_goes_away_during_the_handshake_is_away_and_one_that_speaks_no_tls_cannot_prove_itself() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let connection = Connection::new(&url, Some(Digest::zero())).expect("a URL");
        for answer in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
            let server = async {
                let (mut stream, _) = listener.accept().await.expect("a client");
                // All of it, or its end would be a reset.
                let _ = stream.read(&mut [0; 4096]).await.expect("a hello");
                stream.write_all(answer).await.expect("sends");
            };
            let (failed, ()) = tokio::join!(connection.handshake(), server);
            let failed = failed.expect_err("no TLS");
            assert_eq!(matches!(failed, ClientError::Connect { .. }), answer.is_empty(), "{failed}");
            assert_eq!((failed.is_transient(), failed.is_transient_for_member()), (answer.is_empty(), true), "{failed}");
        }
    }

    #[test]
    fn no_two_requests_have_the_same_time() {
        let times: Vec<u64> = (0..10_000).map(|_| now_us()).collect();
        assert!(times.is_sorted_by(|one, other| one < other));
    }

    #[test]
    fn a_clock_that_ran_far_ahead_and_is_put_back_locks_nobody_out() {
        const SECOND: u64 = 1_000_000;
        let now = 1_000 * SECOND;
        assert_eq!(later(now - 1, now), now);
        assert_eq!(later(now + SECOND, now), now + SECOND + 1, "a little: it only rises");
        assert_eq!(later(now + 3_600 * SECOND, now), now);
        let mut last = now + NODE_CLOCK_SKEW.as_micros() as u64;
        for step in 0..10 {
            last = later(last, now + step);
            assert_eq!(last, now + step, "and goes on from there");
        }
    }
}
