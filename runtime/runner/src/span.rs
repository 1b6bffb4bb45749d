//! One entry of a thread into JavaScript, as the watchdog sees it from outside.
//!
//! Entries are numbered. A termination names the number of the entry that it is for, and happens only while that entry lasts:
//! a late one never hits the next. The thread waits at the end of an entry for a termination that has begun, so it always
//! knows that its isolate was hit, and drops it.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use selvedge_runtime::Outcome;
use selvedge_runtime::protocol::{Slot, StreamId};

const IDLE: u64 = 0;
const RUNNING: u64 = 1;
/// Between the watchdog's decision and its call into V8.
const KILLING: u64 = 2;
const KILLED: u64 = 3;
/// The low bits are the phase, the rest is the number of the entry.
const PHASE_BITS: u32 = 2;
const PHASE_MASK: u64 = (1 << PHASE_BITS) - 1;

/// What runs, and how long it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The isolate's number on its thread.
    pub(crate) isolate: u64,
    pub(crate) slot: Slot,
    pub(crate) stream: StreamId,
    /// The thread's CPU time at the beginning.
    pub(crate) cpu_start_ns: u64,
    /// How much more it may take.
    pub(crate) cpu_budget_ns: u64,
}

/// What the watchdog saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) number: u64,
    pub(crate) entry: Entry,
    /// The entry was killed, for this reason, and lasts nevertheless.
    pub(crate) killed: Option<Outcome>,
}

/// The entry that lasts, if one does. Written by its thread, read by the watchdog.
#[derive(Default)]
pub(crate) struct Span {
    phase: AtomicU64,
    isolate: AtomicU64,
    slot: AtomicU32,
    stream: AtomicU32,
    cpu_start_ns: AtomicU64,
    cpu_budget_ns: AtomicU64,
    reason: AtomicU8,
}

impl Span {
    /// The thread enters JavaScript.
    pub(crate) fn begin(&self, entry: Entry) {
        self.isolate.store(entry.isolate, Ordering::Relaxed);
        self.slot.store(entry.slot, Ordering::Relaxed);
        self.stream.store(entry.stream, Ordering::Relaxed);
        self.cpu_start_ns.store(entry.cpu_start_ns, Ordering::Relaxed);
        self.cpu_budget_ns.store(entry.cpu_budget_ns, Ordering::Relaxed);
        let number = (self.phase.load(Ordering::Relaxed) >> PHASE_BITS) + 1;
        self.phase.store(number << PHASE_BITS | RUNNING, Ordering::Release);
    }

    /// The thread has left JavaScript. Says why its isolate was killed, if it was.
    pub(crate) fn end(&self) -> Option<Outcome> {
        loop {
            let phase = self.phase.load(Ordering::Acquire);
            let idle = phase & !PHASE_MASK | IDLE;
            match phase & PHASE_MASK {
                RUNNING => {
                    // AcqRel: what the next entry writes must not be seen before this one's end.
                    if self.phase.compare_exchange(phase, idle, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                        return None;
                    }
                }
                KILLING => std::hint::spin_loop(),
                KILLED => {
                    self.phase.swap(idle, Ordering::AcqRel);
                    return Some(self.reason());
                }
                _ => return None,
            }
        }
    }

    /// On the thread itself, inside an entry: it must end for this reason. The caller terminates; the watchdog repeats it.
    pub(crate) fn doom(&self, reason: Outcome) {
        let phase = self.phase.load(Ordering::Acquire);
        let killing = phase & !PHASE_MASK | KILLING;
        if phase & PHASE_MASK == RUNNING && self.phase.compare_exchange(phase, killing, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.reason.store(reason as u8, Ordering::Relaxed);
            self.phase.store(phase & !PHASE_MASK | KILLED, Ordering::Release);
        }
    }

    /// What lasts now.
    pub(crate) fn look(&self) -> Option<Seen> {
        let phase = self.phase.load(Ordering::Acquire);
        let entry = Entry {
            isolate: self.isolate.load(Ordering::Relaxed),
            slot: self.slot.load(Ordering::Relaxed),
            stream: self.stream.load(Ordering::Relaxed),
            cpu_start_ns: self.cpu_start_ns.load(Ordering::Relaxed),
            cpu_budget_ns: self.cpu_budget_ns.load(Ordering::Relaxed),
        };
        let reason = self.reason();
        fence(Ordering::Acquire);
        if self.phase.load(Ordering::Relaxed) != phase || phase & PHASE_MASK == IDLE {
            return None;
        }
        let killed = (phase & PHASE_MASK == KILLED).then_some(reason);
        Some(Seen { number: phase >> PHASE_BITS, entry, killed })
    }

    /// Terminates an entry, if it still lasts. `terminate` is called while the thread cannot go on to the next one.
    pub(crate) fn kill(&self, number: u64, reason: Outcome, terminate: impl FnOnce()) -> bool {
        let of = |phase| number << PHASE_BITS | phase;
        if self.phase.compare_exchange(of(RUNNING), of(KILLING), Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        self.reason.store(reason as u8, Ordering::Relaxed);
        terminate();
        self.phase.store(of(KILLED), Ordering::Release);
        true
    }

    fn reason(&self) -> Outcome {
        Outcome::from_wire(self.reason.load(Ordering::Relaxed)).unwrap_or(Outcome::InternalError)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn entry(stream: StreamId) -> Entry {
        Entry { isolate: 1, slot: 2, stream, cpu_start_ns: 3, cpu_budget_ns: 4 }
    }

    #[test]
    fn a_late_termination_does_not_hit_the_next_entry() {
        let span = Span::default();
        span.begin(entry(1));
        let seen = span.look().unwrap();
        assert_eq!(span.end(), None);
        span.begin(entry(2));
        assert!(!span.kill(seen.number, Outcome::ExceededCpu, || panic!("terminated the next entry")));
        assert_eq!(span.end(), None);
    }

    #[test]
    fn a_killed_entry_says_why_and_is_seen_until_it_ends() {
        let span = Span::default();
        span.begin(entry(1));
        let seen = span.look().unwrap();
        assert_eq!((seen.entry, seen.killed), (entry(1), None));
        assert!(span.kill(seen.number, Outcome::Canceled, || ()));
        assert_eq!(span.look().unwrap().killed, Some(Outcome::Canceled));
        span.doom(Outcome::ExceededMemory);
        assert_eq!(span.end(), Some(Outcome::Canceled));
        assert_eq!(span.look(), None);
    }

    #[test]
    fn every_termination_is_known_to_the_thread_that_it_hit() {
        const ENTRIES: u32 = 20_000;
        let (span, terminations) = (Arc::new(Span::default()), Arc::new(AtomicUsize::new(0)));
        let watchdog = std::thread::spawn({
            let (span, terminations) = (span.clone(), terminations.clone());
            move || {
                let mut killed = 0;
                while Arc::strong_count(&span) > 1 {
                    let Some(seen) = span.look() else { continue };
                    assert_eq!(seen.entry.cpu_budget_ns, 4);
                    let hit = || _ = terminations.fetch_add(1, Ordering::Relaxed);
                    killed += usize::from(span.kill(seen.number, Outcome::ExceededCpu, hit));
                }
                killed
            }
        });
        let mut known = 0;
        for stream in 0..ENTRIES {
            span.begin(entry(stream));
            known += usize::from(span.end().is_some());
        }
        drop(span);
        let killed = watchdog.join().unwrap();
        assert_eq!((known, killed), (killed, terminations.load(Ordering::Relaxed)));
    }
}
