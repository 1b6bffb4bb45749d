//! Every bound of a worker's run, with unit, default and reason, and those of a queue that stands. Bounds of the crossing are in [`crate::protocol`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A queue that has not been empty for this time stands. Longer than a page's burst of requests, shorter than anybody's patience.
pub const STANDS_AFTER: Duration = Duration::from_secs(1);
/// How long newcomers of a standing queue wait: a few turns of a busy thread, or answers of an upstream.
pub const STANDING_WAIT: Duration = Duration::from_millis(100);

/// The bounds of one version. `Default` is what a version gets that says nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Thread CPU time of one invocation, in milliseconds.
    pub cpu_ms: u32,
    /// Thread CPU time of loading a version (evaluating its modules), in milliseconds.
    pub startup_cpu_ms: u32,
    /// V8 heap of one isolate, in bytes.
    pub heap_bytes_max: u64,
    /// Memory of one isolate outside the heap (ArrayBuffers, wasm memory, ...), in bytes.
    pub external_bytes_max: u64,
    /// `fetch()` calls of one invocation; each redirect that is followed counts.
    pub subrequests_max: u32,
    /// Wall time until the response head, in milliseconds.
    pub head_timeout_ms: u32,
    /// Wall time without progress on a request or response body, in milliseconds. A stream's length has no bound.
    pub body_idle_timeout_ms: u32,
    /// Wall time for `ctx.waitUntil` after the response, in milliseconds.
    pub wait_until_timeout_ms: u32,
    /// Bytes of a request body.
    pub request_body_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_ms: 200,
            startup_cpu_ms: 400,
            heap_bytes_max: 128 << 20,
            external_bytes_max: 128 << 20,
            subrequests_max: 50,
            head_timeout_ms: 30_000,
            body_idle_timeout_ms: 30_000,
            wait_until_timeout_ms: 30_000,
            request_body_bytes_max: 100 << 20,
        }
    }
}

impl Limits {
    /// [`Self::cpu_ms`] as a duration.
    pub fn cpu(&self) -> Duration {
        Duration::from_millis(self.cpu_ms.into())
    }

    /// [`Self::head_timeout_ms`] as a duration.
    pub fn head_timeout(&self) -> Duration {
        Duration::from_millis(self.head_timeout_ms.into())
    }

    /// [`Self::body_idle_timeout_ms`] as a duration.
    pub fn body_idle_timeout(&self) -> Duration {
        Duration::from_millis(self.body_idle_timeout_ms.into())
    }

    /// [`Self::wait_until_timeout_ms`] as a duration.
    pub fn wait_until_timeout(&self) -> Duration {
        Duration::from_millis(self.wait_until_timeout_ms.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_says_nothing_gets_what_the_readme_promises() {
        let limits = Limits::default();
        assert_eq!((limits.cpu_ms, limits.startup_cpu_ms), (200, 400));
        assert_eq!((limits.heap_bytes_max, limits.external_bytes_max), (128 << 20, 128 << 20));
        assert_eq!((limits.subrequests_max, limits.request_body_bytes_max), (50, 100 << 20));
        let waits = [limits.head_timeout(), limits.body_idle_timeout(), limits.wait_until_timeout()];
        assert_eq!(waits, [Duration::from_secs(30); 3]);
    }
}
