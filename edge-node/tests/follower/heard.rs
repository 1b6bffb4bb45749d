//! What a node's reports add up to at the registry of these tests, and what they cost.

use std::collections::BTreeMap;

use selvedge_origin::api::wire::{FeedRefusal, NodeReport, WorkerReport};
use selvedge_origin::feed::Position;
use selvedge_origin::registry::WorkerName;

/// The reports so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    mark: u64,
    pub(crate) position: Option<Position>,
    pub(crate) feed_refusal: Option<String>,
    pub(crate) last_refusal: Option<FeedRefusal>,
    pub(crate) unsettled: BTreeMap<WorkerName, WorkerReport>,
    /// Reports, those that said everything, the workers that they named, and their bytes.
    pub(crate) reports: usize,
    pub(crate) whole: usize,
    pub(crate) lines: usize,
    pub(crate) bytes: usize,
    /// Bytes of the last one.
    pub(crate) last_bytes: usize,
}

impl Heard {
    /// Takes a report in and names it; not where it goes on from one that is not known.
    pub(crate) fn take(&mut self, body: &[u8]) -> Option<u64> {
        let report: NodeReport = serde_json::from_slice(body).unwrap();
        self.reports += 1;
        self.lines += report.unsettled.len() + report.settled.len();
        (self.bytes, self.last_bytes) = (self.bytes + body.len(), body.len());
        match report.since {
            Some(since) if since != self.mark => return None,
            Some(_) => {}
            None => {
                self.whole += 1;
                self.unsettled.clear();
                self.position = None;
            }
        }
        self.mark += 1;
        self.position = report.position.or(self.position.take());
        self.feed_refusal = report.feed_refusal;
        self.last_refusal = report.last_refusal;
        self.unsettled.extend(report.unsettled.into_iter().map(|line| (line.worker.clone(), line)));
        report.settled.iter().for_each(|worker| drop(self.unsettled.remove(worker)));
        Some(self.mark)
    }

    /// Forgets everything, as a registry that starts anew does.
    pub(crate) fn forget(&mut self) {
        self.mark += 1;
        (self.position, self.unsettled) = (None, BTreeMap::new());
    }

    pub(crate) fn seq(&self) -> u64 {
        self.position.as_ref().map_or(0, |position| position.seq)
    }
}
