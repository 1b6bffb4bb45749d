//! How many requests of one h2 or h3 connection the client gave up: cancelling costs a client nothing and us an invocation (CVE-2023-44487, rapid reset).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::limits::RESETS_MAX;

/// Shared by a connection's driver and its requests.
#[derive(Debug, Default)]
pub(super) struct Resets {
    requests: AtomicU64,
    given_up: AtomicU64,
}

impl Resets {
    /// A request has come.
    pub(super) fn asked(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// The client has given one up before its answer was whole.
    pub(super) fn given_up(&self) {
        self.given_up.fetch_add(1, Relaxed);
    }

    /// More than a client that means well gives up.
    pub(super) fn excessive(&self) -> bool {
        let given_up = self.given_up.load(Relaxed);
        given_up > RESETS_MAX && given_up * 2 > self.requests.load(Relaxed)
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
                resets.given_up()
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
}
