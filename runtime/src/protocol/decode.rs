//! From the bytes of a link to messages: many from one read, without copying large bodies.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::reader::Reader;
use super::{COPY_BYTES_MAX, FRAME_BYTES_MAX, READ_BYTES};

/// What is wrong with the other side's bytes. The link must end: nothing after it can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A frame that is empty or larger than [`FRAME_BYTES_MAX`].
    #[error("frame of {len} bytes")]
    Frame {
        /// Its announced length.
        len: usize,
    },
    /// A frame that ends inside a field.
    #[error("frame ends inside a field")]
    Truncated,
    /// Bytes after the last field.
    #[error("{bytes} bytes after the last field")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A field beyond its bound.
    #[error("{field} of {len} is over {max}")]
    TooLong {
        /// Which.
        field: &'static str,
        /// Its announced length.
        len: usize,
        /// Its bound.
        max: usize,
    },
    /// A tag or an enumerated value that does not exist.
    #[error("unknown {field} {number}")]
    UnknownNumber {
        /// Which field.
        field: &'static str,
        /// Its value.
        number: u8,
    },
    /// A field whose bytes are not what it must hold.
    #[error("malformed {field}")]
    Malformed {
        /// Which.
        field: &'static str,
    },
    /// A well-formed message that must not come now, such as credit beyond its bound.
    #[error("out of order: {0}")]
    Order(&'static str),
}

/// A message that a [`Decoder`] can make.
pub trait Decode: Sized {
    /// Reads one frame.
    #[doc(hidden)]
    #[allow(private_interfaces, reason = "only this module's messages implement it")]
    fn decode(reader: Reader<'_>, memo: &mut Memo) -> Result<Self, ProtocolError>;
}

/// What is the same in most messages of a link, kept so that it is not allocated for each.
#[derive(Default)]
pub struct Memo {
    colo: Option<Arc<str>>,
}

impl Memo {
    pub(super) fn colo(&mut self, name: &str) -> Arc<str> {
        match &self.colo {
            Some(colo) if **colo == *name => colo.clone(),
            _ => self.colo.insert(Arc::from(name)).clone(),
        }
    }
}

/// Turns the bytes of a link into messages. Read into [`Decoder::buffer`], then call [`Decoder::next`] until it gives none.
pub struct Decoder<M> {
    buffer: BytesMut,
    memo: Memo,
    messages: PhantomData<fn() -> M>,
}

impl<M: Decode> Default for Decoder<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Decode> Decoder<M> {
    /// A decoder at the beginning of a link.
    pub fn new() -> Self {
        Self { buffer: BytesMut::with_capacity(READ_BYTES), memo: Memo::default(), messages: PhantomData }
    }

    /// Where to append what was read: it has at least [`READ_BYTES`] of spare capacity. It never holds more than a frame and
    /// one read, as long as [`Decoder::next`] is called until it gives none before the next read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// The next whole message, if there is one.
    #[allow(clippy::should_implement_trait, reason = "an iterator would have to end at the first incomplete frame")]
    pub fn next(&mut self) -> Result<Option<M>, ProtocolError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*prefix) as usize;
        if len == 0 || len > FRAME_BYTES_MAX {
            return Err(ProtocolError::Frame { len });
        }
        if len > COPY_BYTES_MAX {
            if self.buffer.len() < 4 + len {
                return Ok(None);
            }
            self.buffer.advance(4);
            let frame = self.buffer.split_to(len).freeze();
            return M::decode(Reader::new(&frame, Some(frame.clone())), &mut self.memo).map(Some);
        }
        let Some(frame) = self.buffer.get(4..4 + len) else { return Ok(None) };
        let message = M::decode(Reader::new(frame, None), &mut self.memo)?;
        self.buffer.advance(4 + len);
        Ok(Some(message))
    }
}
