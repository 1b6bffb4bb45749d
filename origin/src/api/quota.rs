//! How much each caller may purge: a bucket of things that fills again over time; and how often a node may move. Pure but for locks: the caller brings `now`.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::limits::{
    NODE_MOVE_INTERVAL, NODE_MOVES_BURST, PURGE_BURST, PURGE_TARGETS_PER_SECOND, WORKER_PURGE_BURST, WORKER_PURGE_TARGETS_PER_SECOND,
};
use crate::registry::{NodeName, WorkerName};

/// The buckets: one for the admin token (`None`), one for each worker that purged lately. A full bucket is none, so there are no more than callers that
/// purged within the time that one takes to fill.
#[derive(Debug, Default)]
pub(super) struct Quotas(Mutex<BTreeMap<Option<WorkerName>, Bucket>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Thousandths of a thing that are left.
    left: u64,
    at_ms: u64,
}

impl Bucket {
    /// What it holds now.
    fn filled(self, (burst, per_second): (u32, u32), now_ms: u64) -> Self {
        let since_ms = now_ms.saturating_sub(self.at_ms);
        let left = self.left.saturating_add(since_ms.saturating_mul(per_second.into())).min(u64::from(burst) * 1000);
        Self { left, at_ms: now_ms }
    }
}

impl Quotas {
    /// Takes `count` things for a caller, or says after what time it may try again.
    pub(super) fn take(&self, who: Option<&WorkerName>, count: usize, now_ms: u64) -> Result<(), Duration> {
        let rate = |who: &Option<WorkerName>| match who {
            None => (PURGE_BURST, PURGE_TARGETS_PER_SECOND),
            Some(_) => (WORKER_PURGE_BURST, WORKER_PURGE_TARGETS_PER_SECOND),
        };
        let mut buckets = self.0.lock();
        let who = who.cloned();
        let (burst, per_second) = rate(&who);
        let full = Bucket { left: u64::from(burst) * 1000, at_ms: now_ms };
        let bucket = buckets.get(&who).copied().unwrap_or(full).filled((burst, per_second), now_ms);
        // More than a bucket holds at all would wait for ever: it is taken from a full one.
        let wanted = (count as u64 * 1000).min(full.left);
        if bucket.left < wanted {
            return Err(Duration::from_millis((wanted - bucket.left).div_ceil(per_second.into())));
        }
        buckets.insert(who, Bucket { left: bucket.left - wanted, ..bucket });
        buckets.retain(|who, bucket| bucket.filled(rate(who), now_ms).left < u64::from(rate(who).0) * 1000);
        Ok(())
    }
}

/// How often each node may move: by when as many moves as it has made would have been due. Those of nodes that have not moved lately are forgotten.
#[derive(Debug, Default)]
pub(super) struct Moves(Mutex<BTreeMap<NodeName, u64>>);

impl Moves {
    /// Whether a node may move now.
    pub(super) fn take(&self, node: &NodeName, now_ms: u64) -> bool {
        let interval_ms = NODE_MOVE_INTERVAL.as_millis() as u64;
        let mut due = self.0.lock();
        due.retain(|_, due_ms| *due_ms > now_ms);
        let due_ms = due.get(node).map_or(now_ms, |due_ms| *due_ms);
        if due_ms - now_ms > interval_ms * (NODE_MOVES_BURST - 1) {
            return false;
        }
        due.insert(node.clone(), due_ms + interval_ms);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_fills_again_over_time() {
        let quotas = Quotas::default();
        let burst = PURGE_BURST as usize;
        assert_eq!(quotas.take(None, burst - 1, 1_000), Ok(()));
        assert_eq!(quotas.take(None, 1, 1_000), Ok(()));
        let wait = quotas.take(None, 1, 1_000).expect_err("empty");
        assert_eq!(wait, Duration::from_millis(u64::from(1_000u32.div_ceil(PURGE_TARGETS_PER_SECOND))));
        assert_eq!(quotas.take(None, 1, 1_000 + wait.as_millis() as u64), Ok(()));
    }

    #[test]
    fn callers_have_buckets_of_their_own_and_full_ones_are_forgotten() {
        let quotas = Quotas::default();
        let shop: WorkerName = "shop".parse().expect("a name");
        assert_eq!(quotas.take(Some(&shop), WORKER_PURGE_BURST as usize, 0), Ok(()));
        assert!(quotas.take(Some(&shop), 1, 0).is_err());
        assert_eq!(quotas.take(None, 1, 0), Ok(()));
        assert_eq!(quotas.take(Some(&shop), usize::MAX >> 10, 3_600_000), Ok(()), "more than it holds waits for a full one at most");
        assert_eq!(quotas.0.lock().len(), 1, "that of the admin token is full again");
    }

    #[test]
    fn a_node_moves_a_few_times_at_once_and_then_at_its_rate() {
        let moves = Moves::default();
        let [first, second]: [NodeName; 2] = ["edge-1", "edge-2"].map(|name| name.parse().expect("a name"));
        let taken = |node: &NodeName, now_ms: u64| (0..100).filter(|_| moves.take(node, now_ms)).count() as u64;
        let interval_ms = NODE_MOVE_INTERVAL.as_millis() as u64;
        assert_eq!(taken(&first, 1_000), NODE_MOVES_BURST);
        assert_eq!(taken(&second, 1_000), NODE_MOVES_BURST, "each has its own");
        assert_eq!(taken(&first, 1_000 + interval_ms - 1), 0);
        assert_eq!(taken(&first, 1_000 + interval_ms), 1);
        assert_eq!(taken(&first, 1_000 + 100 * interval_ms), NODE_MOVES_BURST);
        assert_eq!(moves.0.lock().len(), 1, "the other one's are forgotten");
    }
}
