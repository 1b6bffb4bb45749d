//! How the C library gives memory back. Process-wide, set once.

use std::sync::Once;

/// Blocks of at least so many bytes are the kernel's own mappings, and go back to it when they are freed: glibc's first value. Left to itself it raises it with every such block
/// that is freed, up to 32 MiB, and then the bodies of a cache, of all sizes and lifetimes, leave holes that took as much again as the bodies (measured by the soak).
const MAPPED_BYTES_MIN: i32 = 128 << 10;

/// Parts of the heap that are filled apart, for each processor: glibc takes eight, and what is free in one is no use to the others (5 MiB of 180 in the soak, on two processors).
const ARENAS_PER_PROCESSOR: usize = 1;

/// Makes what is freed go back. For whoever holds much memory for long.
pub(crate) fn give_back() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(target_env = "gnu")]
        {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            let arenas = i32::try_from(processors.saturating_mul(ARENAS_PER_PROCESSOR)).unwrap_or(i32::MAX);
            // SAFETY: mallopt sets a number of the allocator, and takes no pointers.
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
                libc::mallopt(libc::M_ARENA_MAX, arenas);
            }
        }
    });
}
