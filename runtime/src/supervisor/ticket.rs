//! The duty to report how an invocation ended, exactly once, wherever it ends.

use std::sync::Arc;
use std::time::Instant;

use crate::{Host, Outcome, Report};

/// Held by whoever is responsible for an invocation: the caller's future until it is placed, then its link. Dropping it
/// reports a cancelled invocation.
#[must_use]
pub(super) struct Ticket {
    pub(super) host: Arc<dyn Host>,
    pub(super) started: Instant,
    pub(super) cold_start: bool,
    pub(super) subrequests: u32,
    /// What ended it on this side; overrides what the runner says of its end.
    pub(super) verdict: Option<Outcome>,
    reported: bool,
}

impl Ticket {
    pub(super) fn new(host: Arc<dyn Host>, started: Instant) -> Self {
        Self { host, started, cold_start: false, subrequests: 0, verdict: None, reported: false }
    }

    /// Reports.
    pub(super) fn finish(mut self, outcome: Outcome, cpu_us: u64, heap_bytes: u64) {
        self.report(outcome, cpu_us, heap_bytes);
    }

    fn report(&mut self, outcome: Outcome, cpu_us: u64, heap_bytes: u64) {
        self.reported = true;
        self.host.finished(Report {
            outcome: self.verdict.unwrap_or(outcome),
            cpu_us,
            wall: self.started.elapsed(),
            heap_bytes,
            subrequests: self.subrequests,
            cold_start: self.cold_start,
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.reported {
            self.report(Outcome::Canceled, 0, 0);
        }
    }
}
