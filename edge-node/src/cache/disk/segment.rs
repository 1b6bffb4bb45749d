//! One segment: a file of records, written from its begin to its end, and at its end the list of what is in it, so that a start need not read the records.
//!
//! ```text
//! head (32)     magic u64 · number u32 · 0 u32 · seed u64 · sum u64
//! records       see `record`
//! list          24 bytes for each record: name u64 · mark u32 · offset u32 · bytes u32 · kind u8 · route u24 (0: none, or not known)
//! trailer (32)  magic u64 · number u32 · records u32 · where the list begins u64 · sum of list and trailer u64
//! ```
//!
//! A segment without a whole list (its node was killed) is scanned from header to header; where that ends, its last write was torn.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::place::Place;
use super::record::{self, ALIGN_BYTES, Fields, HEADER_BYTES, Header, Kind};
use super::routes::RouteMark;

/// Length of a segment's head.
pub(super) const HEAD_BYTES: u32 = 32;
/// Length of an item of its list.
pub(super) const ITEM_BYTES: usize = 24;
/// Length of its trailer.
pub(super) const TRAILER_BYTES: usize = 32;

const HEAD_MAGIC: u64 = u64::from_le_bytes(*b"SlvgSeg1");
const TRAILER_MAGIC: u64 = u64::from_le_bytes(*b"SlvgEnd1");
/// What a scan reads at once, in bytes.
const SCAN_BYTES: usize = 1 << 20;

/// An open segment. Reading goes on after its file was removed.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: NonZeroU32,
    path: PathBuf,
    file: File,
}

/// What a segment's list says of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) kind: Kind,
    pub(super) name: u64,
    pub(super) place: Place,
    /// A scan does not know it.
    pub(super) route: RouteMark,
}

/// All records of a segment, in the order in which they were written.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) items: Vec<Item>,
    /// Where records end.
    pub(super) end: u32,
    /// There was no list: this is what a scan found.
    pub(super) scanned: bool,
}

/// The name of a segment's file.
pub(super) fn file_name(number: u32) -> String {
    format!("{number:08x}.segment")
}

/// The number in the name of a segment's file.
pub(super) fn number_of(name: &str) -> Option<NonZeroU32> {
    let digits = name.strip_suffix(".segment").filter(|digits| digits.len() == 8)?;
    NonZeroU32::new(u32::from_str_radix(digits, 16).ok()?)
}

impl Segment {
    /// A new one. Its keys are hashed with `seed`.
    pub(super) fn create(folder: &Path, number: NonZeroU32, seed: u64) -> io::Result<Self> {
        let path = folder.join(file_name(number.get()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let segment = Self { number, path, file };
        if let Err(error) = segment.write(0, &segment.head(seed)) {
            segment.remove();
            return Err(error);
        }
        Ok(segment)
    }

    /// One that is there, and its seed.
    pub(super) fn open(folder: &Path, number: NonZeroU32) -> io::Result<(Self, u64)> {
        let path = folder.join(file_name(number.get()));
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let segment = Self { number, path, file };
        let mut head = [0; HEAD_BYTES as usize];
        segment.file.read_exact_at(&mut head, 0)?;
        let mut fields = Fields(&head);
        fields.skip(16);
        let seed = fields.u64();
        if segment.head(seed) != head {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a segment of this format"));
        }
        Ok((segment, seed))
    }

    /// One on a disk without room.
    #[cfg(test)]
    pub(super) fn full(number: NonZeroU32) -> io::Result<Self> {
        let path = PathBuf::from("/dev/full");
        Ok(Self { number, file: OpenOptions::new().write(true).open(&path)?, path })
    }

    fn head(&self, seed: u64) -> [u8; HEAD_BYTES as usize] {
        let mut said = Vec::with_capacity(HEAD_BYTES as usize);
        said.extend_from_slice(&HEAD_MAGIC.to_le_bytes());
        said.extend_from_slice(&u64::from(self.number.get()).to_le_bytes());
        said.extend_from_slice(&seed.to_le_bytes());
        let sum = xxh3_64(&said);
        said.extend_from_slice(&sum.to_le_bytes());
        let mut head = [0; HEAD_BYTES as usize];
        head.iter_mut().zip(said).for_each(|(to, from)| *to = from);
        head
    }

    /// Its length, in bytes.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads so many bytes, waiting for the disk.
    pub(super) fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; bytes];
        self.file.read_exact_at(&mut buffer, offset)?;
        Ok(buffer)
    }

