//! The edge's side of running workers: keeps runner processes, places invocations in them, and outlives every one of them.

use std::fs::File;
use std::sync::Arc;

use crate::{Body, Invocation, RunError, WorkerSource};

/// What a supervisor is made with.
pub struct SupervisorConfig {
    /// The program that becomes a runner (`selvedge`), opened once and exec'ed by descriptor.
    pub executable: File,
    /// Its arguments before those of the supervisor, such as `["runner"]`.
    pub arguments: Vec<String>,
    /// JavaScript threads of each runner, 1 to 64.
    pub threads: usize,
    /// Run where the kernel lacks what the sandbox needs, loudly.
    pub allow_unsandboxed: bool,
}

/// Keeps runner processes and places invocations in them. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {}

/// What preparing a version took.
#[derive(Debug, Clone)]
pub struct Warmed {
    /// Thread CPU time of evaluating the modules, in microseconds.
    pub cpu_us: u64,
    /// V8 heap in use afterwards, in bytes.
    pub heap_bytes: u64,
}

/// A runner process, for status and tests.
#[derive(Debug, Clone)]
pub struct RunnerStatus {
    /// The process that holds V8 (as seen from the edge).
    pub pid: u32,
    /// Its cordon; none for a standby.
    pub cordon: Option<Arc<str>>,
    /// Versions loaded.
    pub versions: Vec<Arc<str>>,
    /// Invocations running.
    pub invocations: usize,
}

impl Supervisor {
    /// Starts the first standby. Must be called inside a tokio runtime.
    pub async fn start(config: SupervisorConfig) -> std::io::Result<Self> {
        let _ = config;
        Ok(Self {})
    }

    /// Prepares an isolate for a version, so that its first request finds it warm. An error says why the version cannot run.
    pub async fn warm(&self, source: &Arc<WorkerSource>) -> Result<Warmed, RunError> {
        let _ = source;
        Err(unready())
    }

    /// Runs one invocation. The future resolves at the response's head; its body streams. Dropping the future, or the
    /// response's body before its end, cancels the invocation.
    pub async fn run(&self, source: &Arc<WorkerSource>, invocation: Invocation) -> Result<http::Response<Body>, RunError> {
        let _ = (source, invocation);
        Err(unready())
    }

    /// Drops the isolates of a version as soon as their invocations have ended.
    pub fn retire(&self, version: &str) {
        let _ = version;
    }

    /// The runner processes now.
    pub fn runners(&self) -> Vec<RunnerStatus> {
        Vec::new()
    }

    /// Ends all runners. Running invocations get [`crate::Outcome::Canceled`].
    pub async fn shutdown(&self) {}
}

fn unready() -> RunError {
    RunError { outcome: crate::Outcome::InternalError, message: "no supervisor yet".into(), retry_after: None, request_body: None }
}
