//! The edge's rungs of the ladder: lost heartbeats, wall limits, and cancelled invocations that do not end.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::Inner;
use super::cgroup;
use super::limits::{CANCEL_GRACE, CANCEL_GRACE_MAX, HEARTBEAT_LOSS, IDLE_SWEEP, TICK, TICK_LATE};
use super::link::{Link, State};
use super::look::Look;
use super::phase::Phase;
use super::process;
use super::runner::{Cause, Runner};
use super::stream::Entry;
use crate::Outcome;
use crate::protocol::{StreamId, monotonic_ns};

/// Looks at every runner, until the supervisor is gone.
pub(super) async fn watch(supervisor: Weak<Inner>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    let mut trusted_from = last;
    let mut swept = last;
    loop {
        ticks.tick().await;
        let Some(inner) = supervisor.upgrade().filter(|inner| !inner.closing.load(Ordering::Acquire)) else { return };
        let now = Instant::now();
        if now.duration_since(last) > TICK + TICK_LATE {
            trusted_from = now + HEARTBEAT_LOSS;
        }
        last = now;
        for runner in inner.fleet.all().into_iter().chain(inner.standby.get()) {
            let hung = runner.links.iter().fold(None, |hung, link| link.examine(now).or(hung));
            let cause = if runner.is_silent() { Some(Cause::Silent) } else { hung };
            if let Some(cause) = cause.filter(|_| now >= trusted_from) {
                inner.give_up(&runner, cause);
            }
        }
        if now.duration_since(swept) > IDLE_SWEEP {
            swept = now;
            inner.sweep_idle();
            cgroup::sweep();
            process::sweep();
        }
    }
}

impl Runner {
    fn is_silent(&self) -> bool {
        let now = monotonic_ns();
        self.links.iter().any(|link| {
            let heard = link.area.heartbeat_ns().max(self.ready_ns);
            Duration::from_nanos(now.saturating_sub(heard)) > HEARTBEAT_LOSS
        })
    }
}

impl Entry {
    /// How long it may take to end after it was cancelled, while this one holds the thread.
    fn grace(&self, held_by: Option<StreamId>) -> Duration {
        let gone = self.ticket.as_ref().is_some_and(|ticket| ticket.verdict.is_none());
        match held_by {
            Some(holder) if holder != self.id => CANCEL_GRACE_MAX,
            // Its client went away while it computes: its runner lets it go on up to its CPU limit where others run beside it.
            Some(_) if gone => CANCEL_GRACE_MAX + self.limits().cpu(),
            _ => CANCEL_GRACE,
        }
    }
}

impl Link {
    /// Charges no cancelled invocation with a turn of others: it hears that it was cancelled when that is over.
    fn excuse(&self, state: &mut State, now: Instant) {
        let look = Look { at: now, at_ns: monotonic_ns(), turn_ns: self.area.turn_started_ns(), running: self.area.running() };
        let Some(before) = state.looked.replace(look) else { return };
        let running = state.streams.iter().filter(|(_, entry)| !entry.done);
        let legal = running.fold(CANCEL_GRACE_MAX, |legal, (_, entry)| legal.saturating_add(entry.limits().cpu()));
        for (_, entry) in &mut state.streams {
            if let Phase::Cancelled(since) = entry.phase {
                let most = now.saturating_duration_since(since);
                entry.kept_off = entry.kept_off.saturating_add(look.kept_off(entry.id, &before, legal)).min(most);
            }
        }
    }

    /// Ends what is overdue. A cause to give the runner up, where a cancelled invocation does not end.
    fn examine(&self, now: Instant) -> Option<Cause> {
        if self.running() == 0 {
            return None;
        }
        let mut wakers: Vec<Waker> = Vec::new();
        let mut state = self.state.lock();
        let running = state.streams.iter().filter(|(_, entry)| !entry.done);
        let overdue: Vec<_> = running.filter_map(|(_, entry)| entry.overdue(now).map(|why| (entry.id, why))).collect();
        for (stream, why) in overdue {
            self.expire(&mut state, stream, why, now, &mut wakers);
        }
        self.excuse(&mut state, now);
        let held_by = (self.area.turn_started_ns() != 0).then(|| self.area.running());
        let hung = state.streams.iter().find(|(_, entry)| entry.cancelled_for(now).is_some_and(|time| time > entry.grace(held_by)));
        let cause = hung.map(|(_, entry)| {
            let outcome = entry.ticket.as_ref().and_then(|ticket| ticket.verdict).unwrap_or(Outcome::ExceededWallTime);
            Cause::Stuck { link: self.index, stream: entry.id, slot: entry.placement.slot, outcome }
        });
        self.flush(state);
        wakers.into_iter().for_each(Waker::wake);
        cause
    }
}
