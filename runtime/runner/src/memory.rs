//! What the whole process holds, read from a descriptor that was opened before the root went: one number, and no way back.
//!
//! V8 does not count everything to an isolate: a resizable buffer costs nothing by its book. What an entry into JavaScript adds to the
//! process beyond all that its isolate may have is charged to it all the same.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use crate::limits::{DATA_LAST_BYTES, DATA_MARGIN_BYTES};

static STATM: OnceLock<File> = OnceLock::new();

/// Opens the kernel's numbers about this process. While `/proc` is there, in the process that will run JavaScript.
pub(crate) fn open() -> io::Result<()> {
    let _ = STATM.set(File::open("/proc/self/statm")?);
    Ok(())
}

/// Writable private memory of the process, in bytes: what `RLIMIT_DATA` counts. None where it cannot be known.
pub(crate) fn data_bytes() -> Option<u64> {
    let mut text = [0; 128];
    let len = STATM.get()?.read_at(&mut text, 0).ok()?;
    // proc(5): size, resident, shared, text, lib, data; in pages.
    let pages: u64 = std::str::from_utf8(text.get(..len)?).ok()?.split(' ').nth(5)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

/// Whether the process holds too much to go on with what runs: `before` is what it held when that began, `allowed` what all
/// isolates that run may hold, `most` what the process may.
pub(crate) fn is_too_much(now: u64, before: u64, allowed: u64, most: u64) -> bool {
    now.saturating_sub(before) > allowed.saturating_add(DATA_MARGIN_BYTES) || now > most.saturating_sub(DATA_LAST_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_measured() {
        open().unwrap();
        let before = data_bytes().unwrap();
        let held = vec![1u8; 64 << 20];
        let now = data_bytes().unwrap();
        assert!(now >= before + (60 << 20), "{before} {now}");
        drop(held);
    }

    #[test]
    fn growth_beyond_what_runs_may_have_is_too_much() {
        assert!(!is_too_much(500 << 20, 300 << 20, 256 << 20, 3 << 30));
        // What isolates may have by default, and the margin: 384 MiB.
        let allowed = 2 * selvedge_runtime::Limits::default().heap_bytes_max;
        assert!(!is_too_much(384 << 20, 0, allowed, 3 << 30));
        assert!(is_too_much((384 << 20) + 1, 0, allowed, 3 << 30));
        assert!(is_too_much(3 << 30, (3 << 30) - 1, 256 << 20, 3 << 30));
    }
}
