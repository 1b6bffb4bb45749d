//! How the C library gives memory back. Process-wide, set once.

use std::sync::Once;

/// Blocks of at least so many bytes are the kernel's own mappings, and go back to it when they are freed: glibc's first value. Left to itself it raises it with every such block
/// that is freed, up to 32 MiB, and then the bodies of a cache, of all sizes and lifetimes, leave holes that took as much again as the bodies (measured by the soak).
const MAPPED_BYTES_MIN: i32 = 128 << 10;

/// Makes what is freed go back. For whoever holds much memory for long.
pub(crate) fn give_back() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(target_env = "gnu")]
        {
            // One part of the heap for each processor. glibc takes eight, and what is free in one is no use to the others.
            let arenas = std::thread::available_parallelism().map_or(1, |processors| i32::try_from(processors.get()).unwrap_or(i32::MAX));
            // SAFETY: mallopt sets a number of the allocator, and takes no pointers.
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
                libc::mallopt(libc::M_ARENA_MAX, arenas);
            }
        }
    });
}
