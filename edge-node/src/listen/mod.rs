//! Stage 1, ACCEPT: connections of three protocols become requests of one kind.

use std::future::Future;
use std::sync::Arc;

use selvedge_runtime::Body;

mod connection;
mod refusal;
mod tls;

pub use connection::{Connection, Protocol, TlsInfo};
pub use refusal::Refusal;
pub use tls::{CertificateError, check_certificate};

/// What stands behind the listeners: [`crate::request::RequestPath`], or a small one in a test.
pub trait Answer: Send + Sync + 'static {
    /// Answers a request; its URI is absolute, its authority is valid and equals its Host field where there is one. Dropping the future, or the
    /// response's body before its end, cancels the work.
    fn answer(&self, request: http::Request<Body>, connection: &Arc<Connection>) -> impl Future<Output = http::Response<Body>> + Send;

    /// The answer to what is not a request. The connection is closed after it on HTTP/1.1.
    fn refuse(&self, refusal: Refusal, connection: &Arc<Connection>) -> http::Response<Body>;
}
