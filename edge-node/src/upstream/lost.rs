//! Why an exchange gave no head: what the error is called, and whether the upstream may have looked at the request.

use std::error::Error;

use super::UpstreamError;
use super::body::Progress;
use super::pool::Lease;

/// What a connection says of it.
pub(super) enum Lost {
    /// HTTP/1.1
    Http1(hyper::Error),
    /// HTTP/2
    Http2(h2::Error),
}

impl Lost {
    /// The connection went before it gave an answer: an open one that the upstream had closed meanwhile, or was about to.
    pub(super) fn is_before_answer(&self, lease: &Lease) -> bool {
        match self {
            // RFC 9113, section 8.7: a refused stream, and one beyond a GOAWAY, were not processed.
            Self::Http2(error) => error.reason() == Some(h2::Reason::REFUSED_STREAM) || error.is_go_away() || error.is_io(),
            Self::Http1(error) => !error.is_parse() && !error.is_user() && !lease.has_received(),
        }
    }

    /// As an error of the upstream, or of whoever sends the request's body.
    pub(super) fn describe(self, host: &str, progress: &Progress) -> UpstreamError {
        let host = host.to_owned();
        if let Some(error) = progress.failed.lock().take() {
            return UpstreamError::RequestBody { host, error };
        }
        let (error, broken): (&dyn Error, bool) = match &self {
            Self::Http1(error) => (error, error.is_parse()),
            Self::Http2(error) => (error, !error.is_io() && !error.is_go_away()),
        };
        let reason = told(error);
        if broken { UpstreamError::Protocol { host, reason } } else { UpstreamError::Terminated { host, reason } }
    }
}

/// The text of an error, and of what is behind it.
pub(super) fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
