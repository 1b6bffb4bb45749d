//! How an invocation ended: a closed list, used in logs, metrics, `Proxy-Status` and the protocol.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How an invocation ended. The names on the wire are those of workerd's `io/outcome.capnp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum Outcome {
    /// The handler finished.
    Ok = 0,
    /// The worker threw, or its promise was rejected.
    Exception = 1,
    /// The CPU limit was crossed.
    ExceededCpu = 2,
    /// The memory limit was crossed, or the runner died of memory.
    ExceededMemory = 3,
    /// A wall time limit was crossed: no response head, or no progress on a body.
    ExceededWallTime = 4,
    /// The client went away first.
    Canceled = 5,
    /// Refused: too much was waiting already.
    LoadShed = 6,
    /// The response's stream was cut while the worker was writing it.
    ResponseStreamDisconnected = 7,
    /// The runner died of something this invocation did not do.
    RunnerLost = 8,
    /// The version could not be loaded: syntax error, exception at start-up, missing handler.
    StartupFailed = 9,
    /// The worker was disabled after too many strikes.
    Disabled = 10,
    /// A defect of ours.
    InternalError = 11,
}

impl Outcome {
    /// The stable name, as in logs and `Proxy-Status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Exception => "exception",
            Self::ExceededCpu => "exceededCpu",
            Self::ExceededMemory => "exceededMemory",
            Self::ExceededWallTime => "exceededWallTime",
            Self::Canceled => "canceled",
            Self::LoadShed => "loadShed",
            Self::ResponseStreamDisconnected => "responseStreamDisconnected",
            Self::RunnerLost => "runnerLost",
            Self::StartupFailed => "startupFailed",
            Self::Disabled => "disabled",
            Self::InternalError => "internalError",
        }
    }

    /// The outcome of a number from the wire.
    pub const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Ok,
            1 => Self::Exception,
            2 => Self::ExceededCpu,
            3 => Self::ExceededMemory,
            4 => Self::ExceededWallTime,
            5 => Self::Canceled,
            6 => Self::LoadShed,
            7 => Self::ResponseStreamDisconnected,
            8 => Self::RunnerLost,
            9 => Self::StartupFailed,
            10 => Self::Disabled,
            11 => Self::InternalError,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What one invocation used, known when all of it (also `waitUntil`) has ended.
#[derive(Debug, Clone)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// Thread CPU time, in microseconds.
    pub cpu_us: u64,
    /// Wall time from the handler's start to the end of everything.
    pub wall: Duration,
    /// The isolate's V8 heap in use afterwards, in bytes.
    pub heap_bytes: u64,
    /// `fetch()` calls made.
    pub subrequests: u32,
    /// The isolate was born for this invocation.
    pub cold_start: bool,
}

/// An invocation that gives no response: a value of the run, not a failure of the program.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{outcome}: {message}")]
pub struct RunError {
    /// How it ended; never [`Outcome::Ok`].
    pub outcome: Outcome,
    /// For the operator: the exception with its mapped stack, or which limit was crossed. Not sent to clients.
    pub message: String,
    /// When it makes sense to try again, where it does.
    pub retry_after: Option<Duration>,
    /// The request's body failed while the worker read it (too large, cut, stalled), where that came first.
    pub request_body: Option<crate::BodyError>,
}
