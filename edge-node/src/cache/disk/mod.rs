//! The disk tier: what is stored in memory is stored here too, and is there again after a restart. It is asked when memory has nothing, before the upstream is.
//!
//! A folder of [`segment`]s, each a file that is written from its begin to its end by one [`writer`] and then never again (but to mark a head as gone); the oldest goes when
//! there is no room. An [`index`] in memory says where each response is; it is loaded from the segments' lists when the node starts ([`recover`]), while it
//! serves: who asks for what may be there waits for its part of the index. A response is a [`record`] with a head ([`encode`]) and its bytes; the bytes of large ones are slices of their own ([`body`]), so that a range of them is read
//! without the rest, and a new head after a `304` costs a head.
//!
//! What holds: nothing is believed before its checksum was seen, so that torn and rotten bytes are misses; nothing is synced, so that a killed process loses only what it had not
//! written yet, and a machine that loses its power loses what the kernel had not; no async thread waits for the disk; a disk that is slow, full or broken costs hits, and
//! nothing else.
//!
//! What was forgotten (RFC 9111, section 4.4) is gone from the index at once, and from the disk when the writer comes to it, a moment later; purges are judged when an entry is read.

mod body;
mod counters;
mod encode;
mod hot;
mod index;
mod place;
mod queue;
mod reader;
mod record;
mod recover;
mod routes;
mod segment;
mod slice;
mod spill;
mod writer;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::RwLock;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::entry::{Entry, StoredBody};
use super::tier::Tier;
use super::vary::Variant;
use crate::limits::{DISK_RECALL_WAIT, DISK_SEGMENT_BYTES_MAX, DISK_SEGMENT_BYTES_MIN, DISK_SEGMENTS, DISK_SHARE_MAX};
use crate::metrics::{Metrics, RouteCounters};

pub use body::DiskBody;
pub use counters::DiskCounters;
use encode::BodyPlace;
use index::Index;
use place::Place;
use queue::{Order, Queue};
use reader::Readers;
use segment::Segment;
pub use spill::{Spill, TooSlow};
use writer::Writer;

/// Where the disk tier is, and how large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// Its folder; made if it is missing. No two nodes may share it.
    pub folder: PathBuf,
    /// Bytes of all its files, [`BYTES_MIN`] to [`BYTES_MAX`].
    pub bytes_max: u64,
}

/// The smallest disk tier, in bytes.
pub const BYTES_MIN: u64 = 32 << 20;
/// The largest, in bytes: beyond, a segment would be longer than its offsets.
pub const BYTES_MAX: u64 = 8 << 40;

/// What the disk tier holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Responses.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes that wait to be written.
    pub waiting_bytes: u64,
}

/// The disk tier. Dropping it writes what waits.
pub(super) struct Disk {
    shared: Arc<Shared>,
    writer: Option<std::thread::JoinHandle<()>>,
    /// Held as long as the folder is used.
    _lock: std::fs::File,
}

/// What the writer, readers and bodies share.
pub(super) struct Shared {
    folder: PathBuf,
    bytes_max: u64,
    segment_bytes: u32,
    /// Of the hashes of keys: nobody outside can choose keys that collide.
    seed: u64,
    index: Index,
    queue: Queue,
    readers: Readers,
    segments: RwLock<BTreeMap<NonZeroU32, Arc<Segment>>>,
    bytes: AtomicU64,
    memory: OnceLock<Weak<dyn Tier>>,
    metrics: Arc<Metrics>,
}

/// What was found on disk, and where: for whoever puts it into memory to make sure that it was not forgotten meanwhile.
pub(super) struct Recalled {
    pub(super) entry: Arc<Entry>,
    name: u64,
    place: Place,
}

