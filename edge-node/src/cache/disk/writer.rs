//! The thread that writes: what is ordered becomes records of the active segment, in batches, without a sync; what a full tier has no room for goes, oldest segment first.
//!
//! Of a segment that goes, what was read since it was written, or is in memory too, is written again (a second chance: once for each read), up to half a segment at a
//! time. So a scan of things that nobody asks for again pushes out nothing that is asked for.
//!
//! When a write fails, nothing of it is found; where the disk is full, the oldest segment is given back, and the tier is content with what it has for a while. It says so
//! once in the log.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Shared;
use super::encode::{self, BodyPlace};
use super::place::{Place, Retired};
use super::queue::Order;
use super::record::{self, ALIGN_BYTES, Kind};
use super::routes::{RouteMark, Routes};
use super::segment::{HEAD_BYTES, ITEM_BYTES, Item, Segment, TRAILER_BYTES};
use super::slice::{Slicer, slices};
use crate::cache::entry::Entry;
use crate::limits::{DISK_BATCH_BYTES, DISK_BOUND_RETRY, DISK_INLINE_BYTES_MAX, DISK_PAUSE};

pub(super) struct Writer {
    shared: Arc<Shared>,
    active: Option<Active>,
    /// Records that are not written yet, and what is to be done when they are.
    batch: Vec<u8>,
    pending: Vec<(Item, Then)>,
    routes: Routes,
    /// Bytes of each segment that is not written to any more.
    sealed: BTreeMap<NonZeroU32, u64>,
    last: u32,
    paused_until: Option<Instant>,
    /// When the log may say again that the disk is full or fails.
    told_until: Option<Instant>,
    /// What may be used now, in bytes: less than what is configured after the disk was full.
    bound: (u64, Option<Instant>),
}

struct Active {
    segment: Arc<Segment>,
    end: u32,
    items: Vec<Item>,
}

/// What is to be done when a record is written.
enum Then {
    Put { order: u64 },
    Slice(Option<oneshot::Sender<bool>>),
    Moved(Place),
}

/// A record to be written.
struct Record<'a> {
    kind: Kind,
    name: u64,
    mark: u32,
    route: RouteMark,
    meta: &'a [u8],
    body: &'a [Bytes],
}

impl Writer {
    /// Of what earlier runs have left: the bytes of each segment.
    pub(super) fn new(shared: Arc<Shared>, sealed: BTreeMap<NonZeroU32, u64>) -> Self {
        let last = sealed.last_key_value().map_or(0, |(number, _)| number.get());
        let bound = (shared.bytes_max, None);
        Self {
            shared,
            active: None,
            batch: Vec::new(),
            pending: Vec::new(),
            routes: Routes::default(),
            sealed,
            last,
            paused_until: None,
            told_until: None,
            bound,
        }
    }

    /// Works until the queue is closed.
    pub(super) fn run(mut self) {
        let gone = super::recover::load(&self.shared, &mut self.sealed);
        gone.into_iter().for_each(|(name, place)| self.kill(name, place));
        self.count_bytes();
        while let Ok(order) = self.shared.queue.pop(DISK_PAUSE) {
            if let Some((number, order)) = order {
                self.take(number, order);
            }
            if self.shared.queue.is_empty() {
                self.flush();
            }
        }
        self.flush();
        self.seal();
    }

    fn take(&mut self, number: u64, order: Order) {
        match order {
            Order::Put { name, key, entry } => self.put(number, name, &key, &entry),
            Order::Slice { body, number, pieces, route, done } => {
                let route = self.routes.mark(route.as_ref());
                self.put_slice((body, number, route), &pieces, Some(done));
            }
            Order::Kill { name, places } => {
                self.flush();
                places.iter().for_each(|place| self.kill(name, *place));
                self.shared.index.forgotten(name, number);
            }
            Order::Abandon => self.abandon(),
            Order::Barrier(done) => {
                self.flush();
                let _ = done.send(());
            }
        }
    }

