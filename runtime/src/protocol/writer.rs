//! Writes one frame into an outbox. Faults stick, so that encoders read as a list of fields.

use bytes::{BufMut, BytesMut};
use http::HeaderMap;

use super::encode::EncodeError;
use super::fields::{FIELD_PREFIX, Fields};
use super::{BodyRef, CHUNK_BYTES_MAX, FRAME_BYTES_MAX, HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, TEXT_BYTES_MAX};

/// Bytes of a frame's length.
const PREFIX: usize = 4;

/// One frame being written. Nothing of it stays in the outbox unless [`Writer::finish`] succeeds.
pub(super) struct Writer<'a> {
    out: &'a mut BytesMut,
    start: usize,
    fault: Option<EncodeError>,
}

impl<'a> Writer<'a> {
    pub(super) fn begin(out: &'a mut BytesMut, tag: u8) -> Self {
        let start = out.len();
        out.reserve(64);
        out.put_u32_le(0);
        out.put_u8(tag);
        Self { out, start, fault: None }
    }

    pub(super) fn u8(self, number: u8) -> Self {
        self.out.put_u8(number);
        self
    }

    pub(super) fn u16(self, number: u16) -> Self {
        self.out.put_u16_le(number);
        self
    }

    pub(super) fn u32(self, number: u32) -> Self {
        self.out.put_u32_le(number);
        self
    }

    pub(super) fn u64(self, number: u64) -> Self {
        self.out.put_u64_le(number);
        self
    }

    pub(super) fn bytes(mut self, field: &'static str, bytes: &[u8], max: usize) -> Self {
        if bytes.len() > max {
            self.fault.get_or_insert(EncodeError { field, len: bytes.len(), max });
        } else {
            self.out.reserve(PREFIX + bytes.len());
            self.out.put_u32_le(bytes.len() as u32);
            self.out.put_slice(bytes);
        }
        self
    }

    /// A text for operators: cut rather than refused.
    pub(super) fn text(self, text: &str) -> Self {
        let mut end = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes("text", text.as_bytes().get(..end).unwrap_or_default(), TEXT_BYTES_MAX)
    }

    pub(super) fn maybe_text(self, text: Option<&str>) -> Self {
        match text {
            None => self.u8(0),
            Some(text) => self.u8(1).text(text),
        }
    }

    /// A byte string that is written in pieces, so that a URI needs no string of its own.
    pub(super) fn pieces(mut self, field: &'static str, pieces: &[&[u8]], max: usize) -> Self {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        if len > max {
            self.fault.get_or_insert(EncodeError { field, len, max });
            return self;
        }
        self.out.reserve(PREFIX + len);
        self.out.put_u32_le(len as u32);
        for piece in pieces {
            self.out.put_slice(piece);
        }
        self
    }

    pub(super) fn headers(self, headers: &HeaderMap) -> Self {
        self.fields(headers.len(), headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())))
    }

    pub(super) fn fields<'b>(mut self, count: usize, fields: impl Iterator<Item = (&'b [u8], &'b [u8])>) -> Self {
        let start = self.out.len();
        self.out.put_u16_le(0);
        let (mut written, mut total) = (0usize, 0usize);
        for (name, value) in fields {
            total += name.len() + value.len();
            written += 1;
            if name.len() > HEADER_NAME_BYTES_MAX || total > HEADERS_BYTES_MAX || written > HEADERS_MAX {
                break;
            }
            self.out.reserve(6 + name.len() + value.len());
            self.out.put_u16_le(name.len() as u16);
            self.out.put_u32_le(value.len() as u32);
            self.out.put_slice(name);
            self.out.put_slice(value);
        }
        if total > HEADERS_BYTES_MAX {
            self.fault.get_or_insert(EncodeError { field: "headers", len: total, max: HEADERS_BYTES_MAX });
        } else if written > HEADERS_MAX || written < count {
            self.fault.get_or_insert(EncodeError { field: "headers", len: count, max: HEADERS_MAX });
        } else if let Some(place) = self.out.get_mut(start..start + 2) {
            place.copy_from_slice(&(written as u16).to_le_bytes());
        }
        self
    }

    /// The fields of a map, then others.
    pub(super) fn headers_and(self, headers: &HeaderMap, more: &Fields) -> Self {
        let all = headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).chain(more.iter());
        self.fields(headers.len() + more.len(), all)
    }

    /// Fields as they are.
    pub(super) fn section(mut self, fields: &Fields) -> Self {
        let bytes = fields.section().len();
        let len = bytes - (fields.len() * FIELD_PREFIX).min(bytes);
        if fields.len() > HEADERS_MAX || fields.iter().any(|(name, _)| name.len() > HEADER_NAME_BYTES_MAX) {
            self.fault.get_or_insert(EncodeError { field: "headers", len: fields.len(), max: HEADERS_MAX });
        } else if len > HEADERS_BYTES_MAX {
            self.fault.get_or_insert(EncodeError { field: "headers", len, max: HEADERS_BYTES_MAX });
        } else {
            self.out.reserve(2 + bytes);
            self.out.put_u16_le(fields.len() as u16);
            self.out.put_slice(fields.section());
        }
        self
    }

    pub(super) fn body(self, body: BodyRef<'_>) -> Self {
        match body {
            BodyRef::Empty => self.u8(0),
            BodyRef::Whole(bytes) => self.u8(1).bytes("body", bytes, CHUNK_BYTES_MAX),
            BodyRef::Stream(None) => self.u8(2),
            BodyRef::Stream(Some(len)) => self.u8(3).u64(len),
        }
    }

    /// Completes the frame, or removes it.
    pub(super) fn finish(self) -> Result<(), EncodeError> {
        let len = self.out.len() - self.start - PREFIX;
        let fault = self.fault.or((len > FRAME_BYTES_MAX).then_some(EncodeError { field: "frame", len, max: FRAME_BYTES_MAX }));
        if let Some(fault) = fault {
            self.out.truncate(self.start);
            return Err(fault);
        }
        if let Some(place) = self.out.get_mut(self.start..self.start + PREFIX) {
            place.copy_from_slice(&(len as u32).to_le_bytes());
        }
        Ok(())
    }
}
