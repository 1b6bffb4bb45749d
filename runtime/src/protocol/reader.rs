//! Reads the fields of one frame. Every length is checked against its bound and against what is there before it is used.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::decode::ProtocolError;
use super::{BodyKind, CHUNK_BYTES_MAX, Fields, HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, StreamId, TEXT_BYTES_MAX};

/// The unread rest of a frame.
pub(super) struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    /// The frame as shared memory: there from the beginning, or copied when the first field needs it.
    shared: Option<Bytes>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(data: &'a [u8], shared: Option<Bytes>) -> Self {
        Self { data, at: 0, shared }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ProtocolError> {
        let end = self.at.checked_add(len).ok_or(ProtocolError::Truncated)?;
        let bytes = self.data.get(self.at..end).ok_or(ProtocolError::Truncated)?;
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        self.take(N)?.first_chunk::<N>().copied().ok_or(ProtocolError::Truncated)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ProtocolError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, ProtocolError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, ProtocolError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, ProtocolError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The id of an invocation, which is never 0.
    pub(super) fn stream(&mut self) -> Result<StreamId, ProtocolError> {
        match self.u32()? {
            0 => Err(ProtocolError::Malformed { field: "stream" }),
            stream => Ok(stream),
        }
    }

    pub(super) fn slice(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], ProtocolError> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(ProtocolError::TooLong { field, len, max });
        }
        self.take(len)
    }

    pub(super) fn str(&mut self, field: &'static str, max: usize) -> Result<&'a str, ProtocolError> {
        std::str::from_utf8(self.slice(field, max)?).map_err(|_| ProtocolError::Malformed { field })
    }

    pub(super) fn string(&mut self, field: &'static str, max: usize) -> Result<String, ProtocolError> {
        self.str(field, max).map(str::to_owned)
    }

    pub(super) fn text(&mut self) -> Result<String, ProtocolError> {
        self.string("text", TEXT_BYTES_MAX)
    }

    pub(super) fn maybe_text(&mut self) -> Result<Option<String>, ProtocolError> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            number => Err(ProtocolError::UnknownNumber { field: "text", number }),
        }
    }

    /// Bytes that outlive the frame.
    pub(super) fn bytes(&mut self, field: &'static str, max: usize) -> Result<Bytes, ProtocolError> {
        let len = self.slice(field, max)?.len();
        Ok(self.share(len))
    }

    /// The `len` bytes just taken, as shared memory.
    fn share(&mut self, len: usize) -> Bytes {
        if len == 0 {
            return Bytes::new();
        }
        let data = self.data;
        self.shared.get_or_insert_with(|| Bytes::copy_from_slice(data)).slice(self.at - len..self.at)
    }

    /// Fields as they are, their lengths checked.
    pub(super) fn fields(&mut self) -> Result<Fields, ProtocolError> {
        let count = self.u16()?;
        let start = self.at;
        let mut total = 0;
        for _ in 0..self.field_count(count)? {
            let (name_len, value_len) = self.field_lens(&mut total)?;
            self.take(name_len + value_len)?;
        }
        Ok(Fields::checked(count, self.share(self.at - start)))
    }

    fn field_count(&self, count: u16) -> Result<usize, ProtocolError> {
        let len = usize::from(count);
        if len > HEADERS_MAX { Err(ProtocolError::TooLong { field: "headers", len, max: HEADERS_MAX }) } else { Ok(len) }
    }

    /// The lengths of the next field's name and value; `total` are those of all so far.
    fn field_lens(&mut self, total: &mut usize) -> Result<(usize, usize), ProtocolError> {
        let name_len = usize::from(self.u16()?);
        let value_len = self.u32()? as usize;
        let len = name_len + value_len;
        if name_len > HEADER_NAME_BYTES_MAX || value_len > HEADERS_BYTES_MAX || *total + len > HEADERS_BYTES_MAX {
            return Err(ProtocolError::TooLong { field: "headers", len, max: HEADERS_BYTES_MAX });
        }
        *total += len;
        Ok((name_len, value_len))
    }

    pub(super) fn headers(&mut self) -> Result<HeaderMap, ProtocolError> {
        let count = self.u16()?;
        let count = self.field_count(count)?;
        let mut headers = HeaderMap::new();
        // A third more than the fields: the map grows at three quarters. A frame that announces more than it has is
        // refused below, after at most `HEADERS_MAX` places.
        headers.try_reserve(count).map_err(|_| ProtocolError::Malformed { field: "headers" })?;
        let mut total = 0;
        for _ in 0..count {
            let (name_len, value_len) = self.field_lens(&mut total)?;
            let name = HeaderName::from_bytes(self.take(name_len)?).map_err(|_| ProtocolError::Malformed { field: "header name" })?;
            self.take(value_len)?;
            let value = HeaderValue::from_maybe_shared(self.share(value_len));
            let value = value.map_err(|_| ProtocolError::Malformed { field: "header value" })?;
            headers.try_append(name, value).map_err(|_| ProtocolError::Malformed { field: "headers" })?;
        }
        Ok(headers)
    }

    pub(super) fn body(&mut self) -> Result<BodyKind, ProtocolError> {
        Ok(match self.u8()? {
            0 => BodyKind::Empty,
            1 => BodyKind::Whole(self.bytes("body", CHUNK_BYTES_MAX)?),
            2 => BodyKind::Stream(None),
            3 => BodyKind::Stream(Some(self.u64()?)),
            number => return Err(ProtocolError::UnknownNumber { field: "body", number }),
        })
    }

    /// Nothing may be left over.
    pub(super) fn finish<M>(self, message: M) -> Result<M, ProtocolError> {
        match self.data.len() - self.at {
            0 => Ok(message),
            bytes => Err(ProtocolError::Trailing { bytes }),
        }
    }
}
