//! What the disk tier counts.

use crate::metrics::{Counter, Gauge};

/// Counters of the disk tier; all of bytes and events since the node began.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each is described where it is listed")]
pub struct DiskCounters {
    pub reads: Counter,
    pub read_bytes: Counter,
    pub writes: Counter,
    pub written_bytes: Counter,
    pub skipped_queue: Counter,
    pub skipped_paused: Counter,
    pub skipped_reads: Counter,
    pub write_errors: Counter,
    pub read_errors: Counter,
    pub damaged: Counter,
    pub evictions: Counter,
    pub kept: Counter,
    pub failing: Gauge,
}

impl DiskCounters {
    /// Names, descriptions and values: those that only rise.
    pub(crate) fn counters(&self) -> [(&'static str, &'static str, u64); 12] {
        [
            ("selvedge_cache_disk_reads_total", "Responses and blocks read from the cache's disk.", self.reads.get()),
            ("selvedge_cache_disk_read_bytes_total", "Bytes read from the cache's disk.", self.read_bytes.get()),
            ("selvedge_cache_disk_writes_total", "Responses and slices written to the cache's disk.", self.writes.get()),
            ("selvedge_cache_disk_written_bytes_total", "Bytes written to the cache's disk.", self.written_bytes.get()),
            ("selvedge_cache_disk_skipped_queue_total", "Not written: too much waited for the disk.", self.skipped_queue.get()),
            (
                "selvedge_cache_disk_skipped_paused_total",
                "Not written: the disk was full or failed a moment ago.",
                self.skipped_paused.get(),
            ),
            (
                "selvedge_cache_disk_skipped_reads_total",
                "Not read: too many waited for the disk, or it took too long.",
                self.skipped_reads.get(),
            ),
            ("selvedge_cache_disk_write_errors_total", "Writes that failed; a full disk is one.", self.write_errors.get()),
            ("selvedge_cache_disk_read_errors_total", "Reads that failed.", self.read_errors.get()),
            ("selvedge_cache_disk_damaged_total", "Records with a wrong checksum; none of them was served.", self.damaged.get()),
            (
                "selvedge_cache_disk_evictions_total",
                "Responses and slices evicted for want of room; of each route: selvedge_route_disk_evictions_total.",
                self.evictions.get(),
            ),
            ("selvedge_cache_disk_kept_total", "Responses and slices written again because they are used.", self.kept.get()),
        ]
    }
}
