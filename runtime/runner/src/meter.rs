//! The CPU time of the thread that it lives on, cheap enough to be read around each entry into JavaScript.
//!
//! The thread's CPU clock costs a system call (0.8 µs on a virtual machine), the monotonic one does not (27 ns). CPU time is
//! never more than wall time, so a short span is charged by the latter; a longer one, in which the thread may have been
//! preempted, by the former. What is charged is thread CPU time either way, to within [`SYNC_AFTER_NS`].

use std::cell::Cell;

use selvedge_runtime::protocol::monotonic_ns;

use crate::limits::SPAN_EXACT_AFTER;

/// The CPU clock is read at the beginning of a turn if it was not for so long: time between turns is not seen otherwise.
const SYNC_AFTER_NS: u64 = 1_000_000;

pub(crate) struct Meter {
    now_ns: Cell<u64>,
    cpu_ns: Cell<u64>,
    synced_ns: Cell<u64>,
}

impl Meter {
    pub(crate) fn new() -> Self {
        let now = monotonic_ns();
        Self { now_ns: Cell::new(now), cpu_ns: Cell::new(thread_cpu_ns()), synced_ns: Cell::new(now) }
    }

    /// A turn begins; the time since the last one was spent waiting. Gives the monotonic time.
    pub(crate) fn turn_begins(&self) -> u64 {
        let now = monotonic_ns();
        self.now_ns.set(now);
        if now.saturating_sub(self.synced_ns.get()) > SYNC_AFTER_NS {
            self.sync(now);
        }
        now
    }

    /// The thread's CPU time now, in nanoseconds. Only differences mean something.
    pub(crate) fn cpu_ns(&self) -> u64 {
        let now = monotonic_ns();
        let span = now.saturating_sub(self.now_ns.get());
        self.now_ns.set(now);
        if span > SPAN_EXACT_AFTER.as_nanos() as u64 {
            self.sync(now);
        } else {
            self.cpu_ns.set(self.cpu_ns.get() + span);
        }
        self.cpu_ns.get()
    }

    /// The monotonic time when it was last looked at.
    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn sync(&self, now_ns: u64) {
        self.synced_ns.set(now_ns);
        self.cpu_ns.set(thread_cpu_ns());
    }
}

fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_not_charged_and_computing_is() {
        let meter = Meter::new();
        let begun = meter.cpu_ns();
        std::thread::park_timeout(std::time::Duration::from_millis(30));
        assert!(meter.cpu_ns() - begun < 10_000_000, "a wait was charged");
        let (begun, wall) = (meter.cpu_ns(), monotonic_ns());
        while thread_cpu_ns() < begun + 5_000_000 {}
        let charged = meter.cpu_ns().saturating_sub(begun);
        assert!(charged >= 4_000_000 && charged <= monotonic_ns() - wall, "{charged}");
    }
}
