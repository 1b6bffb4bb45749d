//! The only file of this crate that starts tasks and threads.

use std::future::Future;

use tokio::task::JoinHandle;

/// Starts a task on the caller's runtime. Whoever starts one says what ends it.
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

/// Starts a thread that lives until `run` returns.
pub(super) fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}
