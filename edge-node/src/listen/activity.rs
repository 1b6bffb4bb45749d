//! What happens on one connection: how many requests run, and when something last moved. Idle timeouts, stalled clients and drains
//! are decided from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Shared by a connection's driver, its bytes and its requests.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    running: AtomicUsize,
    /// Response bodies that gave their last frame to the codec and were not asked for another one since.
    handed: AtomicUsize,
    /// Milliseconds since `opened` at which a request ended, a body was asked for a frame, or bytes were written.
    moved_ms: AtomicU64,
    /// Milliseconds since `opened` (and one) at which the socket stopped to take bytes; 0 while it takes them.
    blocked_ms: AtomicU64,
    none_running: Notify,
}

/// A request that runs, until its response's body has ended or was dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Running(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Self::opened_at(Instant::now())
    }

    fn opened_at(opened: Instant) -> Arc<Self> {
        Arc::new(Self {
            opened,
            running: AtomicUsize::new(0),
            handed: AtomicUsize::new(0),
            moved_ms: AtomicU64::new(0),
            blocked_ms: AtomicU64::new(0),
            none_running: Notify::new(),
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Relaxed);
        Running(self.clone())
    }

    /// Something moved.
    pub(super) fn moved(&self) {
        self.moved_ms.store(self.now_ms(), Relaxed);
    }

    /// The socket took bytes.
    pub(super) fn wrote(&self) {
        self.moved();
        self.blocked_ms.store(0, Relaxed);
    }

    /// The socket takes no bytes.
    pub(super) fn blocked(&self) {
        if self.blocked_ms.load(Relaxed) == 0 {
            self.blocked_ms.store(self.now_ms() + 1, Relaxed);
        }
    }

    /// No request runs and nothing has moved for this long.
    pub(super) fn idle_for(&self, bound: Duration) -> bool {
        self.running.load(Relaxed) == 0 && self.still_for(bound)
    }

    /// The client takes nothing of what we have for it: the socket is full, or its windows are, and nothing has moved for this long.
    pub(super) fn stalled_for(&self, bound: Duration) -> bool {
        let blocked_ms = self.blocked_ms.load(Relaxed);
        let blocked = blocked_ms != 0 && self.now_ms().saturating_sub(blocked_ms) >= bound.as_millis() as u64;
        blocked || (self.handed.load(Relaxed) > 0 && self.still_for(bound))
    }

    fn still_for(&self, bound: Duration) -> bool {
        self.now_ms().saturating_sub(self.moved_ms.load(Relaxed)) >= bound.as_millis() as u64
    }

    /// Requests that run.
    pub(super) fn running(&self) -> usize {
        self.running.load(Relaxed)
    }

    /// Resolves when no request runs.
    pub(super) async fn quiet(&self) {
        loop {
            let notified = self.none_running.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Counts a response body as waiting for the client, or not any more.
    pub(super) fn hand(&self, handed: &mut bool, now: bool) {
        if *handed != now {
            *handed = now;
            if now {
                self.handed.fetch_add(1, Relaxed);
            } else {
                self.handed.fetch_sub(1, Relaxed);
            }
            self.moved();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.moved();
        if self.0.running.fetch_sub(1, Relaxed) == 1 {
            self.0.none_running.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    /// A connection on which nothing has moved since it was opened, longer than the bound ago.
    fn still() -> Arc<Activity> {
        Activity::opened_at(Instant::now().checked_sub(BOUND * 2).unwrap())
    }

    #[test]
    fn a_connection_is_idle_only_without_requests() {
        let activity = still();
        assert!(activity.idle_for(BOUND));
        let running = activity.begin();
        activity.moved_ms.store(0, Relaxed);
        assert!(!activity.idle_for(BOUND));
        drop(running);
        assert!(!activity.idle_for(BOUND), "it has just ended");
    }

    #[test]
    fn a_client_that_reads_again_is_not_stalled() {
        let activity = still();
        activity.blocked();
        assert!(!activity.stalled_for(BOUND), "it has just begun");
        activity.blocked_ms.store(1, Relaxed);
        activity.blocked();
        assert!(activity.stalled_for(BOUND));
        activity.wrote();
        assert!(!activity.stalled_for(BOUND));
    }

    #[test]
    fn a_body_that_waits_for_its_worker_does_not_stall() {
        let activity = still();
        let mut handed = false;
        activity.hand(&mut handed, true);
        activity.moved_ms.store(0, Relaxed);
        assert!(activity.stalled_for(BOUND));
        activity.hand(&mut handed, false);
        activity.moved_ms.store(0, Relaxed);
        assert!(!activity.stalled_for(BOUND));
    }

    #[tokio::test]
    async fn quiet_comes_when_the_last_request_ends() {
        let activity = Activity::new();
        let running = activity.begin();
        let quiet = activity.quiet();
        tokio::pin!(quiet);
        assert!(futures::poll!(quiet.as_mut()).is_pending());
        drop(running);
        quiet.await;
    }
}
