//! How late this node's own event loop is: what shows that all of it has too much to do, whatever of its queues or processors is short.
//!
//! A task that sleeps for a fixed time sees how late it is woken. What counts is the smallest lateness of some looks in a row: a pause (a machine that was stopped,
//! a process that was) makes one look late, and an overload each of them.

use std::sync::Weak;
use std::time::Duration;

use selvedge_runtime::{Strain, Work};
use tokio::time::{Instant, sleep_until};

use crate::limits::{LATE_COLD_STARTS, LATE_LOOK_INTERVAL, LATE_LOOKS, LATE_MISSES, LATE_WORKERS};

/// The lateness of the last looks.
#[derive(Debug, Default)]
struct Looks {
    late: [Duration; LATE_LOOKS],
    next: usize,
}

impl Looks {
    /// One more look. What the node refuses from now on, and all that comes before it.
    fn look(&mut self, late: Duration) -> Option<Work> {
        if let Some(oldest) = self.late.get_mut(self.next) {
            *oldest = late;
        }
        self.next = (self.next + 1) % LATE_LOOKS;
        refused(self.late.iter().min().copied().unwrap_or_default())
    }
}

fn refused(late: Duration) -> Option<Work> {
    let from = |work: &&Work| match work {
        Work::ColdStart => late >= LATE_COLD_STARTS,
        Work::Worker => late >= LATE_WORKERS,
        Work::Miss => late >= LATE_MISSES,
    };
    Work::ALL.iter().rev().find(from).copied()
}

/// Looks until the node is gone.
pub(crate) async fn watch(strain: Weak<Strain>) {
    let mut looks = Looks::default();
    let mut before = None;
    loop {
        let due = Instant::now() + LATE_LOOK_INTERVAL;
        sleep_until(due).await;
        let Some(strain) = strain.upgrade() else { return };
        let late = due.elapsed();
        let now = looks.look(late);
        strain.refuse(now);
        if now != before {
            before = now;
            let late_ms = late.as_millis() as u64;
            match now {
                Some(work) => tracing::warn!(refused = work.name(), late_ms, "the node is overloaded: refuses work up to this"),
                None => tracing::info!(late_ms, "the node is overloaded no more"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn after(late: impl IntoIterator<Item = Duration>) -> Option<Work> {
        let mut looks = Looks::default();
        late.into_iter().fold(None, |_, late| looks.look(late))
    }

    #[test]
    fn each_threshold_refuses_more() {
        for (late, refused) in [
            (Duration::ZERO, None),
            (LATE_COLD_STARTS - MS, None),
            (LATE_COLD_STARTS, Some(Work::ColdStart)),
            (LATE_WORKERS - MS, Some(Work::ColdStart)),
            (LATE_WORKERS, Some(Work::Worker)),
            (LATE_MISSES - MS, Some(Work::Worker)),
            (LATE_MISSES, Some(Work::Miss)),
            (LATE_MISSES * 100, Some(Work::Miss)),
        ] {
            assert_eq!(after([late; LATE_LOOKS]), refused, "{late:?}");
        }
    }

    #[test]
    fn pauses_are_no_overload_and_one_look_in_time_ends_it() {
        let pause = Duration::from_secs(60);
        let mut looks = vec![Duration::ZERO; 10];
        looks.extend([pause; LATE_LOOKS - 1]);
        assert_eq!(after(looks.clone()), None, "they were too few");
        looks.push(LATE_COLD_STARTS);
        assert_eq!(after(looks.clone()), Some(Work::ColdStart), "the smallest counts");
        looks.push(Duration::ZERO);
        assert_eq!(after(looks.clone()), None);
        looks.extend([pause; LATE_LOOKS - 1]);
        assert_eq!(after(looks), None);
    }

    #[tokio::test]
    async fn a_loop_that_is_held_again_and_again_is_seen_and_the_watch_ends_with_its_node() {
        let strain = Arc::new(Strain::default());
        let watching = tokio::spawn(watch(Arc::downgrade(&strain)));
        let turn = || tokio::time::sleep(MS);
        for held in 1..=LATE_LOOKS + 1 {
            turn().await;
            // What nobody may do: it holds the only thread.
            std::thread::sleep(LATE_LOOK_INTERVAL + LATE_WORKERS);
            turn().await;
            assert_eq!(strain.refuses(Work::Worker), held >= LATE_LOOKS, "held {held} times");
        }
        while strain.level() > 0 {
            turn().await;
        }
        drop(strain);
        watching.await.unwrap();
    }
}
