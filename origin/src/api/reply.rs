//! Answers: JSON, and the one table that chooses a status for an error.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use serde::Serialize;

use super::wire::ErrorReply;
use crate::ledger::{LedgerError, seconds};
use crate::registry::{BadName, Refusal};
use crate::store::StoreError;

/// The body of every answer.
pub(super) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;
/// What every endpoint gives.
pub(super) type Answer = Result<Response<Body>, ApiError>;

/// Why a request is not answered as it wishes.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("there is nothing at this path")]
    NoEndpoint,
    #[error("this path knows other methods only")]
    Method,
    #[error("{0}")]
    Malformed(String),
    #[error("the body has more than {bytes_max} bytes")]
    BodyTooLarge { bytes_max: usize },
    #[error("the body came too slowly")]
    BodyTimeout,
    #[error("the path is longer than {} bytes", crate::limits::REQUEST_TARGET_BYTES_MAX)]
    TargetTooLong,
    #[error("the head has more than {} bytes", crate::limits::REQUEST_HEAD_BYTES_MAX)]
    HeadTooLarge,
    #[error("{0}")]
    Unauthorized(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("there is no blob {0}")]
    NoBlob(crate::registry::Digest),
    #[error("the bundle is not complete: {0}")]
    Incomplete(String),
    #[error("the bundle is refused: {0}")]
    BadBundle(String),
    #[error("too many requests at once")]
    Overloaded,
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<BadName> for ApiError {
    fn from(error: BadName) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Ledger(error.into())
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::Ledger(refusal.into())
    }
}

impl ApiError {
    /// Status, stable code, and what to try.
    fn table(&self) -> (StatusCode, &'static str, Option<String>) {
        let hint = |text: &str| Some(text.to_owned());
        match self {
            Self::NoEndpoint => (StatusCode::NOT_FOUND, "no_endpoint", hint("do client and registry run the same release?")),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method", None),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed", None),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", None),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body_timeout", None),
            Self::TargetTooLong => (StatusCode::URI_TOO_LONG, "target_too_long", None),
            Self::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", None),
            Self::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "unauthorized", hint("is the token file of this registry?")),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", None),
            Self::NoBlob(_) => (StatusCode::NOT_FOUND, "no_blob", None),
            Self::Incomplete(_) => (StatusCode::CONFLICT, "bundle_incomplete", hint("upload its blobs first")),
            Self::BadBundle(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_bundle", None),
            Self::Ledger(LedgerError::Quota { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, "quota", hint("purge a prefix, a host or a tag instead of many URLs"))
            }
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", hint("try again in a moment")),
            Self::Ledger(LedgerError::Refused(refusal)) => (status_of(refusal), refusal.code(), refusal.hint()),
            Self::Ledger(LedgerError::RequestReused(_)) => (StatusCode::CONFLICT, "request_reused", None),
            Self::Ledger(LedgerError::Store(StoreError::Busy | StoreError::HeadMoved { .. })) => {
                (StatusCode::SERVICE_UNAVAILABLE, "busy", hint("try again in a moment"))
            }
            Self::Ledger(LedgerError::Store(StoreError::Digest { .. })) => (StatusCode::UNPROCESSABLE_ENTITY, "digest", None),
            Self::Ledger(LedgerError::Store(StoreError::Engine(_)) | LedgerError::State(_) | LedgerError::Internal(_)) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", hint("the registry's log says more"))
            }
        }
    }

    /// The answer. What is our fault is logged here, and not shown.
    pub(super) fn respond(&self) -> Response<Body> {
        let (status, code, hint) = self.table();
        let message = if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, "a request failed");
            "the registry failed".to_owned()
        } else {
            self.to_string()
        };
        let mut response = json(status, &ErrorReply { code: code.to_owned(), message, hint });
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 11.6.1: a 401 names a scheme.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"selvedge\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Self::Ledger(LedgerError::Quota { retry_after }) = self {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds(retry_after)));
        }
        response
    }
}

fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::NoWorker { .. } | Refusal::NoVersion { .. } | Refusal::NoNode { .. } => StatusCode::NOT_FOUND,
        Refusal::NoDeployment { .. }
        | Refusal::NothingBefore { .. }
        | Refusal::RouteOwned { .. }
        | Refusal::RouteWorker { .. }
        | Refusal::WorkerInUse { .. }
        | Refusal::NodeNameTaken { .. }
        | Refusal::NodeKeyTaken { .. } => StatusCode::CONFLICT,
        Refusal::NodeRevoked { .. } => StatusCode::FORBIDDEN,
        Refusal::Value { .. } | Refusal::Limit { .. } | Refusal::RouteTwice { .. } | Refusal::Pattern { .. } => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
    }
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    // Wire types are structs of strings, numbers and lists: serde_json fails on none of them.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    whole(status, "application/json", bytes.into())
}

/// A JSON answer with status 200.
pub(super) fn ok(value: &impl Serialize) -> Answer {
    Ok(json(StatusCode::OK, value))
}

/// An answer that comes in pieces, of `length` bytes where that is known.
pub(super) fn streamed<S>(content_type: &'static str, length: Option<u64>, pieces: S) -> Response<Body>
where
    S: futures::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + Send + 'static,
{
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response
}

/// An answer whose bytes are all here.
pub(super) fn whole(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Tokens open this API; nothing of it belongs into a cache.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
