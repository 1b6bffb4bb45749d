//! How many retries there may be: a share of the requests. When everything fails, retries must not multiply the load.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::upstream::limits::RETRIES_SAVED_MAX;

/// What one retry takes; a request brings `retries.budget_percent` of it.
const RETRY_COST: u32 = 100;
const SAVED_MAX: u32 = RETRIES_SAVED_MAX * RETRY_COST;

/// Retries saved up, in percent of one.
#[derive(Debug)]
pub(super) struct Budget(AtomicU32);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(SAVED_MAX))
    }
}

impl Budget {
    /// A request has come.
    pub(super) fn earn(&self, percent: u32) {
        // Full most of the time: then nothing is written.
        if self.0.load(Relaxed) < SAVED_MAX {
            let _ = self.0.fetch_update(Relaxed, Relaxed, |saved| Some(saved.saturating_add(percent).min(SAVED_MAX)));
        }
    }

    /// Whether one more retry is within it.
    pub(super) fn spend(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |saved| saved.checked_sub(RETRY_COST)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_requests() {
        let budget = Budget::default();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
        let retries = (0..1000).filter(|_| {
            budget.earn(20);
            budget.spend()
        });
        assert_eq!(retries.count(), 200);
        (0..10_000).for_each(|_| budget.earn(100));
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10, "no more is saved");
    }
}
