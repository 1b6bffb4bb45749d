//! What a listener gets for a request: a response that was made for it, or a stored one as it is.

use http::{Response, StatusCode};
use selvedge_runtime::Body;

use crate::cache::ready::Ready;

/// An answer.
#[derive(Debug)]
pub enum Reply {
    /// Made for this request.
    Made(Response<Body>),
    /// Stored; its head need not be made again.
    Ready(Ready),
}

impl Reply {
    /// Its status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Made(response) => response.status(),
            Self::Ready(ready) => ready.status(),
        }
    }

    /// As a response like any other.
    pub fn into_response(self) -> Response<Body> {
        match self {
            Self::Made(response) => response,
            Self::Ready(ready) => ready.into_response(),
        }
    }
}

impl From<Response<Body>> for Reply {
    fn from(response: Response<Body>) -> Self {
        Self::Made(response)
    }
}

impl From<Ready> for Reply {
    fn from(ready: Ready) -> Self {
        Self::Ready(ready)
    }
}
