//! What the supervisor knows of one version: where it is loaded, how it has behaved, and so with whom it may share a runner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::limits::{
    HEAVY_CPU_US, LOAD_RETRY_MAX, LOAD_RETRY_MIN, POINT_FORGOTTEN_AFTER, POINTS_ALONE, POINTS_DISABLED, POINTS_JITLESS, PROBATION_CPU_US,
    SPREAD_RUNNING, WAITING_PER_VERSION_MAX,
};
use super::placement::Placement;
use crate::backlog::Backlog;
use crate::{Limits, Outcome, RunError, WorkerSource};

/// Who may share a runner process: versions of the same class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    /// With others of its cordon that are alike: a version on probation stays apart from proven ones, and one that holds
    /// threads for long from light ones.
    Shared {
        /// The trust group.
        cordon: Arc<str>,
        /// It has used its second of CPU time without an incident.
        proven: bool,
        /// It has held a thread for long.
        heavy: bool,
    },
    /// With nobody, after strikes.
    Alone {
        /// The trust group.
        cordon: Arc<str>,
        /// The version.
        version: Arc<str>,
        /// After more strikes.
        jitless: bool,
    },
}

impl Class {
    pub(super) fn cordon(&self) -> &Arc<str> {
        match self {
            Self::Shared { cordon, .. } | Self::Alone { cordon, .. } => cordon,
        }
    }

    pub(super) fn is_jitless(&self) -> bool {
        matches!(self, Self::Alone { jitless: true, .. })
    }
}

/// One version.
pub(super) struct Version {
    pub(super) id: Arc<str>,
    pub(super) worker: Arc<str>,
    pub(super) limits: Limits,
    cordon: Arc<str>,
    /// CPU time since the last incident, in microseconds.
    cpu_us: AtomicU64,
    heavy: AtomicBool,
    waiting: AtomicUsize,
    /// Of those, the ones that wait for a thread.
    pub(super) backlog: Backlog,
    /// Milliseconds since the supervisor's start.
    last_used_ms: AtomicU64,
    pub(super) state: Mutex<Standing>,
    /// Something became ready or failed.
    pub(super) changed: Notify,
}

/// What a version's lock protects.
pub(super) struct Standing {
    pub(super) ready: SmallVec<[Arc<Placement>; 2]>,
    pub(super) loading: bool,
    pub(super) disabled: Option<String>,
    failure: Option<Failure>,
    proven: bool,
    points: u32,
    forgotten: Instant,
}

struct Failure {
    until: Instant,
    delay: Duration,
    error: RunError,
}

/// Where an invocation may go now.
pub(super) struct Choice {
    pub(super) placement: Option<Arc<Placement>>,
    /// The version should be loaded on one more link.
    pub(super) more: bool,
}

/// What became of a version's standing.
pub(super) struct Judgement {
    /// It belongs to another class now.
    pub(super) moved: bool,
    /// It does not run any more: where it was loaded.
    pub(super) disabled: Option<SmallVec<[Arc<Placement>; 2]>>,
    pub(super) points: u32,
}

impl Version {
    pub(super) fn new(source: &WorkerSource, now: Instant) -> Self {
        let standing =
            Standing { ready: SmallVec::new(), loading: false, disabled: None, failure: None, proven: false, points: 0, forgotten: now };
        Self {
            id: source.version.clone(),
            worker: source.worker.clone(),
            limits: source.limits.clone(),
            cordon: source.cordon.clone(),
            cpu_us: AtomicU64::new(0),
            heavy: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            backlog: Backlog::default(),
            last_used_ms: AtomicU64::new(0),
            state: Mutex::new(standing),
            changed: Notify::new(),
        }
    }

    pub(super) fn used(&self, at_ms: u64) {
        self.last_used_ms.store(at_ms, Ordering::Relaxed);
    }

    pub(super) fn last_used_ms(&self) -> u64 {
        self.last_used_ms.load(Ordering::Relaxed)
    }

    pub(super) fn class(&self, standing: &Standing) -> Class {
        let cordon = self.cordon.clone();
        if standing.points >= POINTS_ALONE {
            return Class::Alone { cordon, version: self.id.clone(), jitless: standing.points >= POINTS_JITLESS };
        }
        Class::Shared { cordon, proven: standing.proven, heavy: self.heavy.load(Ordering::Relaxed) }
    }

