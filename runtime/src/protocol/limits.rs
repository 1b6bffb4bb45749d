//! Every bound of the crossing, with unit and reason. An encoder refuses what a decoder would refuse.

/// Bytes of a frame after its length: what either side may have to hold before it can decode anything.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of one piece of a body or a module, and of a body that travels inside its head: small enough that
/// one body does not hold up the other streams of a link.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Bytes of a body that may be sent before its consumer has given credit.
pub const INITIAL_CREDIT: u32 = 64 << 10;
/// Most credit that may be outstanding for one body, in bytes: what a stream may make the other side hold.
pub const CREDIT_MAX: u32 = 1 << 20;
/// Fields of one head. The listeners' and upstreams' own bounds are lower.
pub const HEADERS_MAX: usize = 1024;
/// Bytes of all field names and values of one head.
pub const HEADERS_BYTES_MAX: usize = 256 << 10;
/// Bytes of a field name.
pub const HEADER_NAME_BYTES_MAX: usize = 1024;
/// Bytes of a URL. Browsers stop at 64 KiB to 2 MiB, servers at 8 to 16 KiB.
pub const URL_BYTES_MAX: usize = 64 << 10;
/// Bytes of a method: RFC 9110 §9 sets none; registered ones are shorter than 20.
pub const METHOD_BYTES_MAX: usize = 64;
/// Bytes of a text for operators (a message, a line of the log). Longer ones are cut, not refused.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Bytes of a short name: a build, a node's name, what of a sandbox is missing.
pub const NAME_BYTES_MAX: usize = 1024;
/// Bytes of a module's specifier.
pub const SPECIFIER_BYTES_MAX: usize = 4096;
/// Modules of one version.
pub const MODULES_MAX: u32 = 4096;
/// Bytes of all modules and source maps of one version.
pub const MODULES_BYTES_MAX: u64 = 128 << 20;
/// Bytes of a `LoadHead`: names, limits and variables as JSON.
pub const LOAD_HEAD_BYTES_MAX: usize = 768 << 10;
/// Bytes that one read takes from a link at most. Also the least free space of a decoder's buffer.
pub const READ_BYTES: usize = 64 << 10;
/// Frames up to this many bytes are copied out of the read buffer: what is kept of them (a cached head, a body) then holds
/// its own memory only, and the read buffer is used again without allocating.
pub const COPY_BYTES_MAX: usize = 8 << 10;
/// Bytes that may wait in a link's outbox. The edge sends no new work to a link above it; a runner reads nothing more.
pub const OUTBOX_BYTES_MAX: usize = 4 << 20;
/// Running invocations of one link.
pub const STREAMS_MAX: usize = 1 << super::STREAM_INDEX_BITS;
/// Versions in one runner: 3 MiB of heap and more each, and 64 MiB reserved for machine code, which counts against the data limit of
/// the process. Shared out among its links.
pub const VERSIONS_PER_RUNNER_MAX: usize = 24;
/// The least share of a link.
pub const VERSIONS_PER_LINK_MIN: usize = 2;
/// Subrequests of one invocation that may run at once: what a worker may make the edge hold.
pub const SUBREQUESTS_RUNNING_MAX: usize = 64;
/// Bytes of the name of a worker's cache (`caches.open`).
pub const CACHE_NAME_BYTES_MAX: usize = 512;
/// Bytes of a key in a worker's cache: its URL, or `cf.cacheKey`. As long as a client's request target may be.
pub const CACHE_KEY_BYTES_MAX: usize = 16 << 10;
/// Longest time that a worker may wish for a response, in seconds: RFC 9111 §1.2.2 takes more for as much.
pub const CACHE_TTL_SECONDS_MAX: i64 = 1 << 31;
/// Ranges of `cf.cacheTtlByStatus`: there are five classes of status codes, and few codes that matter alone.
pub const CACHE_TTL_RULES_MAX: usize = 32;
/// Tags of `cf.cacheTags`.
pub const CACHE_TAGS_MAX: usize = 100;
/// Bytes of a tag: as Cloudflare has it.
pub const CACHE_TAG_BYTES_MAX: usize = 1024;
/// Bytes of the wishes of one `fetch()`: all of the above, as JSON that escapes some of it.
pub const FETCH_CACHE_BYTES_MAX: usize = 192 << 10;
/// Things that one `ctx.cache.purge()` names: as many as the registry takes.
pub const PURGE_NAMES_MAX: usize = 1_000;
/// Bytes of one of them: as the registry has it.
pub const PURGE_NAME_BYTES_MAX: usize = 1_024;
/// Bytes of all of them together.
pub const PURGE_NAMES_BYTES_MAX: usize = 64 << 10;
/// Bytes of a purge as JSON, which may write a byte as six, with quotes and a comma around each name.
pub const PURGE_BYTES_MAX: usize = 6 * PURGE_NAMES_BYTES_MAX + 3 * PURGE_NAMES_MAX + 256;
/// Links of a runner: its JavaScript threads.
pub const LINKS_MAX: usize = 64;

/// Versions that each link may hold of a runner that has so many.
pub const fn versions_per_link(links: usize) -> usize {
    let share = VERSIONS_PER_RUNNER_MAX / if links == 0 { 1 } else { links };
    if share < VERSIONS_PER_LINK_MIN { VERSIONS_PER_LINK_MIN } else { share }
}

// What a runner may hold: it bounds itself by that, and the edge bounds it from outside where it can.

/// Machine code of one isolate, in bytes: the least that V8 takes. It would reserve 128 MiB by itself, writable, for each
/// isolate, which counts against [`data_bytes_max`]: the 22nd isolate of a runner then killed it ("Failed to reserve virtual
/// memory for CodeRange").
pub const CODE_BYTES_MAX: usize = 64 << 20;
/// Blank isolates that a thread keeps ready, so that a cold start costs only the worker's own modules.
pub const BLANK_ISOLATES: usize = 2;
/// More of them that all threads together keep after bursts of loads that found none left. 1.5 MiB each, and the room for machine code.
pub const BLANK_ISOLATES_SPARE: usize = 4;
/// What a runner may hold beside the room for machine code, in bytes ...
pub const HELD_BYTES_MAX: u64 = 512 << 20;
/// ... and more for each JavaScript thread: what one isolate may hold by default, for one runs at a time.
pub const HELD_BYTES_PER_THREAD: u64 = 256 << 20;

/// Blank isolates that each of so many threads keeps at most.
pub const fn blank_isolates_max(threads: usize) -> usize {
    BLANK_ISOLATES + BLANK_ISOLATES_SPARE / if threads == 0 { 1 } else { threads }
}

/// Writable private memory of a process with so many JavaScript threads, in bytes (`RLIMIT_DATA`): 3 GiB for two. What the node loses to a runner at
/// worst; most of it is the room for machine code, which is reserved, not used. Not `RLIMIT_AS`: V8 reserves address space by the terabyte.
pub const fn data_bytes_max(threads: usize) -> u64 {
    let isolates = threads * (versions_per_link(threads) + blank_isolates_max(threads));
    isolates as u64 * CODE_BYTES_MAX as u64 + HELD_BYTES_MAX + threads as u64 * HELD_BYTES_PER_THREAD
}
