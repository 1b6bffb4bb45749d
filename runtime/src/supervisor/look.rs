//! What the edge sees of a thread when it looks, and so how long nobody but the holder of a turn could run there. Pure.

use std::time::{Duration, Instant};

use crate::protocol::StreamId;

/// One look at a thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) at: Instant,
    /// The same by the monotonic clock that both sides have, in nanoseconds.
    pub(super) at_ns: u64,
    /// Since when the thread has been in its turn, by that clock; 0 where it is in none.
    pub(super) turn_ns: u64,
    /// Who runs.
    pub(super) running: StreamId,
}

impl Look {
    /// For how long `stream` could not run since the look `before`, because one turn of others took all of that time. A turn that is older than `legal` is no excuse any more.
    pub(super) fn kept_off(&self, stream: StreamId, before: &Self, legal: Duration) -> Duration {
        let is_one_turn = self.turn_ns != 0 && self.turn_ns == before.turn_ns;
        let is_legal = Duration::from_nanos(self.at_ns.saturating_sub(self.turn_ns)) <= legal;
        if is_one_turn && is_legal && ![self.running, before.running].contains(&stream) {
            return self.at.saturating_duration_since(before.at);
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(20);
    const LEGAL: Duration = Duration::from_secs(40);

    #[test]
    fn only_one_legal_turn_of_others_keeps_an_invocation_from_running() {
        let start = Instant::now();
        let look = |steps: u32, turn_ns, running| Look {
            at: start + STEP * steps,
            at_ns: 1_000 + u64::from(steps) * STEP.as_nanos() as u64,
            turn_ns,
            running,
        };
        let kept_off = |before: Look, after: Look| after.kept_off(7, &before, LEGAL);
        assert_eq!(kept_off(look(0, 1_000, 3), look(1, 1_000, 3)), STEP);
        assert_eq!(kept_off(look(0, 1_000, 3), look(5, 1_000, 4)), STEP * 5, "others ran one after the other");
        assert_eq!(
            kept_off(look(0, 1_000, 3), look(1, 2_000, 3)),
            Duration::ZERO,
            "between two turns the thread looks for what it has to do"
        );
        assert_eq!(kept_off(look(0, 0, 0), look(1, 0, 0)), Duration::ZERO, "the thread is free");
        for (first, then) in [(7, 3), (3, 7), (7, 7)] {
            assert_eq!(kept_off(look(0, 1_000, first), look(1, 1_000, then)), Duration::ZERO, "it ran itself");
        }
        let (last, beyond) = (look(2_000, 1_000, 3), look(2_001, 1_000, 3));
        assert_eq!((kept_off(look(1_999, 1_000, 3), last), kept_off(last, beyond)), (STEP, Duration::ZERO), "no turn is legal for ever");
    }
}
