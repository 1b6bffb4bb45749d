//! One record of a segment: a header, what it says, the checksums of its bytes, its bytes. Nothing of a record is believed before its checksum was seen.
//!
//! ```text
//! header (56)  magic u32 · format u8 · kind u8 · 0 u16 · segment u32 · 0 u32 · name u64 · mark u32 · meta u32 · body u32 · 0 u32 · sum of meta and sums u64 · sum of the header u64
//! meta         an encoded head (see `encode`), or nothing
//! sums         u64 for each block of the body
//! body         bytes
//! ```
//!
//! All numbers are little-endian; a record begins at a multiple of [`ALIGN_BYTES`]. Sums are XXH3-64: they tell torn and rotten bytes from whole ones, not friend from
//! foe (who can write to the folder can do worse).

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// What a record's place is a multiple of.
pub(super) const ALIGN_BYTES: usize = 8;
/// Length of a header.
pub(super) const HEADER_BYTES: usize = 56;
/// What has a checksum of its own within a body: also the most that is read at once for a client.
pub(super) const BLOCK_BYTES: usize = 64 << 10;
/// Longest meta: the fields of a response and its key; what is longer is not stored.
pub(super) const META_BYTES_MAX: usize = 256 << 10;
/// Longest body of a record: one slice.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"Slvr");
const FORMAT: u8 = 1;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A response's head, and its body where that is small.
    Head = 1,
    /// A slice of a large body.
    Slice = 2,
    /// A head that is gone. It hides older ones of the same name and mark.
    Dead = 3,
}

impl Kind {
    pub(super) fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Head),
            2 => Some(Self::Slice),
            3 => Some(Self::Dead),
            _ => None,
        }
    }
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// The segment that it was written to.
    pub(super) segment: u32,
    /// The hash of a key, or the number of a body.
    pub(super) name: u64,
    /// The hash of a variant, or the number of a slice.
    pub(super) mark: u32,
    pub(super) meta_bytes: u32,
    pub(super) body_bytes: u32,
    meta_sum: u64,
}

/// Why bytes are not the record that should be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("shorter than it says")]
    Short,
    #[error("not a record")]
    NoRecord,
    #[error("wrong checksum")]
    Sum,
}

impl Header {
    /// Parses and verifies a header.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(RecordError::Short)?;
        let (said, sum) = bytes.split_at(HEADER_BYTES - 8);
        let mut fields = Fields(said);
        if fields.u32() != MAGIC || fields.u8() != FORMAT {
            return Err(RecordError::NoRecord);
        }
        if u64::from_le_bytes(*sum.first_chunk().ok_or(RecordError::Short)?) != xxh3_64(said) {
            return Err(RecordError::Sum);
        }
        let kind = Kind::of(fields.u8()).ok_or(RecordError::NoRecord)?;
        fields.skip(2);
        let segment = fields.u32();
        fields.skip(4);
        let (name, mark, meta_bytes, body_bytes) = (fields.u64(), fields.u32(), fields.u32(), fields.u32());
        fields.skip(4);
        let header = Self { kind, segment, name, mark, meta_bytes, body_bytes, meta_sum: fields.u64() };
        if meta_bytes as usize > META_BYTES_MAX || body_bytes as usize > BODY_BYTES_MAX {
            return Err(RecordError::NoRecord);
        }
        Ok(header)
    }

    /// Its bytes.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut said = Vec::with_capacity(HEADER_BYTES);
        said.extend_from_slice(&MAGIC.to_le_bytes());
        said.extend_from_slice(&[FORMAT, self.kind as u8, 0, 0]);
        said.extend_from_slice(&self.segment.to_le_bytes());
        said.extend_from_slice(&[0; 4]);
        said.extend_from_slice(&self.name.to_le_bytes());
        for number in [self.mark, self.meta_bytes, self.body_bytes, 0] {
            said.extend_from_slice(&number.to_le_bytes());
        }
        said.extend_from_slice(&self.meta_sum.to_le_bytes());
        let sum = xxh3_64(&said);
        said.extend_from_slice(&sum.to_le_bytes());
        let mut bytes = [0; HEADER_BYTES];
        bytes.iter_mut().zip(said).for_each(|(to, from)| *to = from);
        bytes
    }

    fn before_body(&self) -> usize {
        before_body(self.meta_bytes as usize, self.body_bytes as usize)
    }

    /// Bytes of the whole record, without what aligns the next one.
    pub(super) fn record_bytes(&self) -> usize {
        self.before_body() + self.body_bytes as usize
    }

    /// Meta and checksums of the blocks, verified, out of the record's first bytes.
    pub(super) fn front<'a>(&self, record: &'a [u8]) -> Result<(&'a [u8], Sums), RecordError> {
        let front = record.get(HEADER_BYTES..self.before_body()).ok_or(RecordError::Short)?;
        if xxh3_64(front) != self.meta_sum {
            return Err(RecordError::Sum);
        }
        let (meta, sums) = front.split_at_checked(self.meta_bytes as usize).ok_or(RecordError::Short)?;
        Ok((meta, Sums(sums.as_chunks().0.iter().map(|sum| u64::from_le_bytes(*sum)).collect())))
    }
}

