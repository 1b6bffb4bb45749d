//! Where a record is, and how it is used: what the index holds millions of. 16 bytes.

use std::num::NonZeroU32;

/// Lengths of records are below this; above it is how a place is used.
const BYTES_MASK: u32 = (1 << 24) - 1;
const READ: u32 = 1 << 24;
const IN_MEMORY: u32 = 1 << 25;

/// Where a record is.
#[derive(Debug, Clone, Copy, Eq)]
pub(super) struct Place {
    segment: NonZeroU32,
    offset: u32,
    /// Its length, and how it is used.
    bytes: u32,
    /// The hash of the variant, or the number of the slice.
    mark: u32,
}

impl PartialEq for Place {
    /// The same record, however it is used.
    fn eq(&self, other: &Self) -> bool {
        (self.segment, self.offset) == (other.segment, other.offset)
    }
}

impl Place {
    /// None where such a long record cannot be.
    pub(super) fn new(segment: NonZeroU32, offset: u32, bytes: u32, mark: u32) -> Option<Self> {
        (bytes <= BYTES_MASK).then_some(Self { segment, offset, bytes, mark })
    }

    pub(super) fn segment(&self) -> NonZeroU32 {
        self.segment
    }

    pub(super) fn offset(&self) -> u32 {
        self.offset
    }

    pub(super) fn bytes(&self) -> u32 {
        self.bytes & BYTES_MASK
    }

    pub(super) fn mark(&self) -> u32 {
        self.mark
    }

    /// This, known to be in memory too.
    pub(super) fn in_memory(self) -> Self {
        Self { bytes: self.bytes | IN_MEMORY, ..self }
    }

    /// The same, read since it was written.
    pub(super) fn read(self) -> Self {
        Self { bytes: self.bytes | READ, ..self }
    }

    /// The same, in memory no more.
    pub(super) fn left_memory(self) -> Self {
        Self { bytes: self.bytes & !IN_MEMORY, ..self }
    }

    /// Another place of the same record: it must be read again to be wanted again.
    pub(super) fn moved(self, to: Self) -> Self {
        Self { bytes: to.bytes() | (self.bytes & IN_MEMORY), ..to }
    }

    /// What becomes of it when its segment goes.
    pub(super) fn retired(&self) -> Retired {
        match (self.bytes & READ != 0, self.bytes & IN_MEMORY != 0) {
            (true, _) => Retired::Read,
            (false, true) => Retired::InMemory,
            (false, false) => Retired::Dropped,
        }
    }
}

/// What becomes of a record whose segment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retired {
    /// It was replaced or forgotten before.
    Gone,
    /// It was dropped.
    Dropped,
    /// It was read since it was written: it should be written again elsewhere.
    Read,
    /// The same, if it is in memory still.
    InMemory,
}
