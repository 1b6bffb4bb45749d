//! How much may be logged: by one invocation, or by one version on one link outside of any.

use super::limits::{LOG_BYTES_MAX, LOG_LINES_MAX};

/// What has been logged.
#[derive(Default)]
pub(super) struct Logged {
    lines: u32,
    bytes: usize,
}

impl Logged {
    /// Whether one more line may pass; `Some(true)` for the line that says that no more will.
    pub(super) fn admits(&mut self, bytes: usize) -> Option<bool> {
        if self.lines > LOG_LINES_MAX {
            return None;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.lines = if self.bytes > LOG_BYTES_MAX { LOG_LINES_MAX + 1 } else { self.lines + 1 };
        Some(self.lines > LOG_LINES_MAX)
    }
}
