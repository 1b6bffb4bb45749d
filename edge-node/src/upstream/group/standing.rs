//! How one server does: what its answers to clients and to health checks say. Shared by all requests, without a lock.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use selvedge_origin::registry::{Ejection, HealthCheck};

use crate::upstream::limits::EJECTION_DOUBLINGS_MAX;

/// A server's state. Times are in milliseconds since it is known.
#[derive(Debug)]
pub(super) struct Standing {
    failures: AtomicU32,
    ejections: AtomicU32,
    ejected_until_ms: AtomicU64,
    healthy: AtomicBool,
    /// Answers to health checks in a row that speak against `healthy`.
    against: AtomicU32,
}

impl Default for Standing {
    /// A server is taken for up until something says otherwise.
    fn default() -> Self {
        Self {
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
            against: AtomicU32::new(0),
        }
    }
}

impl Standing {
    /// Its health checks say that it answers, or it has none.
    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    /// Nobody checks its health any more: it is taken for up.
    pub(super) fn trusted(&self) {
        self.healthy.store(true, Relaxed);
        self.against.store(0, Relaxed);
    }

    /// It is left alone for a while.
    pub(super) fn is_ejected(&self, now_ms: u64) -> bool {
        now_ms < self.ejected_until_ms.load(Relaxed)
    }

    /// It has answered a client.
    pub(super) fn answered(&self) {
        // Most of the time there is nothing to forget, and writing would move the line between cores.
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
        }
        if self.ejections.load(Relaxed) > 0 {
            self.ejections.store(0, Relaxed);
        }
    }

    /// It has failed a client. Gives for how many milliseconds it is ejected, where that is why.
    pub(super) fn failed(&self, rule: &Ejection, now_ms: u64) -> Option<u64> {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if rule.failures == 0 || failures < rule.failures || self.is_ejected(now_ms) {
            return None;
        }
        self.failures.store(0, Relaxed);
        let doublings = self.ejections.fetch_add(1, Relaxed).min(EJECTION_DOUBLINGS_MAX);
        let ms = u64::from(rule.ms) << doublings;
        self.ejected_until_ms.store(now_ms.saturating_add(ms), Relaxed);
        Some(ms)
    }

    /// A health check has ended. Gives whether the server is up now, where that has changed.
    pub(super) fn checked(&self, good: bool, rule: &HealthCheck) -> Option<bool> {
        let healthy = self.is_healthy();
        if good == healthy {
            self.against.store(0, Relaxed);
            return None;
        }
        let against = self.against.fetch_add(1, Relaxed).saturating_add(1);
        if against < if good { rule.up_after } else { rule.down_after } {
            return None;
        }
        self.against.store(0, Relaxed);
        self.healthy.store(good, Relaxed);
        Some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_eject_longer_each_time_and_an_answer_forgives() {
        let (standing, rule) = (Standing::default(), Ejection { failures: 3, ms: 100 });
        let mut now = 0;
        for expected in [100, 200, 400, 800, 800] {
            assert_eq!(standing.failed(&rule, now), None);
            assert_eq!(standing.failed(&rule, now), None);
            assert_eq!(standing.failed(&rule, now), Some(expected));
            assert!(standing.is_ejected(now + expected - 1));
            assert_eq!(standing.failed(&rule, now), None, "it is ejected already");
            standing.failures.store(0, Relaxed);
            now += expected;
            assert!(!standing.is_ejected(now));
        }
        standing.answered();
        standing.failed(&rule, now);
        standing.failed(&rule, now);
        standing.answered();
        standing.failed(&rule, now);
        assert_eq!(standing.failed(&rule, now), None, "not in a row");
        assert_eq!(standing.failed(&rule, now), Some(100));
    }

    #[test]
    fn nothing_is_ejected_by_a_rule_of_zero() {
        let (standing, rule) = (Standing::default(), Ejection { failures: 0, ms: 100 });
        assert!((0..100).all(|now| standing.failed(&rule, now).is_none()));
    }

    #[test]
    fn health_changes_after_so_many_checks_in_a_row() {
        let (standing, rule) = (Standing::default(), HealthCheck { up_after: 2, down_after: 3, ..HealthCheck::default() });
        let checks = [false, false, true, false, false, false, true, false, true, true];
        let seen: Vec<Option<bool>> = checks.iter().map(|good| standing.checked(*good, &rule)).collect();
        assert_eq!(seen, [None, None, None, None, None, Some(false), None, None, None, Some(true)]);
    }
}
