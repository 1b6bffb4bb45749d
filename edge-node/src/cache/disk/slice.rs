//! How a large body is cut: into slices of [`BODY_BYTES_MAX`] bytes, but for the last one. Each is a record.

use std::ops::Range;

use bytes::Bytes;

use super::record::BODY_BYTES_MAX;

/// The numbers of the slices that a range of a body touches.
pub(super) fn slices(range: &Range<u64>) -> Range<u32> {
    let slice = BODY_BYTES_MAX as u64;
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    if range.is_empty() { 0..0 } else { number(range.start / slice)..number(range.end.div_ceil(slice)) }
}

/// Puts slices together out of whatever pieces come. Nothing is copied.
#[derive(Debug, Default)]
pub(super) struct Slicer {
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Slicer {
    /// Takes bytes off the front of `from`, as many as the slice lacks; gives the slice once it is whole.
    pub(super) fn take(&mut self, from: &mut Bytes) -> Option<Vec<Bytes>> {
        let piece = from.split_to(from.len().min(BODY_BYTES_MAX - self.bytes));
        self.bytes += piece.len();
        self.pieces.push(piece);
        if self.bytes < BODY_BYTES_MAX { None } else { self.rest() }
    }

    /// The last slice: what no whole one was made of.
    pub(super) fn rest(&mut self) -> Option<Vec<Bytes>> {
        self.bytes = 0;
        Some(std::mem::take(&mut self.pieces)).filter(|pieces| !pieces.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_the_body_whatever_pieces_it_comes_in() {
        let body: Bytes = (0..2 * BODY_BYTES_MAX + 5).map(|at| at as u8).collect();
        for size in [1 << 10, 70_000, BODY_BYTES_MAX, BODY_BYTES_MAX + 1, body.len()] {
            let (mut slicer, mut cut) = (Slicer::default(), Vec::new());
            for piece in body.chunks(size) {
                let mut piece = Bytes::copy_from_slice(piece);
                while !piece.is_empty() {
                    cut.extend(slicer.take(&mut piece));
                }
            }
            cut.extend(slicer.rest());
            assert_eq!(cut.len(), slices(&(0..body.len() as u64)).len());
            let cut: Vec<Vec<u8>> = cut.iter().map(|pieces| pieces.concat()).collect();
            assert!(cut.iter().map(Vec::as_slice).eq(body.chunks(BODY_BYTES_MAX)), "pieces of {size}");
            assert!(slicer.rest().is_none());
        }
    }
}