impl Disk {
    /// Opens the tier. What earlier runs have stored is there a moment later.
    pub(super) fn open(config: &DiskConfig, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let bytes_max = config.bytes_max.clamp(BYTES_MIN, BYTES_MAX);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.folder)?;
        let lock = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(config.folder.join("lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| std::io::Error::new(std::io::Error::from(error).kind(), "another process uses this folder"))?;
        let segment_bytes = segment_bytes(bytes_max);
        let left = recover::open(&config.folder, bytes_max, segment_bytes)?;
        let shared = Arc::new(Shared {
            folder: config.folder.clone(),
            bytes_max,
            segment_bytes,
            seed: left.seed.unwrap_or_else(Shared::random),
            index: Index::new(),
            queue: Queue::default(),
            readers: Readers::default(),
            segments: RwLock::new(left.segments),
            bytes: AtomicU64::new(0),
            memory: OnceLock::new(),
            metrics,
        });
        let writer = Writer::new(shared.clone(), left.bytes);
        let writer = crate::tasks::thread("cache-disk", move || writer.run())?;
        Ok(Self { shared, writer: Some(writer), _lock: lock })
    }

    /// Tells it which tier is in front of it: what is there is kept here too.
    pub(super) fn behind(&self, memory: &Arc<dyn Tier>) {
        let _ = self.shared.memory.set(Arc::downgrade(memory));
    }

    /// Stores a response, in its turn; what is stored of its variant is not used any more where there is no room for it. Gives whether there is.
    pub(super) fn put(&self, key: &[u8], entry: &Arc<Entry>) -> bool {
        let name = self.shared.name(key);
        let order = Order::Put { name, key: key.into(), entry: entry.clone() };
        let has_room = self.shared.queue.push(order).is_ok();
        if !has_room {
            self.shared.metrics.disk.skipped_queue.add(1);
            // Also what still waits to be written.
            self.forget(key);
        }
        has_room
    }

    /// Whether so many bytes would find room among what waits to be written.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.shared.queue.has_room(bytes)
    }

    /// A body of a route that is to be written while it arrives.
    pub(super) fn spill(&self, route: Option<&Arc<RouteCounters>>) -> Spill {
        Spill::new(self.shared.clone(), route.cloned())
    }

    /// The largest body that it takes, in bytes.
    pub(super) fn body_bytes_max(&self) -> u64 {
        self.shared.bytes_max / DISK_SHARE_MAX
    }

    /// Forgets a key: at once for whoever asks, and for what was ordered before.
    pub(super) fn forget(&self, key: &[u8]) {
        let Shared { queue, index, .. } = &*self.shared;
        let name = self.shared.name(key);
        if !queue.kill(name, |order| index.forget(name, order)) {
            queue.abandon(|order| index.forget_all(order));
        }
    }

    /// Memory has this key no more.
    pub(super) fn left_memory(&self, key: &[u8]) {
        self.shared.index.left_memory(self.shared.name(key));
    }

    /// Whether something of this key is known. (When a node has just started not all is.)
    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.shared.index.has(self.shared.name(key))
    }

    /// Whether there may be something of this key.
    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        self.shared.index.may_have(self.shared.name(key))
    }

    /// The newest response that answers a request with these fields, counted as one of a route. None also where the disk is too slow. Cancel-safe.
    pub(super) async fn recall(&self, key: &[u8], request: &HeaderMap, route: Option<&Arc<RouteCounters>>) -> Option<Recalled> {
        let recalled = tokio::time::timeout(DISK_RECALL_WAIT, self.shared.find(key, request, route)).await;
        recalled.inspect_err(|_| self.shared.metrics.disk.skipped_reads.add(1)).ok().flatten()
    }

    /// What [`Self::recall`] would find first; looking counts as no use, and nothing is forgotten. Cancel-safe.
    pub(super) async fn peek(&self, key: &[u8], request: &HeaderMap) -> Option<Arc<Entry>> {
        tokio::time::timeout(DISK_RECALL_WAIT, self.shared.peek(key, request)).await.ok().flatten()
    }

    /// Whether it was not forgotten or replaced meanwhile.
    pub(super) fn is_current(&self, recalled: &Recalled) -> bool {
        self.shared.index.is_current(recalled.name, recalled.place)
    }

    /// Drops what was found: it was purged.
    pub(super) fn discard(&self, recalled: &Recalled) {
        self.shared.index.remove(recalled.name, recalled.place);
    }

    /// What it holds.
    pub(super) fn usage(&self) -> DiskUsage {
        let shared = &self.shared;
        DiskUsage { entries: shared.index.heads(), bytes: shared.bytes.load(Relaxed), waiting_bytes: shared.queue.bytes() }
    }

    /// Waits until all that was ordered is done.
    pub(super) async fn settled(&self) {
        let _ = self.shared.queue.barrier().await;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            // Its queue is bounded; a panic in it was logged.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn name(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }

    /// What tells the variants of a key apart.
    fn mark(variant: &Variant) -> u32 {
        xxh3_64(&variant.discriminator()) as u32
    }

    /// A number that nobody guesses, and that no other body has.
    fn random() -> u64 {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        high ^ low.rotate_left(32)
    }

    fn is_in_memory(&self, meta: &Bytes) -> bool {
        let Some(memory) = self.memory() else { return false };
        encode::decode(meta.clone()).is_ok_and(|head| memory.holds(&head.key))
    }

    async fn find(self: &Arc<Self>, key: &[u8], request: &HeaderMap, route: Option<&Arc<RouteCounters>>) -> Option<Recalled> {
        let name = self.name(key);
        self.index.until_loaded(name).await;
        let mut places = self.index.places(name);
        let mut at = 0;
        while let Some(place) = places.get(at).copied() {
            at += 1;
            let Ok((meta, body)) = self.read_head(name, place).await else { continue };
            let Ok(head) = encode::decode(Bytes::copy_from_slice(&meta)) else {
                self.index.remove(name, place);
                continue;
            };
            // Another key with the same hash.
            if head.key != key {
                continue;
            }
            if !head.variant.matches(request) {
                // The one that this request would be stored as is next.
                let wanted = head.variant.names().map(|names| Self::mark(&Variant::new(names, request)));
                if let Some(found) = places.get(at..).and_then(|rest| rest.iter().position(|place| Some(place.mark()) == wanted)) {
                    places.swap(at, at + found);
                }
                continue;
            }
            let Some(body) = self.body(head.body, &body) else { continue };
            self.metrics.disk.read_bytes.add(place.bytes().into());
            let mut entry = head.into_entry(body);
            if let Some(route) = route {
                entry.count_by(route);
            }
            return Some(Recalled { entry: Arc::new(entry), name, place });
        }
        None
    }

    async fn peek(self: &Arc<Self>, key: &[u8], request: &HeaderMap) -> Option<Arc<Entry>> {
        let name = self.name(key);
        self.index.until_loaded(name).await;
        for place in self.index.places(name) {
            let Ok((meta, body)) = self.try_read_head(name, place).await else { continue };
            let Ok(head) = encode::decode(meta) else { continue };
            if head.key == key
                && head.variant.matches(request)
                && let Some(body) = self.body(head.body, &body)
            {
                return Some(Arc::new(head.into_entry(body)));
            }
        }
        None
    }

    /// A body that is behind its head (a copy, so that it pins nothing else), or in slices; none where those are gone.
    fn body(self: &Arc<Self>, place: BodyPlace, behind: &[u8]) -> Option<StoredBody> {
        let body = match place {
            BodyPlace::Here => StoredBody::new(&[Bytes::copy_from_slice(behind)]),
            BodyPlace::Sliced { body, len } => StoredBody::sliced(DiskBody::new(self.clone(), body, len)),
        };
        let is_gone = body.on_disk().is_some_and(|body| !body.is_there());
        (!is_gone).then_some(body)
    }
}

