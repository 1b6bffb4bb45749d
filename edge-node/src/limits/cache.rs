//! The bounds of what is stored: in memory, on disk, compressed, and of the hints that are learned from it.

use std::time::Duration;

// --- the cache ---

/// Fetches that fill the cache at one time. Beyond, requests fetch for themselves and store nothing: each fill is a task with buffers.
pub const FILLS_MAX: usize = 4_096;

/// Part of these that nobody may follow: half. However many ask for what is not shared, there is room for what is.
pub const FILLS_ALONE_SHARE: usize = 2;

/// Requests that follow one fetch. Beyond, they fetch for themselves.
pub const FILL_READERS_MAX: usize = 4_096;

/// For how long the readers of one that is not stored wait for a reader that takes less than [`FILL_WINDOW_BYTES`] in that time. Half of [`FILL_IDLE_TIMEOUT`]: a reader may
/// be a fetch itself (another coding's, another node's), and should not be given up meanwhile.
pub const FILL_READERS_PATIENCE: Duration = Duration::from_secs(15);

/// Bytes that a fill holds for its slowest reader once the response is too large to be stored.
pub const FILL_WINDOW_BYTES: u64 = 1 << 20;

/// The same where readers hold too much already.
pub const FILL_NARROW_WINDOW_BYTES: u64 = 64 << 10;

/// What a chunk is charged beyond its bytes, so that many tiny chunks do not pass for few bytes.
pub const FILL_CHUNK_OVERHEAD_BYTES: u64 = 64;

/// A fill whose upstream sends nothing for this time is given up; the same 30 s as a worker's body. An upstream's owner may declare more.
pub const FILL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a request looks again after the fetch that it followed gave it nothing (it failed, or was for another variant).
pub const COLLAPSE_ROUNDS_MAX: usize = 3;

/// How often a request that wants slices starts over because the object has changed meanwhile, before it is fetched as any other.
pub const SLICE_ROUNDS_MAX: usize = 2;

/// Part of the memory cache that one entry may take: an eighth. A larger one would push out much for little; it is stored on disk only, or not at all.
pub const MEMORY_SHARE_MAX: u64 = 8;

/// Part of the memory cache that bodies may take beside it: a half. Fetches that fill it, and readers of what has left it. Beyond, what is fetched is not held, and goes at the
/// pace of who reads it.
pub const BESIDE_MEMORY_SHARE: u64 = 2;

/// Shorter bodies are not counted there: a connection holds as much of its own, and they are many.
pub const COUNTED_BODY_BYTES_MIN: u64 = 16 << 10;

/// Part of the memory cache that is kept for what was asked for before: a 32nd. What is asked for once comes in while there is more room than that.
pub const MEMORY_RESERVE_SHARE: u64 = 32;

/// For each so many bytes of the memory cache, in bytes, one key that was asked for is remembered, with 4 bytes: a usual object.
pub const ASKED_NAME_SHARE_BYTES: u64 = 4 << 10;

/// Keys that are remembered at least: 4 KiB of memory.
pub const ASKED_NAMES_MIN: u64 = 1 << 10;

/// Keys that are remembered at most: 64 MiB of memory, for a cache of 64 GiB.
pub const ASKED_NAMES_MAX: u64 = 1 << 24;

/// How long nobody waits for another's fetch of a key whose answer was not for the cache, in milliseconds. Long enough to spare a burst the wait, short enough
/// that a page that becomes cacheable is collapsed again soon.
pub const UNCOLLAPSED_MS: u64 = 10_000;

/// Hosts, URLs and tags whose last purge is remembered, at about 120 bytes each. Beyond, everything that was stored before the oldest of them counts as purged.
pub const PURGED_NAMES_MAX: usize = 100_000;

/// Prefixes whose last purge is remembered: they are kept as text, of at most 1 KiB. Beyond, as with [`PURGED_NAMES_MAX`].
pub const PURGED_PREFIXES_MAX: usize = 10_000;

// --- early hints ---

/// Answers whose links are remembered for `103 Early Hints`, at about 1 KiB each: the pages of some sites.
pub const HINTS_MAX: usize = 4_096;

/// Links in one `103`. Browsers act on the first few; a page that preloads more delays itself.
pub const HINT_LINKS_MAX: usize = 16;

