//! The end of a runner: who is answered how, who runs again, and whose fault it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Inner;
use super::counters::count;
use super::dispatch::Burial;
use super::limits::{KILL_DELAY, POINTS_RUNNER_LOST};
use super::link::Link;
use super::placement::Placement;
use super::process::Ending;
use super::runner::{Cause, Runner};
use super::version::Version;
use crate::Outcome;
use crate::protocol::StreamId;
use crate::protocol::exit::Exit;

/// Signals by which V8 and the allocator end a process that has no memory left (`IMMEDIATE_CRASH` is an illegal instruction
/// or a trap, `abort` is SIGABRT).
const MEMORY_SIGNALS: [i32; 3] = [libc::SIGILL, libc::SIGTRAP, libc::SIGABRT];
/// Signals of a defect in native code, or of a native stack that overflowed.
const CRASH_SIGNALS: [i32; 3] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE];

/// Of a runner that the kernel has killed because the machine, or the node's share of it, had no memory left: runners offer themselves first
/// (`oom_score_adj`), and what ran in one is what grew.
const STARVED: (Option<Outcome>, &str) = (Some(Outcome::ExceededMemory), "made the kernel kill its runner for want of memory");

impl Inner {
    /// Stops using a runner: answers what cannot be finished in it, then kills it.
    pub(super) fn give_up(&self, runner: &Arc<Runner>, cause: Cause) {
        if !runner.condemn(cause.clone()) {
            return;
        }
        self.fleet.remove(runner);
        self.standby.discard(runner);
        for link in &runner.links {
            link.detach();
        }
        let delay = match &cause {
            Cause::Stuck { link, stream, slot, outcome } => {
                count(&self.counters.kills_stuck);
                if let Some(link) = runner.links.get(*link) {
                    self.bury_stuck(runner, link, (*stream, *slot, *outcome));
                }
                KILL_DELAY
            }
            Cause::Protocol(error) => {
                count(&self.counters.kills_protocol);
                tracing::error!(runner = runner.pid, %error, "runner broke the protocol: it may be compromised");
                bury(runner, |_| Vec::new(), Outcome::RunnerLost, "");
                Duration::ZERO
            }
            Cause::Silent => {
                count(&self.counters.kills_silent);
                tracing::warn!(runner = runner.pid, "runner's heartbeat is lost");
                bury(runner, |_| Vec::new(), Outcome::RunnerLost, "");
                Duration::ZERO
            }
            Cause::Cut(error) => {
                count(&self.counters.kills_cut);
                tracing::error!(runner = runner.pid, %error, "nothing can be written to a runner");
                bury(runner, |_| Vec::new(), Outcome::RunnerLost, "");
                Duration::ZERO
            }
            Cause::Retired | Cause::Shutdown => Duration::ZERO,
        };
        runner.kill_after(delay);
    }

    /// Answers all that waits on a thread that does not obey. Its runner's other threads go on until the kill.
    fn bury_stuck(&self, runner: &Arc<Runner>, link: &Arc<Link>, (stream, slot, outcome): (StreamId, u32, Outcome)) {
        let outcome = if outcome == Outcome::Ok { Outcome::ExceededCpu } else { outcome };
        let culprit = {
            let mut state = link.state.lock();
            let by_stream = state.entry(stream).map(|entry| entry.placement.clone());
            by_stream.or_else(|| state.slots.get(&slot).cloned())
        };
        let message = "the worker crossed a limit and could not be stopped: its runner is killed";
        if let Some(culprit) = &culprit {
            tracing::warn!(runner = runner.pid, worker = %culprit.version.worker, version = %culprit.version.id, %outcome, "runner is stuck");
            // Before anybody is answered: who asks again must not find the version where it was.
            self.judge(&culprit.version, POINTS_RUNNER_LOST, "could not be stopped at its limit, and its runner was killed");
            culprit.gone(outcome, message.to_owned());
        }
        let burial = Burial { offenders: vec![stream], outcome, message };
        part(link.bury(&burial));
    }

