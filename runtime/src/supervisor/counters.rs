//! What happened since the start, for metrics and tests.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Rising counters of a supervisor.
        #[derive(Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        /// The [`crate::supervisor::Supervisor`]'s counters at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(super) fn now(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl Counts {
            /// Names and values, for metrics.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Runner processes started.
    spawns,
    /// Attempts to start one that failed.
    spawn_failures,
    /// Runners that ended because nothing was left to do in them.
    deaths_retired,
    /// Runners that died of memory.
    deaths_memory,
    /// Runners that crashed or were killed by somebody else.
    deaths_crash,
    /// Runners killed because a thread was stuck.
    kills_stuck,
    /// Runners killed because their heartbeat was lost.
    kills_silent,
    /// Runners killed because nothing could be written to them.
    kills_cut,
    /// Runners killed because they broke the protocol.
    kills_protocol,
    /// Invocations that a busy thread gave back.
    bounces,
    /// Invocations that were run again after their runner's death.
    replays,
    /// Invocations that had to wait for their version to be loaded.
    cold_starts,
    /// Versions loaded.
    loads,
    /// Invocations refused because too much was waiting.
    shed,
    /// Versions disabled.
    disabled,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