    /// Reads so many bytes where the kernel has them in memory; never waits for the disk. None where it would, or cannot tell.
    pub(super) fn read_at_once(&self, offset: u64, bytes: usize) -> Option<Vec<u8>> {
        let mut buffer = vec![0; bytes];
        let mut parts = [io::IoSliceMut::new(&mut buffer)];
        let read = rustix::io::preadv2(&self.file, &mut parts, offset, rustix::io::ReadWriteFlags::NOWAIT).ok()?;
        (read == bytes).then_some(buffer)
    }

    /// Writes at a place.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Ends it: drops what lies behind `end`, and appends the list. Gives its length, in bytes. Without room for the list it is left without one, `end` bytes long.
    pub(super) fn seal(&self, end: u32, items: &[Item]) -> io::Result<u64> {
        let list = list(self.number, end, items);
        self.file.set_len(end.into())?;
        self.write(end.into(), &list).inspect_err(|_| drop(self.file.set_len(end.into())))?;
        Ok(u64::from(end) + list.len() as u64)
    }

    /// Its records; it has `len` bytes.
    pub(super) fn listing(&self, len: u64) -> io::Result<Listing> {
        match self.list(len)? {
            Some(listing) => Ok(listing),
            None => self.scan(len),
        }
    }

    /// Meta and body of a record; none where they are not what was written.
    pub(super) fn record(&self, place: Place) -> Option<(Bytes, Bytes)> {
        let record = self.read(place.offset().into(), place.bytes() as usize).ok()?;
        record::decode(&record.into()).ok().map(|(_, meta, body)| (meta, body))
    }

    fn list(&self, len: u64) -> io::Result<Option<Listing>> {
        let Some(trailer_at) = len.checked_sub(TRAILER_BYTES as u64).filter(|at| *at >= HEAD_BYTES.into()) else { return Ok(None) };
        let trailer = self.read(trailer_at, TRAILER_BYTES)?;
        let mut fields = Fields(&trailer);
        let (magic, number, count, begin) = (fields.u64(), fields.u32(), fields.u32(), fields.u64());
        let list_bytes = u64::from(count) * ITEM_BYTES as u64;
        if magic != TRAILER_MAGIC || number != self.number.get() || begin.checked_add(list_bytes) != Some(trailer_at) {
            return Ok(None);
        }
        let (Ok(end), Ok(list_bytes)) = (u32::try_from(begin), usize::try_from(list_bytes)) else { return Ok(None) };
        let list = self.read(begin, list_bytes + TRAILER_BYTES - 8)?;
        if fields.u64() != xxh3_64(&list) {
            return Ok(None);
        }
        let items = list.chunks_exact(ITEM_BYTES).take(count as usize).filter_map(|item| self.item(item)).collect();
        Ok(Some(Listing { items, end, scanned: false }))
    }

    fn item(&self, item: &[u8]) -> Option<Item> {
        let mut fields = Fields(item);
        let (name, mark, offset, bytes) = (fields.u64(), fields.u32(), fields.u32(), fields.u32());
        let (route, kind) = RouteMark::split(fields.u32());
        Some(Item { kind: Kind::of(kind)?, name, route, place: Place::new(self.number, offset, bytes, mark)? })
    }

    /// Walks from header to header.
    fn scan(&self, len: u64) -> io::Result<Listing> {
        let mut items = Vec::new();
        let mut window = (0_u64, Vec::new());
        let mut at = u64::from(HEAD_BYTES);
        while at + HEADER_BYTES as u64 <= len {
            if at < window.0 || at + HEADER_BYTES as u64 > window.0 + window.1.len() as u64 {
                window = (at, self.read(at, SCAN_BYTES.min((len - at) as usize))?);
            }
            let Some(header) = window.1.get((at - window.0) as usize..).and_then(|bytes| Header::decode(bytes).ok()) else { break };
            let bytes = header.record_bytes() as u64;
            let place = u32::try_from(at).ok().and_then(|offset| Place::new(self.number, offset, bytes as u32, header.mark));
            let Some(place) = place.filter(|_| header.segment == self.number.get() && at + bytes <= len) else { break };
            items.push(Item { kind: header.kind, name: header.name, place, route: RouteMark::default() });
            at += bytes.next_multiple_of(ALIGN_BYTES as u64);
        }
        Ok(Listing { items, end: u32::try_from(at).unwrap_or(u32::MAX), scanned: true })
    }

