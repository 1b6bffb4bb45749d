//! The log's endpoint: a page of it, newest first.

use std::collections::VecDeque;

use super::body::parameter;
use super::reply::{self, Answer};
use super::wire::{LogPage, Logged};
use super::{Api, Asked};
use crate::ledger::LedgerError;
use crate::limits::{FEED_BATCH, LOG_ENTRIES_KEPT, LOG_PAGE, LOG_PAGE_BYTES_MAX, LOG_PAGE_MAX};
use crate::registry::Entry;

impl Api {
    /// Entries before a number, or the last ones: fewer than `limit` where the log ends, or where they are large.
    pub(super) async fn log(&self, asked: &Asked) -> Answer {
        let [before, limit] = asked.query(["before", "limit"])?;
        let before: Option<u64> = parameter("before", before)?;
        let limit: u64 = parameter("limit", limit)?.unwrap_or(LOG_PAGE).min(LOG_PAGE_MAX);
        let head = self.ledger.meta().head().seq;
        let end = before.unwrap_or(u64::MAX).min(head.saturating_add(1));
        // A batch more than what may be gone by the time that it is read.
        let kept_from = head.saturating_sub(LOG_ENTRIES_KEPT.saturating_sub(FEED_BATCH as u64));
        let mut at = end.saturating_sub(1).saturating_sub(limit).max(kept_from);
        let (mut entries, mut bytes) = (VecDeque::new(), 0);
        while at.saturating_add(1) < end {
            let wanted = usize::try_from(end - 1 - at).unwrap_or(FEED_BATCH).min(FEED_BATCH);
            let batch = self.ledger.meta().read_log(at, wanted).await?;
            let Some(last) = batch.last() else { break };
            at = last.seq;
            for logged in &batch {
                let entry: Entry = serde_json::from_slice(&logged.entry).map_err(|error| LedgerError::Internal(error.to_string()))?;
                entries.push_front((Logged::of(logged.seq, &entry), logged.entry.len()));
                bytes += logged.entry.len();
                // The oldest go: the next page begins with them.
                while bytes > LOG_PAGE_BYTES_MAX && entries.len() > 1 {
                    bytes -= entries.pop_back().map_or(0, |(_, bytes)| bytes);
                }
            }
        }
        reply::ok(&LogPage { entries: entries.into_iter().map(|(entry, _)| entry).collect() })
    }
}
