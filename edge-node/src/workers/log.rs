//! The log of workers: lines of `console.*` and exceptions, bounded by rate and length for each worker.

use parking_lot::Mutex;
use selvedge_runtime::{LogLevel, LogLine};
use tokio::time::Instant;

use crate::limits::{WORKER_LOG_BURST, WORKER_LOG_LINE_BYTES_MAX, WORKER_LOG_LINES_PER_SECOND};
use crate::request::WorkerLine;

/// How many lines a worker may log now.
#[derive(Debug, Default)]
pub struct LogBudget(Mutex<Option<Bucket>>);

#[derive(Debug)]
struct Bucket {
    left: f64,
    filled: Instant,
    dropped: u64,
}

impl LogBudget {
    /// Takes one line's worth. None: the line is dropped; else how many were dropped since the last line that was not.
    pub(crate) fn take(&self, now: Instant) -> Option<u64> {
        let mut guard = self.0.lock();
        let bucket = guard.get_or_insert(Bucket { left: WORKER_LOG_BURST.into(), filled: now, dropped: 0 });
        let refill = now.saturating_duration_since(bucket.filled).as_secs_f64() * f64::from(WORKER_LOG_LINES_PER_SECOND);
        bucket.left = (bucket.left + refill).min(WORKER_LOG_BURST.into());
        bucket.filled = now;
        if bucket.left < 1.0 {
            bucket.dropped += 1;
            return None;
        }
        bucket.left -= 1.0;
        Some(std::mem::take(&mut bucket.dropped))
    }
}

/// Cuts a line to its bound.
pub(crate) fn cut(line: LogLine) -> LogLine {
    let mut message = line.message;
    if message.len() > WORKER_LOG_LINE_BYTES_MAX {
        let mut end = WORKER_LOG_LINE_BYTES_MAX;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str(" [cut]");
    }
    LogLine { message, ..line }
}

/// Writes one line to the node's log, target `worker`. A worker's words are never louder than WARN for the node: ERROR means that an operator must look.
pub(crate) fn write(line: &WorkerLine, dropped: u64) {
    macro_rules! event {
        ($level:expr) => {
            tracing::event!(
                target: "worker",
                $level,
                worker.name = &*line.worker,
                worker.version = &*line.version,
                request.id = &*line.request_id,
                log.level = level_name(line.level),
                log.exception = line.exception,
                log.place = line.place.as_deref(),
                log.dropped = (dropped > 0).then_some(dropped),
                "{}",
                line.message
            )
        };
    }
    match line.level {
        LogLevel::Debug => event!(tracing::Level::DEBUG),
        LogLevel::Log | LogLevel::Info => event!(tracing::Level::INFO),
        LogLevel::Warn | LogLevel::Error => event!(tracing::Level::WARN),
    }
}

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Log => "log",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lines_beyond_the_rate_are_dropped_and_counted() {
        let (budget, start) = (LogBudget::default(), Instant::now());
        for _ in 0..WORKER_LOG_BURST {
            assert_eq!(budget.take(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(budget.take(start), None);
        }
        let later = start + Duration::from_secs(1);
        assert_eq!(budget.take(later), Some(7));
        for _ in 1..WORKER_LOG_LINES_PER_SECOND {
            assert_eq!(budget.take(later), Some(0));
        }
        assert_eq!(budget.take(later), None);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let message = "ä".repeat(WORKER_LOG_LINE_BYTES_MAX);
        let line = cut(LogLine { level: LogLevel::Log, message, exception: false, place: String::new() });
        assert!(line.message.len() <= WORKER_LOG_LINE_BYTES_MAX + 6);
    }
}