    /// Marks a head as gone, in its place: no restart finds it again, and it takes no room. Does nothing where another record is.
    pub(super) fn kill(&self, place: Place, name: u64) -> io::Result<()> {
        let Ok(mut header) = Header::decode(&self.read(place.offset().into(), HEADER_BYTES)?) else { return Ok(()) };
        if header.kind != Kind::Head || header.name != name {
            return Ok(());
        }
        header.kind = Kind::Dead;
        self.write(place.offset().into(), &header.encode())
    }

    /// Removes its file; whoever reads it may go on.
    pub(super) fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(file = %self.path.display(), %error, "cache: cannot remove a segment");
        }
    }
}

fn list(number: NonZeroU32, begin: u32, items: &[Item]) -> Vec<u8> {
    let mut list = Vec::with_capacity(items.len() * ITEM_BYTES + TRAILER_BYTES);
    for item in items {
        list.extend_from_slice(&item.name.to_le_bytes());
        for field in [item.place.mark(), item.place.offset(), item.place.bytes(), item.route.above(item.kind as u8)] {
            list.extend_from_slice(&field.to_le_bytes());
        }
    }
    list.extend_from_slice(&TRAILER_MAGIC.to_le_bytes());
    for field in [number.get(), items.len() as u32] {
        list.extend_from_slice(&field.to_le_bytes());
    }
    list.extend_from_slice(&u64::from(begin).to_le_bytes());
    let sum = xxh3_64(&list);
    list.extend_from_slice(&sum.to_le_bytes());
    list
}

#[cfg(test)]
mod tests {
    use super::super::record::encode;
    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    fn written(folder: &Path, records: u64) -> (Segment, Vec<Item>, u32) {
        let segment = Segment::create(folder, ONE, 9).expect("a segment");
        let (mut bytes, mut items) = (Vec::new(), Vec::new());
        for name in 0..records {
            let offset = HEAD_BYTES + bytes.len() as u32;
            let body = [vec![name as u8; 3 + name as usize * 100].into()];
            let length = encode(&mut bytes, (Kind::Head, 1), name, 5, b"meta", &body);
            let place = Place::new(ONE, offset, length, 5).expect("a place");
            items.push(Item { kind: Kind::Head, name, place, route: RouteMark::default() });
        }
        segment.write(HEAD_BYTES.into(), &bytes).expect("room");
        (segment, items, HEAD_BYTES + bytes.len() as u32)
    }

    #[test]
    fn a_sealed_segment_lists_what_a_scan_finds() {
        let folder = tempfile::tempdir().expect("a folder");
        let (segment, items, end) = written(folder.path(), 40);
        let scanned = segment.listing(segment.len().expect("a length")).expect("a listing");
        assert_eq!((&scanned.items, scanned.end, scanned.scanned), (&items, end, true));
        segment.seal(end, &items).expect("room");
        let (again, seed) = Segment::open(folder.path(), ONE).expect("a segment");
        let listed = again.listing(again.len().expect("a length")).expect("a listing");
        assert_eq!((listed.items, listed.end, listed.scanned, seed), (items, end, false, 9));
    }

    #[test]
    fn a_torn_segment_gives_what_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let (segment, items, end) = written(folder.path(), 10);
        segment.seal(end, &items).expect("room");
        let whole = std::fs::read(folder.path().join(file_name(1))).expect("the file");
        for cut in [whole.len() - 1, end as usize + 30, end as usize, end as usize - 9, 1_000, 100, 32] {
            std::fs::write(folder.path().join(file_name(1)), &whole[..cut]).expect("room");
            let (segment, _) = Segment::open(folder.path(), ONE).expect("a segment");
            let listing = segment.listing(segment.len().expect("a length")).expect("a listing");
            let expected: Vec<Item> =
                items.iter().filter(|item| (item.place.offset() + item.place.bytes()) as usize <= cut).copied().collect();
            assert_eq!((listing.items, listing.scanned), (expected, true), "{cut} bytes");
        }
        std::fs::write(folder.path().join(file_name(1)), &whole[..31]).expect("room");
        assert!(Segment::open(folder.path(), ONE).is_err());
    }

    #[test]
    fn a_killed_head_stays_a_step_of_the_scan() {
        let folder = tempfile::tempdir().expect("a folder");
        let (segment, items, _) = written(folder.path(), 3);
        segment.kill(items[1].place, 999).expect("another name");
        segment.kill(items[1].place, 1).expect("a kill");
        let kinds: Vec<Kind> =
            segment.listing(segment.len().expect("a length")).expect("a listing").items.iter().map(|item| item.kind).collect();
        assert_eq!(kinds, [Kind::Head, Kind::Dead, Kind::Head]);
    }
}
