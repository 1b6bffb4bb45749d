//! Workers on this node: which runner runs them, and what they can reach.

mod host;
mod log;
mod redirect;

use std::sync::Arc;

use http::Response;
use selvedge_runtime::supervisor::Supervisor;
use selvedge_runtime::{Body, Invocation, RunError, WorkerSource};

pub(crate) use host::WorkerHost;
pub use log::LogBudget;

/// Who runs invocations.
pub(crate) enum Runners {
    /// Runner processes.
    Supervisor(Supervisor),
    /// What a test says, so that the request path is tested without V8.
    #[cfg(test)]
    Scripted(Script),
}

/// A test's stand-in for a worker.
#[cfg(test)]
pub(crate) type Script = Box<dyn Fn(Invocation) -> futures::future::BoxFuture<'static, Result<Response<Body>, RunError>> + Send + Sync>;

impl Runners {
    /// Runs one invocation: see [`Supervisor::run`].
    pub(crate) async fn run(&self, source: &Arc<WorkerSource>, invocation: Box<Invocation>) -> Result<Response<Body>, RunError> {
        match self {
            Self::Supervisor(supervisor) => supervisor.run(source, invocation).await,
            #[cfg(test)]
            Self::Scripted(script) => script(*invocation).await,
        }
    }
}
