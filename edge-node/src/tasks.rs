//! The one place that starts background tasks: each has a name, and a panic in one is an ERROR in the log instead of silence.

use std::future::Future;

use futures::FutureExt;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// Starts a task that goes on until it ends by itself or the handle is aborted.
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