/// The checksums of a body's blocks.
#[derive(Debug, Clone)]
pub(super) struct Sums(Box<[u64]>);

impl Sums {
    /// Whether these are the bytes of this block.
    pub(super) fn verify(&self, block: usize, bytes: &[u8]) -> Result<(), RecordError> {
        if self.0.get(block) == Some(&xxh3_64(bytes)) { Ok(()) } else { Err(RecordError::Sum) }
    }
}

/// Bytes of a record before its body: header, meta, and a checksum for each block.
pub(super) fn before_body(meta_bytes: usize, body_bytes: usize) -> usize {
    HEADER_BYTES + meta_bytes + body_bytes.div_ceil(BLOCK_BYTES) * 8
}

/// Header, meta and body of a whole record, verified.
pub(super) fn decode(record: &Bytes) -> Result<(Header, Bytes, Bytes), RecordError> {
    let header = Header::decode(record)?;
    let (meta, sums) = header.front(record)?;
    let body = record.get(header.before_body()..header.record_bytes()).ok_or(RecordError::Short)?;
    body.chunks(BLOCK_BYTES).enumerate().try_for_each(|(block, bytes)| sums.verify(block, bytes))?;
    Ok((header, record.slice_ref(meta), record.slice_ref(body)))
}

/// Appends a record to `out`, aligned. Gives its length, without what aligns the next one.
pub(super) fn encode(out: &mut Vec<u8>, (kind, segment): (Kind, u32), name: u64, mark: u32, meta: &[u8], body: &[Bytes]) -> u32 {
    let body_bytes: usize = body.iter().map(Bytes::len).sum();
    let begin = out.len();
    out.resize(begin + HEADER_BYTES, 0);
    out.extend_from_slice(meta);
    let (sums_at, body_at) = (out.len(), begin + before_body(meta.len(), body_bytes));
    out.resize(body_at, 0);
    body.iter().for_each(|piece| out.extend_from_slice(piece));
    let sums: Vec<u8> = out[body_at..].chunks(BLOCK_BYTES).flat_map(|block| xxh3_64(block).to_le_bytes()).collect();
    out[sums_at..body_at].copy_from_slice(&sums);
    let meta_sum = xxh3_64(&out[begin + HEADER_BYTES..body_at]);
    let header = Header { kind, segment, name, mark, meta_bytes: meta.len() as u32, body_bytes: body_bytes as u32, meta_sum };
    out[begin..begin + HEADER_BYTES].copy_from_slice(&header.encode());
    let bytes = out.len() - begin;
    out.resize(begin + bytes.next_multiple_of(ALIGN_BYTES), 0);
    bytes as u32
}

/// Reads numbers of a slice that is long enough; zeros beyond its end.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((number, rest)) => {
                self.0 = rest;
                *number
            }
            None => {
                self.0 = &[];
                [0; N]
            }
        }
    }

    pub(super) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        self.0 = self.0.get(bytes..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_written_and_no_flipped_bit_passes() {
        let body = [Bytes::from(vec![7; 100_000]), Bytes::from_static(b"end")];
        let mut bytes = Vec::new();
        let length = encode(&mut bytes, (Kind::Head, 3), 11, 5, b"meta", &body);
        assert_eq!(bytes.len() % ALIGN_BYTES, 0);
        let read = |bytes: &[u8]| decode(&Bytes::copy_from_slice(bytes));
        let (header, meta, read_body) = read(&bytes).expect("a record");
        assert_eq!((header.kind, header.segment, header.name, header.mark), (Kind::Head, 3, 11, 5));
        assert_eq!(header.record_bytes(), length as usize);
        assert_eq!((meta, read_body), (Bytes::from_static(b"meta"), body.concat().into()));
        for at in (0..200).chain((200..length as usize).step_by(997)).chain([length as usize - 1]) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(read(&damaged).is_err(), "byte {at}");
        }
        for end in [0, 10, HEADER_BYTES, HEADER_BYTES + 3, 60_000, length as usize - 1] {
            assert!(read(&bytes[..end]).is_err(), "{end} bytes");
        }
    }
}
