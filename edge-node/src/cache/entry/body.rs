//! The bytes of a stored response: in memory in one piece or several, or on disk. Shared by all that are sent of it.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use selvedge_runtime::{Body, BodyError};

use crate::cache::disk::DiskBody;
use crate::cache::ledger::{Ledger, Share};
use crate::limits::COUNTED_BODY_BYTES_MIN;

/// Bodies up to this many bytes are kept in one piece: they are sent with one write and need no list.
const ONE_PIECE_BYTES_MAX: u64 = 256 << 10;
/// Larger bodies are kept in pieces of about this size, whatever pieces they came in.
const PIECE_BYTES: usize = 64 << 10;

/// The bytes of a response.
#[derive(Debug, Clone)]
pub struct StoredBody(Kept);

/// Small for the small bodies: there are many of them.
#[derive(Debug, Clone)]
enum Kept {
    One(Bytes),
    Else(Arc<Large>),
}

#[derive(Debug)]
enum Large {
    /// Pieces, how many bytes they have together, and where they are counted.
    Many(Box<[Bytes]>, u64, Option<Share>),
    Disk(DiskBody),
}

impl StoredBody {
    /// Of the pieces in which it came. They are copied together, so that none pins the larger buffer that it was read into; what is allocated is what it weighs.
    pub fn new(came: &[Bytes]) -> Self {
        if let [only] = came {
            return Self(Kept::One(only.clone()));
        }
        let bytes = came.iter().map(Bytes::len).sum();
        let len = bytes as u64;
        let whole = if len <= ONE_PIECE_BYTES_MAX { bytes } else { PIECE_BYTES };
        let (mut pieces, mut piece, mut left) = (Vec::new(), Vec::new(), bytes);
        for part in came {
            // Large parts are taken as they are.
            if part.len() >= whole && piece.is_empty() {
                pieces.push(part.clone());
                left -= part.len();
                continue;
            }
            let mut rest = &part[..];
            while !rest.is_empty() {
                if piece.is_empty() {
                    // It is filled to its last byte: by this part and the next ones, or by all that is left.
                    piece = Vec::with_capacity(whole.min(left));
                }
                let (now, later) = rest.split_at(rest.len().min(whole - piece.len()));
                piece.extend_from_slice(now);
                (rest, left) = (later, left - now.len());
                if piece.len() == whole || left == 0 {
                    pieces.push(std::mem::take(&mut piece).into());
                }
            }
        }
        match pieces.as_slice() {
            [] => Self::default(),
            [only] => Self(Kept::One(only.clone())),
            _ => Self(Kept::Else(Arc::new(Large::Many(pieces.into(), len, None)))),
        }
    }

    /// The same, counted for as long as anybody has some of it, where it is in memory and not short.
    pub(in crate::cache) fn counted(self, ledger: &Arc<Ledger>) -> Self {
        let share = || ledger.share(self.len());
        match self.0 {
            Kept::One(ref bytes) if self.len() >= COUNTED_BODY_BYTES_MIN => Self(Kept::One(share().of(bytes.clone()))),
            Kept::Else(ref large) if let Large::Many(pieces, len, None) = &**large => {
                Self(Kept::Else(Arc::new(Large::Many(pieces.clone(), *len, Some(share())))))
            }
            _ => self,
        }
    }

    /// Of bytes that are on disk, in slices.
    pub(crate) fn sliced(body: DiskBody) -> Self {
        Self(Kept::Else(Arc::new(Large::Disk(body))))
    }

    /// The body on disk, where it is not in memory.
    pub(crate) fn on_disk(&self) -> Option<&DiskBody> {
        match &self.0 {
            Kept::One(_) => None,
            Kept::Else(large) => large.on_disk(),
        }
    }

    /// The bytes that are in memory.
    pub(in crate::cache) fn in_memory(&self) -> &[Bytes] {
        match &self.0 {
            Kept::One(bytes) => std::slice::from_ref(bytes),
            Kept::Else(large) => large.pieces(),
        }
    }

    /// Whether these are the very same bytes, not just equal ones.
    pub fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kept::One(ours), Kept::One(theirs)) => ours.as_ptr() == theirs.as_ptr() && ours.len() == theirs.len(),
            (Kept::Else(ours), Kept::Else(theirs)) => {
                let same_file = ours.on_disk().zip(theirs.on_disk()).is_some_and(|(ours, theirs)| ours.is(theirs));
                same_file || Arc::ptr_eq(ours, theirs)
            }
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
        match &self.0 {
            Kept::One(bytes) => bytes.len() as u64,
            Kept::Else(large) => large.len(),
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, where they are in memory in one piece.
    pub(in crate::cache) fn one_piece(&self) -> Option<&Bytes> {
        match &self.0 {
            Kept::One(bytes) => Some(bytes),
            Kept::Else(_) => None,
        }
    }

    /// All of it.
    pub fn whole(&self) -> Body {
        self.part(0..self.len())
    }

    /// A part of it; what lies beyond its end is left out.
    pub fn part(&self, range: Range<u64>) -> Body {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        let large = match &self.0 {
            Kept::One(bytes) => return Body::full(bytes.slice(start as usize..end as usize)),
            Kept::Else(large) => large,
        };
        if let Large::Disk(body) = &**large {
            return body.part(start..end);
        }
        let (mut at, mut skip) = (0, start);
        while let Some(piece) = large.pieces().get(at).filter(|piece| piece.len() as u64 <= skip) {
            skip -= piece.len() as u64;
            at += 1;
        }
        Body::stream(PiecesBody { body: large.clone(), at, skip: skip as usize, left: end - start })
    }
}

impl Default for StoredBody {
    fn default() -> Self {
        Self(Kept::One(Bytes::new()))
    }
}

impl Large {
    fn on_disk(&self) -> Option<&DiskBody> {
        if let Self::Disk(body) = self { Some(body) } else { None }
    }

    fn pieces(&self) -> &[Bytes] {
        if let Self::Many(pieces, ..) = self { pieces } else { &[] }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Many(_, len, _) => *len,
            Self::Disk(body) => body.len(),
        }
    }
}

/// Sends pieces one by one.
struct PiecesBody {
    body: Arc<Large>,
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
        let Some(piece) = self.body.pieces().get(self.at).map(|piece| piece.slice(skip.min(piece.len())..)) else {
            return Poll::Ready(None);
        };
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
    fn what_is_allocated_for_a_large_body_is_what_it_weighs() {
        let all = vec![7; 1_000_000];
        for size in [1_000, 40_000, 65_535, 65_537, 100_000, 300_000] {
            let came: Vec<Bytes> = all.chunks(size).map(Bytes::copy_from_slice).collect();
            let body = StoredBody::new(&came);
            drop(came);
            let Kept::Else(large) = body.0 else { panic!("{size}: one piece") };
            let Some(Large::Many(pieces, len, _)) = Arc::into_inner(large) else { panic!("{size}: on disk") };
            let allocated = |piece: Bytes| piece.try_into_mut().expect("nobody else has its buffer").capacity();
            let held: usize = pieces.into_vec().into_iter().map(allocated).sum();
            assert_eq!((held as u64, len), (1_000_000, 1_000_000), "{size}");
        }
    }

    #[test]
    fn small_bodies_are_one_piece() {
        let came: Vec<Bytes> = (0..100).map(|_| Bytes::from_static(b"0123456789")).collect();
        assert!(StoredBody::new(&came).whole().as_whole().is_some());
    }
}
