//! A large body on disk, in slices. It is read block by block while it is sent: each block goes from the file into one buffer and from there to the client,
//! and to those who ask for it later where memory has room for it ([`super::hot`]).

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use selvedge_runtime::{Body, BodyError};

use super::Shared;
use super::place::Place;
use super::reader::ReadError;
use super::record::{self, BLOCK_BYTES, BODY_BYTES_MAX, Header, Kind, RecordError, Sums};
use super::segment::Segment;
use super::slice::slices;
use crate::limits::FILL_IDLE_TIMEOUT;

/// A body in slices. Which of them are there is known by the index; a body that is being read keeps its segments' files.
#[derive(Clone)]
pub struct DiskBody {
    shared: Arc<Shared>,
    number: u64,
    len: u64,
}

impl std::fmt::Debug for DiskBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskBody({:016x}, {} bytes)", self.number, self.len)
    }
}

impl DiskBody {
    pub(super) fn new(shared: Arc<Shared>, number: u64, len: u64) -> Self {
        Self { shared, number, len }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Its length, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether these are the same bytes.
    pub fn is(&self, other: &Self) -> bool {
        self.number == other.number && self.len == other.len
    }

    /// The numbers of all its slices.
    pub(super) fn slices(&self) -> Range<u32> {
        slices(&(0..self.len))
    }

    /// Whether all of it can be read.
    pub fn is_there(&self) -> bool {
        self.shared.index.has_slices(self.number, self.slices())
    }

    /// A part of it; what lies beyond its end is left out. It fails where the slices went a moment ago.
    pub fn part(&self, range: Range<u64>) -> Body {
        let end = range.end.min(self.len);
        let range = range.start.min(end)..end;
        if range.is_empty() {
            return Body::empty();
        }
        let numbers = slices(&range);
        let places = self.shared.index.slices(self.number, numbers.clone()).unwrap_or_default();
        let open = |place: Place| Some((place, self.shared.segment(place).ok()?));
        let slices: Option<Vec<_>> = places.into_iter().map(open).collect();
        let reading = Reading { body: self.clone(), first: numbers.start, slices: slices.unwrap_or_default(), front: None };
        Body::stream(Blocks { reading: Some(reading), at: range.start, end: range.end, next: None })
    }
}

/// What is needed to read a body's blocks.
struct Reading {
    body: DiskBody,
    /// The number of `slices[0]`.
    first: u32,
    slices: Vec<(Place, Arc<Segment>)>,
    /// The slice that is being read: its number, its checksums, and whether memory wants its blocks.
    front: Option<(u32, Sums, bool)>,
}

impl Reading {
    /// The bytes from `at` to the end of their block.
    async fn block(&mut self, at: u64) -> Result<Bytes, ReadError> {
        if let Some(bytes) = self.body.shared.hot(self.body.number, at) {
            return Ok(bytes);
        }
        let number = u32::try_from(at / BODY_BYTES_MAX as u64).map_err(|_| ReadError::Gone)?;
        let index = number.checked_sub(self.first).ok_or(ReadError::Gone)? as usize;
        let (place, segment) = self.slices.get(index).cloned().ok_or(ReadError::Gone)?;
        let read = self.try_block(number, place, &segment, at).await;
        let (shared, body) = (&self.body.shared, self.body.number);
        shared.note(&read, || shared.index.remove_slice(body, place));
        if let Ok(bytes) = &read {
            shared.metrics.disk.read_bytes.add(bytes.len() as u64);
        }
        read
    }

    async fn try_block(&mut self, number: u32, place: Place, segment: &Arc<Segment>, at: u64) -> Result<Bytes, ReadError> {
        let slice_begin = u64::from(number) * BODY_BYTES_MAX as u64;
        let slice_bytes = (self.body.len - slice_begin).min(BODY_BYTES_MAX as u64) as usize;
        let front_bytes = record::before_body(0, slice_bytes);
        let within = (at - slice_begin) as usize;
        let block = within / BLOCK_BYTES;
        let block_bytes = (slice_bytes - block * BLOCK_BYTES).min(BLOCK_BYTES);
        let readers = &self.body.shared.readers;
        let bytes = match &self.front {
            Some((open, ..)) if *open == number => {
                let offset = u64::from(place.offset()) + (front_bytes + block * BLOCK_BYTES) as u64;
                readers.read(segment, offset, block_bytes).await?
            }
            _ => {
                // The first block of a slice lies behind its front: both in one read.
                let more = if block == 0 { block_bytes } else { 0 };
                let mut front = readers.read(segment, place.offset().into(), front_bytes + more).await?;
                let header = Header::decode(&front)?;
                let expected = (header.kind, header.segment, header.name, header.mark, header.body_bytes as usize);
                if expected != (Kind::Slice, place.segment().get(), self.body.number, number, slice_bytes) || header.meta_bytes != 0 {
                    return Err(RecordError::NoRecord.into());
                }
                let (_, sums) = header.front(&front)?;
                self.front = Some((number, sums, self.body.shared.wants(self.body.number, number)));
                if block == 0 {
                    front.split_off(front_bytes)
                } else {
                    let offset = u64::from(place.offset()) + (front_bytes + block * BLOCK_BYTES) as u64;
                    readers.read(segment, offset, block_bytes).await?
                }
            }
        };
        if let Some((_, sums, wanted)) = &self.front {
            sums.verify(block, &bytes)?;
            if *wanted {
                self.body.shared.heat(self.body.number, at, &bytes);
            }
        }
        Ok(bytes.slice(within - block * BLOCK_BYTES..))
    }
}

type Next = BoxFuture<'static, (Reading, Result<Bytes, BodyError>)>;

/// Sends a range, block by block.
struct Blocks {
    /// None while a block is being read.
    reading: Option<Reading>,
    at: u64,
    end: u64,
    next: Option<Next>,
}

async fn next(mut reading: Reading, at: u64) -> (Reading, Result<Bytes, BodyError>) {
    let read = match tokio::time::timeout(FILL_IDLE_TIMEOUT, reading.block(at)).await {
        Ok(read) => read.map_err(|error| BodyError::Aborted(format!("the cache's disk: {error}"))),
        Err(_) => Err(BodyError::Stalled { ms: FILL_IDLE_TIMEOUT.as_millis() as u64 }),
    };
    (reading, read)
}

impl HttpBody for Blocks {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        if let Some(reading) = self.reading.take() {
            self.next = Some(Box::pin(next(reading, self.at)));
        }
        let Some(future) = &mut self.next else { return Poll::Ready(None) };
        let (reading, read) = ready!(future.as_mut().poll(cx));
        self.next = None;
        self.reading = Some(reading);
        Poll::Ready(Some(match read {
            Ok(mut bytes) => {
                bytes.truncate(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
                self.at += bytes.len() as u64;
                Ok(Frame::data(bytes))
            }
            Err(error) => {
                self.at = self.end;
                Err(error)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end.saturating_sub(self.at))
    }
}