/// The length of a segment: a fixed part of the whole, within bounds.
fn segment_bytes(bytes_max: u64) -> u32 {
    let wanted = (bytes_max / DISK_SEGMENTS).clamp(DISK_SEGMENT_BYTES_MIN, DISK_SEGMENT_BYTES_MAX);
    // Each is an open file: of a very large tier there are no more of them, but longer ones.
    u32::try_from(wanted.max(bytes_max / 4096)).unwrap_or(u32::MAX)
}

/// Heads as they are stored, for whoever generates damaged ones.
pub fn fuzz_seeds() -> Vec<Vec<u8>> {
    use super::freshness::Freshness;
    use super::purge::{Realm, Stamp};
    use super::time::Time;
    let mut seeds = Vec::new();
    for (vary, body) in [("", BodyPlace::Here), ("accept, x-a", BodyPlace::Sliced { body: 7, len: 1 << 30 })] {
        let response = http::Response::builder().header("content-type", "text/html").header("cache-tag", "a, b").header("vary", vary);
        let Ok((head, ())) = response.body(()).map(http::Response::into_parts) else { continue };
        let request = HeaderMap::from_iter([(http::header::ACCEPT, http::HeaderValue::from_static("*/*"))]);
        let variant = match super::vary::Vary::of(&head.headers) {
            super::vary::Vary::On(names) => Variant::new(&names, &request),
            _ => Variant::default(),
        };
        let control = super::control::Control::of_response(&head.headers);
        let freshness = Freshness { lifetime_ms: 60_000, initial_age_ms: 5, received: Time(1_700_000_000_000) };
        let entry = Entry::new(head, StoredBody::default(), control, freshness, variant, Stamp { number: 3, realm: Realm(4) });
        let Some(meta) = encode::encode(b"u\nhttps\na.org\n/", &entry, body) else { continue };
        let mut record = Vec::new();
        record::encode(&mut record, (record::Kind::Head, 1), 2, 3, &meta, &[Bytes::from_static(b"body")]);
        seeds.extend([meta, record]);
    }
    seeds
}

/// Feeds generated bytes to the decoders of records and heads.
pub fn fuzz(bytes: &[u8]) {
    encode::fuzz(bytes);
    let _ = record::decode(&Bytes::copy_from_slice(bytes));
}

/// The folder of the disk tier under a node's data.
pub fn folder(data: &Path) -> PathBuf {
    data.join("cache")
}

#[cfg(test)]
pub(crate) mod tests;
