//! From messages to the bytes of a link: appended to an outbox that is written once per turn.

use bytes::BytesMut;
use http::{HeaderMap, Method, StatusCode, Uri};

use super::{BodyKind, Fields, Slot, StreamId};
use crate::ClientInfo;

/// A message that its decoder would refuse: nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} of {len} is over {max}")]
pub struct EncodeError {
    /// Which field.
    pub field: &'static str,
    /// Its length.
    pub len: usize,
    /// Its bound.
    pub max: usize,
}

/// A message that can be written to a link.
pub trait Encode {
    /// Appends the message's frame; appends nothing where it fails.
    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError>;
}

/// Appends a message to an outbox; appends nothing where it fails.
pub fn encode(out: &mut BytesMut, message: &impl Encode) -> Result<(), EncodeError> {
    message.encode(out)
}

/// A [`BodyKind`] whose bytes are borrowed.
#[derive(Debug, Clone, Copy)]
pub enum BodyRef<'a> {
    /// There is none.
    Empty,
    /// All of it is here.
    Whole(&'a [u8]),
    /// `BodyData` and `BodyEnd` follow. Its length where known.
    Stream(Option<u64>),
}

impl<'a> From<&'a BodyKind> for BodyRef<'a> {
    fn from(body: &'a BodyKind) -> Self {
        match body {
            BodyKind::Empty => Self::Empty,
            BodyKind::Whole(bytes) => Self::Whole(bytes),
            BodyKind::Stream(len) => Self::Stream(*len),
        }
    }
}

/// The parts of a `Start`, borrowed.
#[derive(Clone, Copy)]
pub struct StartParts<'a> {
    /// The invocation.
    pub stream: StreamId,
    /// The version.
    pub slot: Slot,
    /// The request's method.
    pub method: &'a Method,
    /// The request's absolute URL.
    pub uri: &'a Uri,
    /// The request's fields ...
    pub headers: &'a HeaderMap,
    /// ... and those that the edge writes.
    pub written: &'a Fields,
    /// For `request.cf`.
    pub client: &'a ClientInfo,
    /// The request's body.
    pub body: BodyRef<'a>,
}

/// Appends a `Start` from its parts, without making the message first.
pub fn encode_start(out: &mut BytesMut, parts: StartParts<'_>) -> Result<(), EncodeError> {
    super::to_runner::write_start(out, parts)
}

/// Appends a `Response` from its parts, without making the message first. `fields` are names and values.
pub fn encode_response<'a>(
    out: &mut BytesMut,
    stream: StreamId,
    status: StatusCode,
    fields: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
    body: BodyRef<'_>,
) -> Result<(), EncodeError> {
    super::to_edge::write_response(out, stream, status, fields, body)
}
