//! Bodies and queries of requests, read within bounds.

use std::str::FromStr;

use bytes::{Bytes, BytesMut};
use http::header;
use http::request::Parts;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Asked;
use super::reply::ApiError;
use crate::limits::{BODY_IDLE_TIMEOUT, BODY_TIMEOUT};

/// Reads a whole body, and holds its share of the memory for bodies as long as the permit lives.
pub(super) async fn read<'a>(
    memory: &'a Semaphore,
    head: &Parts,
    body: Incoming,
    bytes_max: usize,
) -> Result<(Bytes, Option<SemaphorePermit<'a>>), ApiError> {
    let declared = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let expected = declared.unwrap_or(if hyper::body::Body::is_end_stream(&body) { 0 } else { bytes_max });
    if expected > bytes_max || (bytes_max == 0 && !hyper::body::Body::is_end_stream(&body)) {
        return Err(ApiError::BodyTooLarge { bytes_max });
    }
    if expected == 0 {
        return Ok((Bytes::new(), None));
    }
    let kib = u32::try_from(expected.div_ceil(1024)).unwrap_or(u32::MAX);
    let permit = memory.try_acquire_many(kib).map_err(|_| ApiError::Overloaded)?;
    let whole = tokio::time::timeout(BODY_TIMEOUT, collect(body, bytes_max)).await.map_err(|_| ApiError::BodyTimeout)??;
    Ok((whole, Some(permit)))
}

async fn collect(mut body: Incoming, bytes_max: usize) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(BODY_IDLE_TIMEOUT, body.frame()).await.map_err(|_| ApiError::BodyTimeout)?;
        let Some(frame) = frame else { return Ok(whole.freeze()) };
        let frame = frame.map_err(|error| ApiError::Malformed(format!("the body ended early: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > bytes_max {
                return Err(ApiError::BodyTooLarge { bytes_max });
            }
            whole.extend_from_slice(&data);
        }
    }
}

impl Asked {
    /// The body as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        // serde would take an array for a struct, by position.
        if !self.body.trim_ascii_start().starts_with(b"{") {
            return Err(ApiError::Malformed("the body is not a JSON object".to_owned()));
        }
        serde_json::from_slice(&self.body).map_err(|error| ApiError::Malformed(format!("the body is not the expected JSON: {error}")))
    }

    /// The same where nothing may be said.
    pub(super) fn json_or_none<T: DeserializeOwned + Default>(&self) -> Result<T, ApiError> {
        if self.body.is_empty() { Ok(T::default()) } else { self.json() }
    }

    /// The parameters of the query, all of which must be known. Values are names and numbers: nothing is percent-encoded.
    pub(super) fn query<const N: usize>(&self, names: [&str; N]) -> Result<[Option<&str>; N], ApiError> {
        let mut values = [None; N];
        for part in self.head.uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let known = names.iter().position(|known| *known == name);
            let slot = known.and_then(|at| values.get_mut(at));
            let slot =
                slot.ok_or_else(|| ApiError::Malformed(format!("unknown parameter {:?}", name.chars().take(80).collect::<String>())))?;
            if slot.replace(value).is_some() {
                return Err(ApiError::Malformed(format!("parameter {name} is given twice")));
            }
        }
        Ok(values)
    }
}

/// A parameter's value.
pub(super) fn parameter<T: FromStr>(name: &str, value: Option<&str>) -> Result<Option<T>, ApiError> {
    value.map(|value| value.parse().map_err(|_| ApiError::Malformed(format!("parameter {name} cannot be read")))).transpose()
}
