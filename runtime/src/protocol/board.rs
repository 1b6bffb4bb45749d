//! The board: shared memory in which a runner's threads and its watchdog note what the edge must be able to read when a
//! thread no longer answers. One area per link.
//!
//! The edge takes all of it as hints from a hostile process: it only loads single words, and nothing that it decides by
//! them can harm more than that runner's own invocations. The memory cannot be resized (`F_SEAL_SHRINK`: a mapping that loses its
//! pages would kill the edge with SIGBUS).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};

use super::{LINKS_MAX, STREAMS_MAX, StreamId};

/// Bytes of one area: its words, rounded up to pages of 4 KiB.
const AREA_BYTES: usize = size_of::<Words>().next_multiple_of(4096);

/// The words of one area. Zero is the initial state of all.
#[repr(C)]
struct Words {
    heartbeat_ns: AtomicU64,
    turn_started_ns: AtomicU64,
    running: AtomicU32,
    out_of_memory: AtomicU32,
    started: [AtomicU32; STREAMS_MAX],
}

/// All areas of one runner. Unmapped when the last area and the board are dropped.
pub struct Board {
    file: OwnedFd,
    mapping: Arc<Mapping>,
}

struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is plain memory that is only reached through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Board {
    /// Makes a board for `links` links (1 to [`LINKS_MAX`]).
    pub fn create(links: usize) -> io::Result<Self> {
        let bytes = bytes_of(links)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("selvedge-board", flags)?;
        rustix::fs::ftruncate(&file, bytes as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let mapping = Arc::new(Mapping::new(file.as_fd(), bytes)?);
        Ok(Self { file, mapping })
    }

    /// Maps a board that was inherited, after checking that it is one for `links` links.
    pub fn open(file: OwnedFd, links: usize) -> io::Result<Self> {
        let bytes = bytes_of(links)?;
        let seals = rustix::fs::fcntl_get_seals(&file)?;
        let size = rustix::fs::fstat(&file)?.st_size;
        if size != bytes as i64 || !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("not a board of {links} links: {size} bytes, seals {seals:?}")));
        }
        let mapping = Arc::new(Mapping::new(file.as_fd(), bytes)?);
        Ok(Self { file, mapping })
    }

    /// The area of a link, counting from 0; none beyond the last.
    pub fn area(&self, link: usize) -> Option<Area> {
        let offset = link.checked_mul(AREA_BYTES)?;
        if offset.checked_add(AREA_BYTES)? > self.mapping.bytes {
            return None;
        }
        // SAFETY: the offset is inside the mapping, which is page-aligned; `Words` is made of atomics, for which
        // every bit pattern is valid, and is only ever borrowed shared.
        let words = unsafe { self.mapping.start.add(offset).cast::<Words>() };
        Some(Area { words, mapping: self.mapping.clone() })
    }

    /// The descriptor to hand to the runner.
    pub fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }
}

impl Mapping {
    fn new(file: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).map(|start| Self { start, bytes }).ok_or_else(|| io::Error::other("mapped at address 0"))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one that was mapped; areas hold the mapping alive.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

fn bytes_of(links: usize) -> io::Result<usize> {
    if links == 0 || links > LINKS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{links} links")));
    }
    Ok(links * AREA_BYTES)
}

/// One link's place on the board. Cheap to clone.
#[derive(Clone)]
pub struct Area {
    words: NonNull<Words>,
    #[allow(dead_code, reason = "keeps the memory mapped")]
    mapping: Arc<Mapping>,
}

// SAFETY: only atomics are reached through it.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Area {
    fn words(&self) -> &Words {
        // SAFETY: see `Board::area`; the mapping is alive as long as `self`.
        unsafe { self.words.as_ref() }
    }

    /// Runner: the watchdog is alive.
    pub fn beat(&self, now_ns: u64) {
        self.words().heartbeat_ns.store(now_ns, Ordering::Release);
    }

    /// Runner: the thread enters JavaScript for `stream` (0: none in particular).
    pub fn turn_begins(&self, now_ns: u64, stream: StreamId) {
        self.words().running.store(stream, Ordering::Relaxed);
        self.words().turn_started_ns.store(now_ns.max(1), Ordering::Release);
    }

    /// Runner: the thread has left JavaScript.
    pub fn turn_ends(&self) {
        self.words().turn_started_ns.store(0, Ordering::Release);
        self.words().running.store(0, Ordering::Relaxed);
    }

    /// Runner: the handler of `stream` is about to start.
    pub fn starts(&self, stream: StreamId) {
        if let Some(word) = self.words().started.get(index(stream)) {
            word.store(stream, Ordering::Release);
        }
    }

    /// Runner: V8 has no memory left on this thread, and the process is about to end. Async-signal-safe.
    pub fn runs_out_of_memory(&self) {
        self.words().out_of_memory.store(1, Ordering::Release);
    }

    /// Edge: this thread ended the process by running out of memory.
    pub fn ran_out_of_memory(&self) -> bool {
        self.words().out_of_memory.load(Ordering::Acquire) != 0
    }

    /// Edge: when the watchdog was last alive (monotonic clock, nanoseconds); 0 before the first time.
    pub fn heartbeat_ns(&self) -> u64 {
        self.words().heartbeat_ns.load(Ordering::Acquire)
    }

    /// Either side: since when the thread has been in JavaScript; 0 where it is not.
    pub fn turn_started_ns(&self) -> u64 {
        self.words().turn_started_ns.load(Ordering::Acquire)
    }

    /// Either side: the invocation that the thread runs; 0 for none.
    pub fn running(&self) -> StreamId {
        self.words().running.load(Ordering::Acquire)
    }

    /// Edge: whether the handler of `stream` has started, or is just about to.
    pub fn has_started(&self, stream: StreamId) -> bool {
        self.words().started.get(index(stream)).is_none_or(|word| word.load(Ordering::Acquire) == stream)
    }
}

const fn index(stream: StreamId) -> usize {
    stream as usize & (STREAMS_MAX - 1)
}

/// `CLOCK_MONOTONIC`, in nanoseconds: the clock of the board, the same in both processes.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}
