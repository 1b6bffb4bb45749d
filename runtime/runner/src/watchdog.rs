//! Keeps the time of the JavaScript threads, from the main thread, which runs no JavaScript.
//!
//! The ladder: an entry that has used its CPU time is terminated, again every millisecond until it ends; after 50 ms the edge
//! is told that the thread is stuck, and kills the process. It holds for everything inside an entry: handlers, microtasks,
//! the formatting of an error, the teardown of an isolate. A thread that holds a turn for 10 ms is busy: the watchdog reads
//! its link in its place.
//!
//! Nothing here costs a thread a system call. Each thread's CPU clock sends a signal per few milliseconds of CPU time that
//! it uses; an idle runner wakes four times in a second, to beat its heart.

use std::sync::atomic::Ordering;
use std::time::Duration;

use selvedge_runtime::Outcome;
use selvedge_runtime::protocol::{ToEdge, ToRunner, monotonic_ns};

use crate::alarm::{Alarms, ThreadClock};
use crate::heap;
use crate::limits::{BUSY_AFTER, HEARTBEAT, LOOK_AFTER, STUCK_AFTER, TICK, TURN_CPU, data_bytes_max};
use crate::memory;
use crate::span::Seen;
use crate::station::Station;

/// Watches until the process ends.
pub(crate) fn watch(threads: Vec<(&'static Station, ThreadClock)>, alarms: &Alarms) -> ! {
    let mut watches: Vec<Watch> = threads.into_iter().map(|(station, clock)| Watch::new(station, clock)).collect();
    loop {
        let now_ns = monotonic_ns();
        let mut attentive = false;
        let memory = ProcessMemory::of(&watches);
        for watch in &mut watches {
            attentive |= watch.look(now_ns, &memory);
            if let Some(area) = &watch.station.area {
                area.beat(now_ns);
            }
        }
        alarms.wait(if attentive { TICK } else { HEARTBEAT });
    }
}

/// What the process holds, and what the isolates that run may hold together.
struct ProcessMemory {
    data_bytes: u64,
    allowed_bytes: u64,
    data_bytes_max: u64,
}

impl ProcessMemory {
    fn of(watches: &[Watch]) -> Self {
        let running = watches.iter().filter(|watch| watch.station.turn_started_ns() != 0);
        let allowed_bytes = running.map(|watch| watch.station.memory_bytes_max.load(Ordering::Relaxed)).fold(0, u64::saturating_add);
        Self { data_bytes: memory::data_bytes().unwrap_or(0), allowed_bytes, data_bytes_max: data_bytes_max(watches.len()) }
    }
}

/// What the watchdog remembers of a thread.
struct Watch {
    station: &'static Station,
    clock: ThreadClock,
    /// The turn that was seen last, and the thread's CPU time then.
    turn_ns: u64,
    turn_cpu_ns: u64,
    turn_data_bytes: u64,
    turn_reported: bool,
    /// The killed entry that was seen last, since when, and whether the edge knows.
    killed: u64,
    killed_ns: u64,
    killed_reported: bool,
}

impl Watch {
    fn new(station: &'static Station, clock: ThreadClock) -> Self {
        Self {
            station,
            clock,
            turn_ns: 0,
            turn_cpu_ns: 0,
            turn_data_bytes: 0,
            turn_reported: false,
            killed: 0,
            killed_ns: 0,
            killed_reported: false,
        }
    }

    /// Looks at the thread. True where it must be looked at again soon.
    fn look(&mut self, now_ns: u64, memory: &ProcessMemory) -> bool {
        let turn_ns = self.station.turn_started_ns();
        if turn_ns == 0 {
            return false;
        }
        let first = turn_ns != self.turn_ns;
        if first {
            (self.turn_ns, self.turn_cpu_ns, self.turn_reported) = (turn_ns, self.clock.now_ns(), false);
            self.turn_data_bytes = memory.data_bytes;
        }
        let held = Duration::from_nanos(now_ns.saturating_sub(turn_ns));
        if held > BUSY_AFTER {
            self.take_over(turn_ns);
        }
        match self.station.span.look() {
            Some(seen) => self.keep_limits(&seen, now_ns, held, memory),
            None => self.keep_turn(),
        }
        !first || held > LOOK_AFTER
    }

    /// An entry into JavaScript lasts.
    fn keep_limits(&mut self, seen: &Seen, now_ns: u64, held: Duration, memory: &ProcessMemory) {
        let (station, entry) = (self.station, &seen.entry);
        if let Some(reason) = seen.killed {
            return self.press(seen, reason, now_ns);
        }
        if self.clock.now_ns().saturating_sub(entry.cpu_start_ns) > entry.cpu_budget_ns {
            station.span.kill(seen.number, Outcome::ExceededCpu, || terminate(station, entry.isolate));
        } else if memory::is_too_much(memory.data_bytes, self.turn_data_bytes, memory.allowed_bytes, memory.data_bytes_max) {
            station.span.kill(seen.number, Outcome::ExceededMemory, || terminate(station, entry.isolate));
        } else if held > LOOK_AFTER {
            station.with_isolate(entry.isolate, |isolate| heap::request_look(station, entry.isolate, isolate));
        }
    }

    /// A killed entry lasts: terminates it again, and reports it where that does not help.
    fn press(&mut self, seen: &Seen, reason: Outcome, now_ns: u64) {
        if self.killed != seen.number {
            (self.killed, self.killed_ns, self.killed_reported) = (seen.number, now_ns, false);
        }
        terminate(self.station, seen.entry.isolate);
        if !self.killed_reported && now_ns.saturating_sub(self.killed_ns) > STUCK_AFTER.as_nanos() as u64 {
            self.killed_reported = true;
            self.report(ToEdge::Stuck { stream: seen.entry.stream, slot: seen.entry.slot, outcome: reason });
        }
    }

    /// The thread is in a turn, but not in JavaScript: our own code has a bound too.
    fn keep_turn(&mut self) {
        let used_ns = self.clock.now_ns().saturating_sub(self.turn_cpu_ns);
        if used_ns > TURN_CPU.as_nanos() as u64 && !self.turn_reported {
            self.turn_reported = true;
            self.report(ToEdge::Stuck { stream: 0, slot: 0, outcome: Outcome::InternalError });
        }
    }

    /// Reads the link of a busy thread: gives back what has not started, ends what the edge cancels, keeps the rest for it.
    fn take_over(&self, turn_ns: u64) {
        let station = self.station;
        let mut inbox = station.link.inbox.lock();
        // A thread ends its turn under this lock: it will look into the inbox, or has not begun to wait.
        if station.turn_started_ns() != turn_ns {
            return;
        }
        if !station.link.is_clogged() {
            let _ = station.link.fill(&mut inbox);
        }
        inbox.retain(|message| match message {
            ToRunner::Start { stream, .. } => {
                station.link.send(&ToEdge::Bounced { stream: *stream });
                false
            }
            // Its CPU limit will do: others who run in the isolate must not pay for a client that went away.
            ToRunner::Cancel { outcome: Outcome::Canceled, .. } if station.live.load(Ordering::Relaxed) > 1 => true,
            ToRunner::Cancel { stream, outcome } => match station.span.look() {
                Some(seen) if seen.entry.stream == *stream && seen.killed.is_none() => {
                    !station.span.kill(seen.number, *outcome, || terminate(station, seen.entry.isolate))
                }
                _ => true,
            },
            _ => true,
        });
        drop(inbox);
        let _ = station.link.flush();
    }

    fn report(&self, message: ToEdge) {
        self.station.link.send(&message);
        let _ = self.station.link.flush();
    }
}

fn terminate(station: &Station, isolate: u64) {
    station.with_isolate(isolate, |isolate| {
        isolate.terminate_execution();
    });
}