    fn put(&mut self, order: u64, name: u64, key: &[u8], entry: &Entry) {
        let route = self.routes.mark(entry.counters.as_ref());
        let (place, pieces) = match entry.body.on_disk() {
            Some(body) if self.shared.index.has_slices(body.number(), body.slices()) => {
                (Some(BodyPlace::Sliced { body: body.number(), len: entry.body.len() }), Vec::new())
            }
            Some(_) => (None, Vec::new()),
            None if entry.body.len() <= DISK_INLINE_BYTES_MAX => (Some(BodyPlace::Here), entry.body.in_memory().to_vec()),
            None => (self.put_slices(entry, route), Vec::new()),
        };
        let mark = Shared::mark(&entry.variant);
        match place.and_then(|place| encode::encode(key, entry, place)) {
            Some(meta) => {
                let record = Record { kind: Kind::Head, name, mark, route, meta: &meta, body: &pieces };
                self.append(record, Then::Put { order });
            }
            // What is there is older than this.
            None => self.outdate(name, mark),
        }
    }

    /// Writes a large body in slices.
    fn put_slices(&mut self, entry: &Entry, route: RouteMark) -> Option<BodyPlace> {
        let (body, len) = (Shared::random(), entry.body.len());
        let (mut number, mut slicer) = (0, Slicer::default());
        for piece in entry.body.in_memory() {
            let mut piece = piece.clone();
            while !piece.is_empty() {
                if let Some(slice) = slicer.take(&mut piece) {
                    self.put_slice((body, number, route), &slice, None);
                    number += 1;
                }
            }
        }
        if let Some(slice) = slicer.rest() {
            self.put_slice((body, number, route), &slice, None);
        }
        self.flush();
        self.shared.index.has_slices(body, slices(&(0..len))).then_some(BodyPlace::Sliced { body, len })
    }

    fn put_slice(&mut self, (body, number, route): (u64, u32, RouteMark), pieces: &[Bytes], done: Option<oneshot::Sender<bool>>) {
        self.append(Record { kind: Kind::Slice, name: body, mark: number, route, meta: &[], body: pieces }, Then::Slice(done));
    }

    /// Puts a record into the batch.
    fn append(&mut self, record: Record<'_>, then: Then) {
        let body_bytes: usize = record.body.iter().map(Bytes::len).sum();
        let bytes = record::before_body(record.meta.len(), body_bytes) + body_bytes;
        if let Err(error) = self.make_room(bytes.next_multiple_of(ALIGN_BYTES)) {
            if let Some(error) = error {
                self.failed(&error);
            } else {
                self.shared.metrics.disk.skipped_paused.add(1);
            }
            return self.undo(record.kind, record.name, record.mark, then);
        }
        let Some((number, end)) = self.active.as_ref().map(|active| (active.segment.number, active.end)) else {
            return self.undo(record.kind, record.name, record.mark, then);
        };
        let offset = end + self.batch.len() as u32;
        let written = record::encode(&mut self.batch, (record.kind, number.get()), record.name, record.mark, record.meta, record.body);
        if let Some(place) = Place::new(number, offset, written, record.mark) {
            self.pending.push((Item { kind: record.kind, name: record.name, place, route: record.route }, then));
        }
        if self.batch.len() >= DISK_BATCH_BYTES {
            self.flush();
        }
    }

    /// Sees to it that so many bytes fit into the active segment. `Err(None)`: the disk rests.
    fn make_room(&mut self, bytes: usize) -> Result<(), Option<io::Error>> {
        if self.is_paused() {
            return Err(None);
        }
        let list_bytes = |active: &Active, pending: usize| (active.items.len() + pending + 1) * ITEM_BYTES + TRAILER_BYTES;
        let fits = self.active.as_ref().is_some_and(|active| {
            active.end as usize + self.batch.len() + bytes + list_bytes(active, self.pending.len()) <= self.shared.segment_bytes as usize
        });
        if fits {
            return Ok(());
        }
        self.flush();
        // What was to be written before may have failed just now.
        if self.is_paused() {
            return Err(None);
        }
        self.seal();
        self.begin_segment().map_err(Some)
    }

    fn is_paused(&self) -> bool {
        self.paused_until.is_some_and(|until| Instant::now() < until)
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        if self.bound.1.is_some_and(|until| Instant::now() >= until) {
            self.bound = (self.shared.bytes_max, None);
        }
        let segment_bytes = u64::from(self.shared.segment_bytes);
        while self.sealed_bytes() + segment_bytes > self.bound.0 && !self.sealed.is_empty() {
            self.retire_oldest(0);
        }
        let number =
            self.last.checked_add(1).and_then(NonZeroU32::new).ok_or_else(|| io::Error::other("no number for a segment is left"))?;
        let segment = Arc::new(Segment::create(&self.shared.folder, number, self.shared.seed)?);
        self.last = number.get();
        self.shared.segments.write().insert(number, segment.clone());
        self.active = Some(Active { segment, end: HEAD_BYTES, items: Vec::new() });
        // Now the one that the next will take the place of: there is room for what of it is wanted.
        let mut budget = self.shared.segment_bytes as usize / 2;
        while self.sealed_bytes() + 2 * segment_bytes > self.bound.0 && !self.sealed.is_empty() {
            budget = self.retire_oldest(budget);
        }
        self.count_bytes();
        Ok(())
    }

