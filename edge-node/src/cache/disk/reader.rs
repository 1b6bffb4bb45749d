//! Reading, off the async threads and bounded: what the kernel has in memory is read at once, the rest by a bounded number of threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::Shared;
use super::place::Place;
use super::record::{self, Kind, RecordError};
use super::segment::Segment;
use crate::limits::{DISK_READ_AT_ONCE_BYTES_MAX, DISK_READS_MAX, DISK_READS_WAITING_MAX};

/// Threads that read, and those who wait for them.
#[derive(Debug)]
pub(super) struct Readers {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Why something was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It is not there any more.
    #[error("it is gone")]
    Gone,
    /// Too many wait.
    #[error("too many wait for the disk")]
    Busy,
    /// The disk fails.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The bytes are not those that were written.
    #[error("{0}")]
    Damaged(#[from] RecordError),
}

impl Default for Readers {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(DISK_READS_MAX)), waiting: AtomicUsize::new(0) }
    }
}

impl Readers {
    /// Takes all places.
    #[cfg(test)]
    pub(super) fn occupy(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        self.places.clone().try_acquire_many_owned(DISK_READS_MAX as u32).ok()
    }

    /// Reads bytes of a segment. Cancel-safe.
    pub(super) async fn read(&self, segment: &Arc<Segment>, offset: u64, bytes: usize) -> Result<Bytes, ReadError> {
        if bytes <= DISK_READ_AT_ONCE_BYTES_MAX
            && let Some(read) = segment.read_at_once(offset, bytes)
        {
            return Ok(read.into());
        }
        let _waiting = Waiting::new(&self.waiting).ok_or(ReadError::Busy)?;
        let place = self.places.clone().acquire_owned().await.map_err(|_| ReadError::Busy)?;
        let segment = segment.clone();
        let read = tokio::task::spawn_blocking(move || {
            let read = segment.read(offset, bytes);
            drop(place);
            read
        });
        Ok(read.await.map_err(std::io::Error::other)??.into())
    }
}

/// One who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(all: &'a AtomicUsize) -> Option<Self> {
        let waiting = Self(all);
        (all.fetch_add(1, Relaxed) < DISK_READS_WAITING_MAX).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Shared {
    /// Reads and verifies a head; gives its meta and the body behind it. What is not there, or is damaged, leaves the index.
    pub(super) async fn read_head(&self, name: u64, place: Place) -> Result<(Bytes, Bytes), ReadError> {
        let read = self.try_read_head(name, place).await;
        self.note(&read, || self.index.remove(name, place));
        if read.is_ok() {
            self.index.read(name, place);
        }
        read
    }

    /// The same, and nothing is made of it.
    pub(super) async fn try_read_head(&self, name: u64, place: Place) -> Result<(Bytes, Bytes), ReadError> {
        let segment = self.segment(place)?;
        let record = self.readers.read(&segment, place.offset().into(), place.bytes() as usize).await?;
        let (header, meta, body) = record::decode(&record)?;
        if header.name != name || header.segment != place.segment().get() || header.kind != Kind::Head {
            return Err(ReadError::Gone);
        }
        Ok((meta, body))
    }

    pub(super) fn segment(&self, place: Place) -> Result<Arc<Segment>, ReadError> {
        self.segments.read().get(&place.segment()).cloned().ok_or(ReadError::Gone)
    }

    /// Counts what a read came to; `forget` is called where it is of no use to try again.
    pub(super) fn note<T>(&self, read: &Result<T, ReadError>, forget: impl FnOnce()) {
        let counters = &self.metrics.disk;
        match read {
            Ok(_) => return counters.reads.add(1),
            Err(ReadError::Busy) => return counters.skipped_reads.add(1),
            Err(ReadError::Gone) => {}
            Err(ReadError::Io(error)) => {
                counters.read_errors.add(1);
                tracing::debug!(folder = %self.folder.display(), %error, "cache: a read failed");
            }
            Err(ReadError::Damaged(error)) => {
                counters.damaged.add(1);
                tracing::debug!(folder = %self.folder.display(), %error, "cache: a record is damaged and not used");
            }
        }
        forget();
    }
}
