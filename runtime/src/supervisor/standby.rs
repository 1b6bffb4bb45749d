//! The warm standby: one runner that has proved its sandbox and waits for its first version, replaced as soon as it is taken.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::counters::count;
use super::exec::Start;
use super::limits::{SPAWN_BACKOFF_MAX, SPAWN_BACKOFF_MIN, STANDBY_REST, STANDBY_WAIT};
use super::runner::{Cause, Runner, StartError};
use super::{Inner, priority};

/// The place of the standby.
#[derive(Default)]
pub(super) struct Standby {
    ready: Mutex<Option<Arc<Runner>>>,
    /// It was taken or put there.
    changed: Notify,
    /// Somebody waits for it.
    missed: Notify,
}

impl Standby {
    pub(super) fn put(&self, runner: Arc<Runner>) {
        *self.ready.lock() = Some(runner);
        self.changed.notify_waiters();
    }

    /// Takes the standby, waiting for it where there is none just now.
    pub(super) async fn take(&self) -> Option<Arc<Runner>> {
        let taken = async {
            loop {
                let changed = self.changed.notified();
                if let Some(runner) = self.ready.lock().take() {
                    self.changed.notify_waiters();
                    if runner.is_serving() {
                        return runner;
                    }
                }
                self.missed.notify_one();
                changed.await;
            }
        };
        tokio::time::timeout(STANDBY_WAIT, taken).await.ok()
    }

    /// The runner is no good any more.
    pub(super) fn discard(&self, runner: &Arc<Runner>) {
        let mut ready = self.ready.lock();
        if ready.as_ref().is_some_and(|standby| Arc::ptr_eq(standby, runner)) {
            *ready = None;
            self.changed.notify_waiters();
        }
    }

    pub(super) fn get(&self) -> Option<Arc<Runner>> {
        self.ready.lock().clone()
    }
}

/// Keeps the standby there, until the supervisor is gone.
pub(super) async fn keep(supervisor: Weak<Inner>) {
    let mut backoff = SPAWN_BACKOFF_MIN;
    loop {
        let Some(inner) = supervisor.upgrade().filter(|inner| !inner.closing.load(Ordering::Acquire)) else { return };
        let standby = inner.standby.clone();
        let changed = standby.changed.notified();
        if standby.get().is_some() {
            drop(inner);
            // Wakes now and then to see that the supervisor is gone.
            let _ = tokio::time::timeout(STANDBY_WAIT, changed).await;
            continue;
        }
        let missed = tokio::time::timeout(STANDBY_REST, standby.missed.notified()).await.is_ok();
        match inner.spawn(Start { jitless: false, aside: !missed }).await {
            Ok(runner) => {
                backoff = SPAWN_BACKOFF_MIN;
                standby.put(runner.clone());
                if inner.closing.load(Ordering::Acquire) {
                    inner.give_up(&runner, Cause::Shutdown);
                }
            }
            Err(error) => {
                drop(inner);
                tracing::error!(%error, retry_ms = backoff.as_millis() as u64, "no standby runner");
                tokio::time::sleep(backoff).await;
                backoff = next(backoff);
            }
        }
    }
}

fn next(backoff: Duration) -> Duration {
    (backoff * 2).min(SPAWN_BACKOFF_MAX)
}

impl Inner {
    /// Starts a runner and waits until it can take versions.
    pub(super) async fn spawn(self: &Arc<Self>, start: Start) -> Result<Arc<Runner>, StartError> {
        let result = self.start(start).await;
        count(if result.is_ok() { &self.counters.spawns } else { &self.counters.spawn_failures });
        if let Ok(runner) = &result {
            tracing::debug!(runner = runner.pid, jitless = start.jitless, "runner is ready");
        }
        result
    }

    async fn start(self: &Arc<Self>, start: Start) -> Result<Arc<Runner>, StartError> {
        let spawned = self.spawner.spawn(start).await?;
        let first = spawned.aside.then(|| spawned.process.both());
        let id = self.runners_made.fetch_add(1, Ordering::Relaxed);
        let supervisor = Arc::downgrade(self);
        let mut greeted = pin!(Runner::greet(&supervisor, id, spawned, self.allow_unsandboxed));
        let Some(first) = first else { return greeted.await };
        let runner = tokio::select! {
            greeted = &mut greeted => greeted?,
            () = self.standby.missed.notified() => {
                priority::raise(first);
                greeted.await?
            }
        };
        priority::raise(runner.processes());
        Ok(runner)
    }
}