    fn sealed_bytes(&self) -> u64 {
        self.sealed.values().sum()
    }

    fn count_bytes(&self) {
        let active = self.active.as_ref().map_or(0, |active| active.end.into());
        self.shared.bytes.store(self.sealed_bytes() + active, Relaxed);
    }

    /// Writes the batch.
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let (batch, pending) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.pending));
        let Some(active) = &mut self.active else { return };
        if let Err(error) = active.segment.write(active.end.into(), &batch) {
            self.failed(&error);
            for (item, then) in pending {
                self.undo(item.kind, item.name, item.place.mark(), then);
            }
            return;
        }
        active.end += batch.len() as u32;
        active.items.extend(pending.iter().map(|(item, _)| *item));
        if self.paused_until.take().is_some() {
            self.shared.metrics.disk.failing.set(0);
            tracing::debug!(folder = %self.shared.folder.display(), "cache: the disk takes writes again");
        }
        self.shared.metrics.disk.writes.add(pending.len() as u64);
        self.shared.metrics.disk.written_bytes.add(batch.len() as u64);
        for (item, then) in pending {
            self.written(item, then);
        }
        // The buffer stays, unless one large record has made it large.
        if batch.capacity() <= 2 * DISK_BATCH_BYTES {
            self.batch = batch;
            self.batch.clear();
        }
        self.count_bytes();
    }

    fn written(&mut self, Item { kind, name, place, .. }: Item, then: Then) {
        let index = &self.shared.index;
        match then {
            Then::Put { order } => {
                let gone = index.put(name, place.in_memory(), order);
                gone.iter().for_each(|place| self.kill(name, *place));
            }
            Then::Slice(done) => {
                index.put_slice(name, place);
                if let Some(done) = done {
                    let _ = done.send(true);
                }
            }
            Then::Moved(from) if kind == Kind::Slice => index.moved_slice(name, from, place),
            Then::Moved(from) => {
                if !index.moved(name, from, place) {
                    self.kill(name, place);
                }
            }
        }
    }

    /// A record was not written.
    fn undo(&mut self, kind: Kind, name: u64, mark: u32, then: Then) {
        match then {
            Then::Put { .. } => self.outdate(name, mark),
            Then::Slice(done) => {
                if let Some(done) = done {
                    let _ = done.send(false);
                }
            }
            Then::Moved(from) if kind == Kind::Slice => self.shared.index.remove_slice(name, from),
            Then::Moved(from) => self.shared.index.remove(name, from),
        }
    }

    /// What is stored of a variant is older than what could not be written.
    fn outdate(&mut self, name: u64, mark: u32) {
        let gone = self.shared.index.remove_marked(name, mark);
        gone.iter().for_each(|place| self.kill(name, *place));
    }

    fn kill(&self, name: u64, place: Place) {
        let segment = self.shared.segments.read().get(&place.segment()).cloned();
        if let Some(segment) = segment
            && let Err(error) = segment.kill(place, name)
        {
            tracing::warn!(folder = %self.shared.folder.display(), %error, "cache: cannot mark a response as gone on disk");
            self.shared.metrics.disk.write_errors.add(1);
        }
    }

    fn seal(&mut self) {
        let Some(Active { segment, end, items }) = self.active.take() else { return };
        let bytes = segment.seal(end, &items).unwrap_or_else(|error| {
            tracing::debug!(%error, "cache: a segment stays without a list");
            end.into()
        });
        self.sealed.insert(segment.number, bytes);
    }

    /// A write has failed.
    fn failed(&mut self, error: &io::Error) {
        self.shared.metrics.disk.write_errors.add(1);
        self.shared.metrics.disk.failing.set(1);
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge);
        if self.told_until.is_none_or(|until| Instant::now() >= until) {
            self.told_until = Some(Instant::now() + DISK_BOUND_RETRY);
            let folder = self.shared.folder.display();
            if full {
                tracing::error!(%folder, %error, "cache: the disk is full: nothing is written for a while, older entries give way, what is stored is served on");
            } else {
                tracing::error!(%folder, %error, "cache: the disk fails: nothing is written for a while, what is stored is served on");
            }
        }
        self.batch.clear();
        self.seal();
        if full {
            if !self.sealed.is_empty() {
                self.retire_oldest(0);
            }
            self.bound = (self.sealed_bytes().max(2 * u64::from(self.shared.segment_bytes)), Some(Instant::now() + DISK_BOUND_RETRY));
        }
        self.paused_until = Some(Instant::now() + DISK_PAUSE);
        self.count_bytes();
    }

    /// The oldest segment goes; what of it is wanted is written again, up to `budget` bytes. Gives what is left of those.
    fn retire_oldest(&mut self, mut budget: usize) -> usize {
        let Some((number, bytes)) = self.sealed.pop_first() else { return budget };
        let Some(segment) = self.shared.segments.read().get(&number).cloned() else { return budget };
        match segment.listing(bytes) {
            Ok(listing) => {
                for item in listing.items {
                    budget = self.retire(&segment, item, budget);
                }
                self.flush();
            }
            Err(error) => {
                tracing::warn!(%error, "cache: a segment that goes cannot be listed");
                self.shared.index.drop_segment(number);
            }
        }
        self.shared.segments.write().remove(&number);
        segment.remove();
        budget
    }

    fn retire(&mut self, segment: &Segment, Item { kind, name, place, route }: Item, budget: usize) -> usize {
        let index = &self.shared.index;
        let retired = match kind {
            Kind::Head => index.retire(name, place),
            Kind::Slice => index.retire_slice(name, place),
            Kind::Dead => Retired::Gone,
        };
        let bytes = place.bytes() as usize;
        match retired {
            Retired::Gone => return budget,
            Retired::Dropped => {}
            Retired::Read | Retired::InMemory => {
                let record = if bytes <= budget { segment.record(place) } else { None };
                match record.filter(|(meta, _)| retired == Retired::Read || self.shared.is_in_memory(meta)) {
                    Some((meta, body)) => {
                        self.shared.metrics.disk.kept.add(1);
                        self.append(Record { kind, name, mark: place.mark(), route, meta: &meta, body: &[body] }, Then::Moved(place));
                        return budget - bytes;
                    }
                    None => self.undo(kind, name, place.mark(), Then::Moved(place)),
                }
            }
        }
        self.shared.metrics.disk.evictions.add(1);
        self.routes.evicted(route);
        budget
    }

    /// All that is stored goes: so many orders to forget wait that nothing is known for sure.
    fn abandon(&mut self) {
        tracing::warn!(folder = %self.shared.folder.display(), "cache: the disk is too slow to forget: all that it has is dropped");
        self.batch.clear();
        self.pending.clear();
        self.seal();
        while let Some((number, _)) = self.sealed.pop_first() {
            let segment = self.shared.segments.write().remove(&number);
            if let Some(segment) = segment {
                segment.remove();
            }
        }
        self.shared.index.clear();
        self.count_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::disk::{BYTES_MIN, Disk, DiskConfig};
    use crate::cache::tests::entry;

    #[test]
    fn what_fails_on_the_way_to_a_new_segment_pauses_the_writer() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = DiskConfig { folder: folder.path().to_owned(), bytes_max: BYTES_MIN };
        let disk = Disk::open(&config, Arc::default()).expect("a disk");
        let mut writer = Writer::new(disk.shared.clone(), BTreeMap::new());
        let segment = Arc::new(Segment::full(NonZeroU32::MIN).expect("a device"));
        writer.active = Some(Active { segment, end: disk.shared.segment_bytes - 10_000, items: Vec::new() });
        writer.put(1, 7, b"small", &entry(b"fits"));
        assert!(!writer.batch.is_empty());
        writer.put(2, 8, b"large", &entry(&[0; 20_000]));
        assert!(writer.active.is_none() && writer.batch.is_empty() && disk.shared.segments.read().is_empty());
        let counters = &disk.shared.metrics.disk;
        assert_eq!((counters.write_errors.get(), counters.skipped_paused.get(), counters.writes.get()), (1, 1, 0));
    }
}
