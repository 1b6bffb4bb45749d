//! The only file that spawns background tasks of an edge: nothing is spawned and forgotten.
//!
//! Everything that outlives the call that made it (a connection, a cache fill, the follower) is counted here, so that
//! [`crate::Node::drain`] knows when the node has nothing more to do, and can cancel what does not end by itself.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument;

/// Starts a task that goes on until it ends by itself or the handle is aborted. Each has a name, and a panic in one is an ERROR in the log
/// instead of silence.
pub fn spawn(what: &'static str, future: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    let span = tracing::debug_span!("task", what);
    let watched = async move {
        if std::panic::AssertUnwindSafe(future).catch_unwind().await.is_err() {
            tracing::error!(what, "a background task panicked");
        }
    };
    tokio::spawn(watched.instrument(span))
}

/// Starts a task that ends with its owner: dropping the handle aborts it.
pub fn owned(what: &'static str, future: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(spawn(what, future))
}

/// Starts a thread for work that waits for a disk. It ends when its owner tells it to; a panic in it is an ERROR in the log.
pub fn thread(what: &'static str, work: impl FnOnce() + Send + 'static) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(what.into()).spawn(move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            tracing::error!(what, "a background thread panicked");
        }
    })
}

/// A panic ends its task only; the log says that there was one. Boxed: a task is moved as a pointer from here on, however much room its waits need.
fn watched(task: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + Unpin + 'static {
    std::panic::AssertUnwindSafe(Box::pin(task)).catch_unwind().map(|ended| {
        if ended.is_err() {
            tracing::error!("a task panicked");
        }
    })
}

/// Spawns tasks and knows when all of them have ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    draining: CancellationToken,
    /// The same as a flag: asking it takes no lock.
    ends: Arc<AtomicBool>,
    stopped: CancellationToken,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self { tracker: TaskTracker::new(), draining: CancellationToken::new(), ends: Arc::default(), stopped: CancellationToken::new() }
    }

    /// Runs a task that ends by itself once [`Self::draining`] is cancelled, and is dropped where it stands when the drain's time
    /// is over.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // A token of its own: a task asks it whenever it is woken, and all tasks asking one would queue at its lock.
        let (stopped, task) = (self.stopped.child_token(), watched(task));
        drop(self.tracker.spawn(async move {
            stopped.run_until_cancelled_owned(task).await;
        }));
    }

    /// Runs a task that ends with something that [`Self::spawn`] runs, such as a request with its connection. Cheaper than that: made for the
    /// request path.
    pub fn spawn_bound(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.tracker.spawn(watched(task)));
    }

    /// Runs a task like one of [`Self::spawn_bound`] as far as it comes at once, in the caller's place, and spawns what is left: what waits for nothing
    /// costs no task and no wake-up.
    pub async fn begin_bound(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut task = watched(task);
        if poll_fn(|cx| Poll::Ready(task.poll_unpin(cx).is_pending())).await {
            drop(self.tracker.spawn(task));
        }
    }

    /// Cancelled when the node starts to drain: accept nothing new, finish what runs.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Whether the node drains. True before [`Self::draining`] is cancelled, for whoever asks between two waits.
    pub fn is_draining(&self) -> bool {
        self.ends.load(Relaxed)
    }

    /// Asks all tasks to end, waits for them at most `within`, then drops those that are left. Gives whether all ended by themselves.
    pub async fn drain(&self, within: Duration) -> bool {
        self.ends.store(true, Relaxed);
        self.draining.cancel();
        self.tracker.close();
        if tokio::time::timeout(within, self.tracker.wait()).await.is_ok() {
            return true;
        }
        self.stopped.cancel();
        // Dropping a task is prompt; a second is for a loaded machine, and a task that blocks its thread must not hold the process.
        let _ = tokio::time::timeout(crate::limits::ABANDON_WAIT, self.tracker.wait()).await;
        false
    }

    /// Drops all tasks of [`Self::spawn`] where they stand.
    pub fn stop(&self) {
        self.ends.store(true, Relaxed);
        self.draining.cancel();
        self.stopped.cancel();
    }

    /// Tasks that have not ended.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_for_nothing_costs_no_task() {
        let (tasks, done) = (Tasks::new(), Arc::new(AtomicBool::new(false)));
        let set = done.clone();
        tasks.begin_bound(async move { set.store(true, Relaxed) }).await;
        assert!(done.load(Relaxed) && tasks.running() == 0);
    }

    #[tokio::test]
    async fn what_waits_goes_on_as_a_task() {
        let (tasks, go, done) = (Tasks::new(), Arc::new(tokio::sync::Notify::new()), Arc::new(AtomicBool::new(false)));
        let (wait, set) = (go.clone(), done.clone());
        tasks
            .begin_bound(async move {
                wait.notified().await;
                set.store(true, Relaxed)
            })
            .await;
        assert!(!done.load(Relaxed) && tasks.running() == 1);
        go.notify_one();
        assert!(tasks.drain(Duration::from_secs(10)).await && done.load(Relaxed));
    }

    #[tokio::test]
    async fn a_panic_ends_its_task_only() {
        let tasks = Tasks::new();
        tasks.begin_bound(async { panic!("of a test") }).await;
        tasks.spawn(async { panic!("of a test") });
        assert!(tasks.drain(Duration::from_secs(10)).await);
    }
}
