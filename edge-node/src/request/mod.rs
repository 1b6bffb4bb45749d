//! Stage 2, ANSWER: the whole path of a request on one screen.

use std::sync::Arc;

use selvedge_runtime::Body;

use crate::listen::Connection;

/// Answers requests of every listener. Built once by `node.rs`.
pub struct RequestPath {}

impl RequestPath {
    /// Answers one request; never fails: errors become responses here. The URI is absolute or origin-form with a Host field, as the listener
    /// got it. Dropping the future cancels the work.
    pub async fn serve(&self, request: http::Request<Body>, connection: &Arc<Connection>) -> http::Response<Body> {
        let _ = (request, connection);
        http::Response::new(Body::empty())
    }
}