    /// The process is dead.
    pub(super) fn buried(&self, runner: &Arc<Runner>, ending: Ending) {
        self.fleet.remove(runner);
        let known = runner.cause();
        let crashed = runner.condemn(Cause::Retired);
        self.standby.discard(runner);
        if !crashed {
            if matches!(known, Some(Cause::Retired)) {
                count(&self.counters.deaths_retired);
            }
            bury(runner, |_| Vec::new(), Outcome::RunnerLost, "");
            return;
        }
        let starved = ending == Ending::Signal(libc::SIGKILL) && runner.was_starved().unwrap_or_else(|| self.oom_kills.rose());
        let (outcome, why) = if starved { STARVED } else { verdict(ending) };
        count(if outcome == Some(Outcome::ExceededMemory) { &self.counters.deaths_memory } else { &self.counters.deaths_crash });
        let suspects = outcome.map(|_| suspects(runner)).unwrap_or_default();
        let names: Vec<&str> = suspects.iter().map(|suspect| &*suspect.placement.version.worker).collect();
        tracing::warn!(runner = runner.pid, ?ending, suspects = ?names, "runner died");
        let outcome = outcome.unwrap_or(Outcome::RunnerLost);
        // The strikes come before the answers: who asks again must not find the version where it was.
        for link in &runner.links {
            link.detach();
        }
        let mut judged: Vec<&Arc<Version>> = Vec::new();
        for suspect in &suspects {
            let version = &suspect.placement.version;
            if !judged.iter().any(|other| Arc::ptr_eq(other, version)) {
                judged.push(version);
                self.judge(version, POINTS_RUNNER_LOST, why);
            }
            if suspect.placement.is_loading() {
                suspect.placement.gone(outcome, format!("the version {why} while it was loaded"));
            }
        }
        let offenders =
            |index| suspects.iter().filter(|suspect| suspect.link == index).filter_map(|suspect| suspect.stream).collect::<Vec<_>>();
        bury(runner, offenders, outcome, "the worker took its runner process with it");
    }
}

/// Who may have caused a runner's death.
struct Suspect {
    link: usize,
    stream: Option<StreamId>,
    placement: Arc<Placement>,
}

/// Those that ran when it died: the thread that noted that it ran out of memory, else every thread that was in JavaScript.
fn suspects(runner: &Runner) -> Vec<Suspect> {
    let noted = runner.links.iter().any(|link| link.area.ran_out_of_memory());
    let threads = runner.links.iter().filter(|link| if noted { link.area.ran_out_of_memory() } else { link.area.turn_started_ns() != 0 });
    let mut suspects = Vec::new();
    for link in threads {
        match link.holder() {
            Some((stream, placement)) => suspects.push(Suspect { link: link.index, stream: Some(stream), placement }),
            None => {
                let state = link.state.lock();
                let loading = state.slots.values().filter(|placement| placement.is_loading());
                suspects.extend(loading.map(|placement| Suspect { link: link.index, stream: None, placement: placement.clone() }));
            }
        }
    }
    suspects
}

/// What the offender is answered with, if there is one, and what is said of it.
fn verdict(ending: Ending) -> (Option<Outcome>, &'static str) {
    match ending {
        Ending::Exit(Exit::Memory) => (Some(Outcome::ExceededMemory), "ran its runner out of memory"),
        Ending::Signal(signal) if MEMORY_SIGNALS.contains(&signal) => (Some(Outcome::ExceededMemory), "ran its runner out of memory"),
        Ending::Signal(signal) if CRASH_SIGNALS.contains(&signal) => (Some(Outcome::InternalError), "crashed its runner"),
        Ending::Exit(Exit::Internal) => (Some(Outcome::InternalError), "crashed its runner"),
        // SIGKILL comes from an operator, or else the kernel has counted it: nobody inside can be blamed.
        Ending::Exit(_) | Ending::Code(_) | Ending::Signal(_) | Ending::Unknown => (None, ""),
    }
}

fn bury(runner: &Runner, offenders: impl Fn(usize) -> Vec<StreamId>, outcome: Outcome, message: &'static str) {
    for link in &runner.links {
        part(link.bury(&Burial { offenders: offenders(link.index), outcome, message }));
    }
}

/// The placements of a link that has ended.
fn part(placements: Vec<Arc<Placement>>) {
    for placement in placements {
        placement.lost();
        placement.version.forget(&placement);
    }
}

/// The supervisor is gone: only the duties to those who wait remain.
pub(super) fn bury_quietly(runner: &Runner) {
    bury(runner, |_| Vec::new(), Outcome::Canceled, "");
}

impl Link {
    /// Nothing new is started here, but what runs may go on.
    pub(super) fn detach(&self) {
        self.shut();
        let placements: Vec<_> = self.state.lock().slots.values().cloned().collect();
        for placement in placements {
            placement.version.forget(&placement);
        }
    }
}

impl Inner {
    /// Takes an incident (or the want of any) of a version into account.
    pub(super) fn judge(&self, version: &Arc<Version>, points: u32, why: &str) {
        let judgement = version.judge(points, why, Instant::now());
        if let Some(placements) = judgement.disabled {
            count(&self.counters.disabled);
            tracing::error!(worker = %version.worker, version = %version.id, reason = why, "worker is disabled");
            for placement in placements {
                placement.unload();
            }
        } else if points > 0 {
            tracing::warn!(worker = %version.worker, version = %version.id, points = judgement.points, reason = why, "strike");
        }
        if judgement.moved {
            self.relocate(version);
        }
    }
}
