//! How many requests of one h2 or h3 connection the client gave up: cancelling costs a client nothing and us an invocation (CVE-2023-44487, rapid reset).
//! Those that run on nevertheless are counted by themselves, for they are what it costs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::interim::{Interims, Outlived};
use crate::limits::{GIVEN_UP_RUNNING_MAX, RESETS_MAX};

/// Shared by a connection's driver and its requests.
#[derive(Debug, Default)]
pub(super) struct Resets {
    requests: AtomicU64,
    given_up: AtomicU64,
    /// Requests that were given up and ran on then. Bounded: whoever takes the next request asks [`Self::excessive`].
    running: Mutex<Vec<Outlived>>,
}

impl Resets {
    /// A request has come.
    pub(super) fn asked(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// The client has given one up before its answer was whole; none where it had not begun to run.
    pub(super) fn given_up(&self, request: Option<&Interims>) {
        self.given_up.fetch_add(1, Relaxed);
        if let Some(outlived) = request.and_then(Interims::outlived) {
            self.running.lock().push(outlived);
        }
    }

    /// More than a client that means well gives up.
    pub(super) fn excessive(&self) -> bool {
        let given_up = self.given_up.load(Relaxed);
        (given_up > RESETS_MAX && given_up * 2 > self.requests.load(Relaxed)) || self.many_run_on()
    }

    fn many_run_on(&self) -> bool {
        let mut running = self.running.lock();
        if running.len() > GIVEN_UP_RUNNING_MAX {
            running.retain(Outlived::is_held);
        }
        running.len() > GIVEN_UP_RUNNING_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_and_most_are_too_many() {
        let resets = Resets::default();
        let give_up = |count| {
            (0..count).for_each(|_| {
                resets.asked();
                resets.given_up(None)
            })
        };
        give_up(RESETS_MAX);
        assert!(!resets.excessive());
        (0..RESETS_MAX + 2).for_each(|_| resets.asked());
        give_up(1);
        assert!(!resets.excessive(), "less than half");
        give_up(2);
        assert!(resets.excessive());
    }

    #[test]
    fn those_that_run_on_are_counted_until_they_end() {
        let resets = Resets::default();
        let give_up = || {
            let request = Interims::default();
            let runs_on = request.open();
            resets.given_up(Some(&request));
            runs_on
        };
        (0..RESETS_MAX / 2).for_each(|_| drop(give_up()));
        assert!(!resets.excessive(), "they have ended");
        let mut running: Vec<_> = (0..GIVEN_UP_RUNNING_MAX).map(|_| give_up()).collect();
        assert!(!resets.excessive());
        running.push(give_up());
        assert!(resets.excessive());
        running.pop();
        assert!(!resets.excessive(), "one has ended");
    }
}
