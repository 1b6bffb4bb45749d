//! Whether the kernel has killed for want of memory: a runner that it has killed ends by SIGKILL like one that an operator has. A `cgroup` of
//! the runner's own tells it of this very one; else the machine's count must do.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the kernel's counters that are looked at: today's kernels write 5 KB.
const VMSTAT_BYTES_MAX: usize = 64 << 10;

/// The kernel's count of such kills, of the whole machine (proc(5), `/proc/vmstat`, `oom_kill`; since Linux 4.13).
pub(super) struct OomKills {
    file: Option<File>,
    seen: AtomicU64,
}

impl OomKills {
    /// Counts from now on. Where the kernel does not tell, there are none.
    pub(super) fn watch() -> Self {
        Self::of(Path::new("/proc/vmstat"))
    }

    fn of(path: &Path) -> Self {
        let file = File::open(path).ok();
        let seen = AtomicU64::new(file.as_ref().and_then(count).unwrap_or(0));
        Self { file, seen }
    }

    /// Whether there were any since the last question.
    pub(super) fn rose(&self) -> bool {
        let Some(now) = self.file.as_ref().and_then(count) else { return false };
        self.seen.swap(now, Ordering::Relaxed) != now
    }
}

fn count(file: &File) -> Option<u64> {
    let mut bytes = vec![0; VMSTAT_BYTES_MAX];
    let mut len = 0;
    // The kernel gives a page or so at a time.
    while let Some(rest) = bytes.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, len as u64).ok()? {
            0 => break,
            read => len += read,
        }
    }
    let text = std::str::from_utf8(bytes.get(..len)?).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_told_once_and_other_counters_are_none() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let say = |text: &str| std::fs::write(file.path(), text).expect("written");
        say("nr_free_pages 7\noom_kill 2\noom_kill_other 9\n");
        let kills = OomKills::of(file.path());
        assert!(!kills.rose());
        say("nr_free_pages 8\noom_kill 3\noom_kill_other 9\n");
        assert!(kills.rose() && !kills.rose());
        say("nonsense");
        assert!(!kills.rose());
        assert!(!OomKills::of(Path::new("/nowhere")).rose());
    }

    #[test]
    fn this_kernel_tells() {
        let kernels = File::open("/proc/vmstat").expect("Linux has it");
        assert!(count(&kernels).is_some());
    }
}