/// Bytes of the links in one `103`: it should fit into the first packets beside the rest.
pub const HINT_LINKS_BYTES_MAX: usize = 4 << 10;

// --- compression on the fly ---

/// Bodies that are compressed at one time. Beyond, clients get theirs as it is. Each holds about 2 MiB, and one processor does about ten at 10 MB/s.
pub const COMPRESSORS_MAX: usize = 128;

/// Plain bytes that one step of compression takes: about a millisecond of the processor.
pub const COMPRESS_PIECE_BYTES: usize = 64 << 10;

/// Such steps before other requests get their turn, where nothing comes out of them.
pub const COMPRESS_PIECES_PER_TURN: usize = 4;

/// A body that is here whole is compressed at once up to this many bytes; a larger one while it is sent.
pub const COMPRESS_AT_ONCE_BYTES_MAX: u64 = 64 << 10;

/// Ranges of one request that are answered with those parts; a request for more gets the whole response. A reader of documents asks for a handful; assembling many small
/// parts costs far more than asking for them (CVE-2011-3192).
pub const RANGES_MAX: usize = 16;

// --- the cache's disk ---

/// Bytes that wait to be written to disk, what is being written among them; or one response that is larger. What finds no room is not written: a slow disk must not take
/// the memory.
pub const DISK_QUEUE_BYTES: u64 = 32 << 20;

/// Invalidations that wait to be written to disk. Beyond, all that is on disk is dropped: it could not be known what of it may be used.
pub const DISK_FORGETS_MAX: usize = 65_536;

/// Bytes that are written to disk at once.
pub const DISK_BATCH_BYTES: usize = 1 << 20;

/// Bodies up to this many bytes are stored with their head, and come back to memory whole; larger ones are sliced, and sent from disk (or from the kernel's memory).
pub const DISK_INLINE_BYTES_MAX: u64 = 256 << 10;

/// Routes whose responses the disk tier counts when they go: as many as there are, as a rule; of further ones nothing is counted.
pub const DISK_ROUTES_MAX: usize = 16_384;

/// Part of the disk tier that one body may take: an eighth, for the same reason as in memory.
pub const DISK_SHARE_MAX: u64 = 8;

/// Slices of one body that are on their way to disk while more of it comes: 4 MiB of memory for each such fetch.
pub const DISK_SLICES_IN_FLIGHT_MAX: usize = 4;

/// How long a fetch waits for a slice to be written. Beyond, its body is not stored, and goes to its readers only.
pub const DISK_SLICE_WAIT: Duration = Duration::from_secs(1);

/// How long the last slices of a body may take, once all of it has arrived. Nobody waits for it.
pub const DISK_FINISH_WAIT: Duration = Duration::from_secs(10);

/// Segments that a disk tier has, as far as their lengths allow: what goes at once is this part of it.
pub const DISK_SEGMENTS: u64 = 64;

/// Bytes of the shortest segment: two slices must fit.
pub const DISK_SEGMENT_BYTES_MIN: u64 = 4 << 20;

/// Bytes of the longest segment, as long as there are not too many files: what is scanned after a crash.
pub const DISK_SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// How long nothing is written after a write failed.
pub const DISK_PAUSE: Duration = Duration::from_secs(5);

/// How long the tier is content with the room that a full disk left it, before it tries to take all that is configured.
pub const DISK_BOUND_RETRY: Duration = Duration::from_secs(600);

/// Reads of the disk at one time. More make a disk slower.
pub const DISK_READS_MAX: usize = 32;

/// Reads that wait for their turn. Beyond, the upstream is asked instead.
pub const DISK_READS_WAITING_MAX: usize = 1_024;

/// Bytes that are copied from the kernel's memory without a thread of their own: a copy of so many takes some 10 µs.
pub const DISK_READ_AT_ONCE_BYTES_MAX: usize = 80 << 10;

/// How long a node that starts waits for its disk's folder: one that ends in the same process, or was replaced by this one, may still write what waits there.
pub const DISK_FOLDER_WAIT: Duration = Duration::from_secs(5);

/// How often it looks whether it may.
pub const DISK_FOLDER_RETRY: Duration = Duration::from_millis(20);

/// How long a request waits for the disk before it goes to the upstream. A busy hard disk takes tens of milliseconds.
pub const DISK_RECALL_WAIT: Duration = Duration::from_millis(500);