    /// Adds the CPU time of an invocation. Whether the version must be judged.
    pub(super) fn has_used(&self, cpu_us: u64, points: u32) -> bool {
        let before = self.cpu_us.fetch_add(cpu_us, Ordering::Relaxed);
        let proven = before < PROBATION_CPU_US && before.saturating_add(cpu_us) >= PROBATION_CPU_US;
        points > 0 || proven || (cpu_us > HEAVY_CPU_US && self.weighs())
    }

    /// It has held a thread for long. Whether that is news.
    pub(super) fn weighs(&self) -> bool {
        !self.heavy.swap(true, Ordering::Relaxed)
    }

    /// Takes `points` into account, and what has been noted since the last judgement.
    pub(super) fn judge(&self, points: u32, why: &str, now: Instant) -> Judgement {
        let mut standing = self.state.lock();
        let forgotten = now.saturating_duration_since(standing.forgotten).as_secs() / POINT_FORGOTTEN_AFTER.as_secs().max(1);
        if forgotten > 0 {
            standing.points = standing.points.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
            standing.forgotten = now;
        }
        standing.points = standing.points.saturating_add(points);
        if points > 0 {
            self.cpu_us.store(0, Ordering::Relaxed);
            standing.proven = false;
        } else if self.cpu_us.load(Ordering::Relaxed) >= PROBATION_CPU_US {
            standing.proven = true;
        }
        let total = standing.points;
        if total >= POINTS_DISABLED && standing.disabled.is_none() {
            standing.disabled = Some(format!("disabled after too many incidents; the last: it {why}"));
            let placements = std::mem::take(&mut standing.ready);
            drop(standing);
            self.changed.notify_waiters();
            return Judgement { moved: false, disabled: Some(placements), points: total };
        }
        let class = self.class(&standing);
        let moved = standing.disabled.is_none() && standing.ready.iter().any(|placement| placement.class != class);
        Judgement { moved, disabled: None, points: total }
    }

    /// A place in the queue of those that wait; none when it is full.
    pub(super) fn queue(self: &Arc<Self>) -> Option<Waiting> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_PER_VERSION_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Waiting(self.clone()))
    }

    /// Whether it is ready in another place, too.
    pub(super) fn is_elsewhere_than(&self, placement: &Arc<Placement>) -> bool {
        self.state.lock().ready.iter().any(|ready| !Arc::ptr_eq(ready, placement))
    }

    /// Takes a placement that is gone out of use.
    pub(super) fn forget(&self, placement: &Arc<Placement>) {
        self.state.lock().ready.retain(|ready| !Arc::ptr_eq(ready, placement));
        self.changed.notify_waiters();
    }
}

/// One that waits for a place.
pub(super) struct Waiting(Arc<Version>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Standing {
    /// The least loaded link whose thread is free.
    pub(super) fn choose(&self) -> Choice {
        let free = self.ready.iter().filter(|placement| placement.link.is_open() && !placement.link.is_busy());
        let placement = free.min_by_key(|placement| placement.link.running()).cloned();
        let more = placement.as_ref().is_none_or(|placement| placement.link.running() >= SPREAD_RUNNING);
        Choice { placement, more }
    }

    /// Why it could not be loaded, while that is not tried again.
    pub(super) fn failure(&self, now: Instant) -> Option<&RunError> {
        self.failure.as_ref().filter(|failure| now < failure.until).map(|failure| &failure.error)
    }

    /// It could not be loaded.
    pub(super) fn failed(&mut self, error: RunError, now: Instant) {
        let last = self.failure.take().map(|failure| failure.delay);
        // That there was no place says nothing about the version.
        let delay = match error.outcome {
            Outcome::LoadShed => LOAD_RETRY_MIN,
            _ => last.map_or(LOAD_RETRY_MIN, |delay| (delay * 2).min(LOAD_RETRY_MAX)),
        };
        self.failure = Some(Failure { until: now + delay, delay, error });
    }

    /// Incidents are remembered.
    pub(super) fn has_strikes(&self) -> bool {
        self.points > 0 || self.disabled.is_some()
    }

    /// It has been loaded.
    pub(super) fn succeeded(&mut self) {
        self.failure = None;
    }
}
