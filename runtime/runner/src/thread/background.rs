//! CPU time that an isolate may use outside of its invocations: what is ready after they have ended, V8's own tasks. It grows again with
//! time, and with what its invocations use: an isolate that serves much has much of that, too.

use crate::limits::{BACKGROUND_CPU, BACKGROUND_PERIOD};

const MAX_NS: u64 = BACKGROUND_CPU.as_nanos() as u64;
const PERIOD_NS: u64 = BACKGROUND_PERIOD.as_nanos() as u64;

/// What is left.
#[derive(Clone, Copy)]
pub(super) struct Background {
    left_ns: u64,
    at_ns: u64,
}

impl Background {
    /// All of it, at this time.
    pub(super) const fn full(now_ns: u64) -> Self {
        Self { left_ns: MAX_NS, at_ns: now_ns }
    }

    /// Some time has passed. What is left now.
    pub(super) fn left_ns(&mut self, now_ns: u64) -> u64 {
        let passed = now_ns.saturating_sub(self.at_ns).min(PERIOD_NS);
        self.earn((u128::from(passed) * u128::from(MAX_NS) / u128::from(PERIOD_NS)) as u64);
        self.at_ns = now_ns;
        self.left_ns
    }

    /// An invocation has used so much.
    pub(super) fn earn(&mut self, used_ns: u64) {
        self.left_ns = self.left_ns.saturating_add(used_ns).min(MAX_NS);
    }

    /// Something else has used so much. False where that is more than was left.
    pub(super) fn spend(&mut self, used_ns: u64) -> bool {
        let within = used_ns <= self.left_ns;
        self.left_ns = self.left_ns.saturating_sub(used_ns);
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_comes_back_with_time_and_with_what_invocations_use() {
        let mut background = Background::full(0);
        assert!(background.spend(MAX_NS));
        assert_eq!(background.left_ns(0), 0);
        assert_eq!(background.left_ns(PERIOD_NS / 4), MAX_NS / 4);
        assert!(!background.spend(MAX_NS / 4 + 1));
        background.earn(7);
        assert_eq!(background.left_ns(PERIOD_NS / 4), 7);
        background.earn(MAX_NS);
        assert_eq!(background.left_ns(u64::MAX), MAX_NS, "never more than at the beginning");
    }
}
