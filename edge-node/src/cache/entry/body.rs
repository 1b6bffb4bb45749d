//! The bytes of a stored response: in memory in one piece or several, or on disk. Shared by all that are sent of it.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use selvedge_runtime::{Body, BodyError};

use crate::cache::disk::DiskBody;

/// Bodies up to this many bytes are kept in one piece: they are sent with one write and need no list.
const ONE_PIECE_BYTES_MAX: u64 = 256 << 10;
/// Larger bodies are kept in pieces of about this size, whatever pieces they came in.
const PIECE_BYTES: usize = 64 << 10;

/// The bytes of a response.
#[derive(Debug, Clone)]
pub struct StoredBody {
    pieces: Pieces,
    len: u64,
}

#[derive(Debug, Clone)]
enum Pieces {
    One(Bytes),
    Many(Arc<[Bytes]>),
    Disk(DiskBody),
}

impl StoredBody {
    /// Of the pieces in which it came. They are copied together, so that none pins the larger buffer that it was read into.
    pub fn new(came: &[Bytes]) -> Self {
        let len: u64 = came.iter().map(|piece| piece.len() as u64).sum();
        if let [only] = came {
            return Self { pieces: Pieces::One(only.clone()), len };
        }
        let whole = if len <= ONE_PIECE_BYTES_MAX { len as usize } else { PIECE_BYTES };
        let mut pieces = Vec::new();
        let mut piece = BytesMut::new();
        for part in came {
            // Large parts are taken as they are.
            if part.len() >= whole && piece.is_empty() {
                pieces.push(part.clone());
                continue;
            }
            piece.reserve(part.len().max(whole.saturating_sub(piece.len())));
            piece.extend_from_slice(part);
            if piece.len() >= whole {
                pieces.push(piece.split().freeze());
            }
        }
        if !piece.is_empty() {
            pieces.push(piece.freeze());
        }
        match pieces.as_slice() {
            [] => Self { pieces: Pieces::One(Bytes::new()), len },
            [only] => Self { pieces: Pieces::One(only.clone()), len },
            _ => Self { pieces: Pieces::Many(pieces.into()), len },
        }
    }

    /// Of bytes that are on disk, in slices.
    pub(crate) fn sliced(body: DiskBody) -> Self {
        let len = body.len();
        Self { pieces: Pieces::Disk(body), len }
    }

    /// The body on disk, where it is not in memory.
    pub(crate) fn on_disk(&self) -> Option<&DiskBody> {
        match &self.pieces {
            Pieces::Disk(body) => Some(body),
            Pieces::One(_) | Pieces::Many(_) => None,
        }
    }

    /// The bytes that are in memory.
    pub(in crate::cache) fn in_memory(&self) -> &[Bytes] {
        match &self.pieces {
            Pieces::One(bytes) => std::slice::from_ref(bytes),
            Pieces::Many(pieces) => pieces,
            Pieces::Disk(_) => &[],
        }
    }

    /// Whether these are the very same bytes in memory, not just equal ones.
    pub fn is(&self, other: &Self) -> bool {
        match (&self.pieces, &other.pieces) {
            (Pieces::One(ours), Pieces::One(theirs)) => ours.as_ptr() == theirs.as_ptr() && ours.len() == theirs.len(),
            (Pieces::Many(ours), Pieces::Many(theirs)) => Arc::ptr_eq(ours, theirs),
            (Pieces::Disk(ours), Pieces::Disk(theirs)) => ours.is(theirs),
            _ => false,
        }
    }

    /// The pieces of a part of it; what lies beyond its end is left out.
    pub fn pieces(&self, range: Range<u64>) -> Vec<Bytes> {
        let mut at = 0;
        // Whoever puts pieces together has them in memory.
        let cut = self.in_memory().iter().filter_map(|piece| {
            let (start, end) = (at, at + piece.len() as u64);
            at = end;
            let (from, to) = (range.start.max(start), range.end.min(end));
            (from < to).then(|| piece.slice((from - start) as usize..(to - start) as usize))
        });
        cut.collect()
    }

    /// Its length, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, where they are in memory in one piece.
    pub(in crate::cache) fn one_piece(&self) -> Option<&Bytes> {
        match &self.pieces {
            Pieces::One(bytes) => Some(bytes),
            Pieces::Many(_) | Pieces::Disk(_) => None,
        }
    }

    /// All of it.
    pub fn whole(&self) -> Body {
        match &self.pieces {
            Pieces::One(bytes) => Body::full(bytes.clone()),
            Pieces::Many(pieces) => Body::stream(PiecesBody { pieces: pieces.clone(), at: 0, skip: 0, left: self.len }),
            Pieces::Disk(body) => body.part(0..self.len),
        }
    }

    /// A part of it; what lies beyond its end is left out.
    pub fn part(&self, range: Range<u64>) -> Body {
        let end = range.end.min(self.len);
        let start = range.start.min(end);
        match &self.pieces {
            Pieces::Disk(body) => body.part(start..end),
            Pieces::One(bytes) => Body::full(bytes.slice(start as usize..end as usize)),
            Pieces::Many(pieces) => {
                let (mut at, mut skip) = (0, start);
                while let Some(piece) = pieces.get(at).filter(|piece| piece.len() as u64 <= skip) {
                    skip -= piece.len() as u64;
                    at += 1;
                }
                Body::stream(PiecesBody { pieces: pieces.clone(), at, skip: skip as usize, left: end - start })
            }
        }
    }
}

impl Default for StoredBody {
    fn default() -> Self {
        Self { pieces: Pieces::One(Bytes::new()), len: 0 }
    }
}

/// Sends pieces one by one.
struct PiecesBody {
    pieces: Arc<[Bytes]>,
    at: usize,
    skip: usize,
    left: u64,
}

impl HttpBody for PiecesBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let skip = std::mem::take(&mut self.skip);
        let Some(piece) = self.pieces.get(self.at).map(|piece| piece.slice(skip.min(piece.len())..)) else { return Poll::Ready(None) };
        let piece = piece.slice(..piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
        self.at += 1;
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(body: Body) -> Vec<u8> {
        futures::executor::block_on(body.collect(u64::MAX)).expect("a stored body").to_vec()
    }

    #[test]
    fn a_body_is_the_bytes_that_came_in_whatever_pieces() {
        let all: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        for size in [1_000, 65_536, 70_000, 300_000] {
            let came: Vec<Bytes> = all.chunks(size).map(Bytes::copy_from_slice).collect();
            let body = StoredBody::new(&came);
            assert_eq!(body.len(), 300_000);
            assert_eq!(bytes(body.whole()), all, "{size}");
            for range in [0..1, 65_535..65_537, 299_999..300_000, 0..300_000, 100..100, 299_000..400_000] {
                let expected = &all[range.start as usize..(range.end as usize).min(all.len())];
                assert_eq!(bytes(body.part(range.clone())), expected, "{size} {range:?}");
                assert_eq!(body.pieces(range.clone()).concat(), expected, "{size} {range:?}");
            }
        }
        assert!(StoredBody::new(&[]).is_empty());
        assert_eq!(bytes(StoredBody::new(&[]).whole()), b"");
    }

    #[test]
    fn small_bodies_are_one_piece() {
        let came: Vec<Bytes> = (0..100).map(|_| Bytes::from_static(b"0123456789")).collect();
        assert!(StoredBody::new(&came).whole().as_whole().is_some());
    }
}
