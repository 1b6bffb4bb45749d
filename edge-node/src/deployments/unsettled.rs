//! Which workers do not run here what is wanted, and what of that the registry has not been told yet. Pure.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_origin::api::wire::WorkerReport;
use selvedge_origin::registry::WorkerName;

/// The workers that do not run as they should; all others do.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    lines: BTreeMap<WorkerName, WorkerReport>,
    /// Workers of which something else was told, or nothing.
    untold: BTreeSet<WorkerName>,
}

/// What the registry has not been told yet, or the first part of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Workers that do not run as they should.
    pub(super) unsettled: Vec<WorkerReport>,
    /// Workers that do, or are wanted no more.
    pub(super) settled: Vec<WorkerName>,
    /// Whether the next report goes on.
    pub(super) more: bool,
}

impl Unsettled {
    /// The workers that do not run as they should.
    pub(super) fn lines(&self) -> &BTreeMap<WorkerName, WorkerReport> {
        &self.lines
    }

    /// A worker does not run as it should.
    pub(super) fn set(&mut self, line: WorkerReport) {
        self.untold.insert(line.worker.clone());
        self.lines.insert(line.worker.clone(), line);
    }

    /// A worker runs as it should.
    pub(super) fn settle(&mut self, worker: &WorkerName) {
        if self.lines.remove(worker).is_some() {
            self.untold.insert(worker.clone());
        }
    }

    /// Settles those that are not to be kept. Says whether there were any.
    pub(super) fn keep(&mut self, keep: impl Fn(&WorkerReport) -> bool) -> bool {
        let gone: Vec<_> = self.lines.values().filter(|line| !keep(line)).map(|line| line.worker.clone()).collect();
        gone.iter().for_each(|worker| self.settle(worker));
        !gone.is_empty()
    }

    /// The registry knows nothing: everything has to be told.
    pub(super) fn tell_all(&mut self) {
        self.untold = self.lines.keys().cloned().collect();
    }

    /// The next `max` workers of which something is to be told. They count as told.
    pub(super) fn tell(&mut self, max: usize) -> Changes {
        let mut changes = Changes::default();
        for _ in 0..max {
            let Some(worker) = self.untold.pop_first() else { return changes };
            match self.lines.get(&worker) {
                Some(line) => changes.unsettled.push(line.clone()),
                None => changes.settled.push(worker),
            }
        }
        changes.more = !self.untold.is_empty();
        changes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use selvedge_origin::api::wire::WorkerState;
    use selvedge_origin::registry::VersionId;

    use super::*;

    fn line(worker: &str) -> WorkerReport {
        WorkerReport { worker: worker.parse().unwrap(), deployment: VersionId::generate(), state: WorkerState::Activating, active: vec![] }
    }

    #[test]
    fn what_was_told_is_not_told_again_and_everything_is_where_nothing_is_known() {
        let mut unsettled = Unsettled::default();
        let [a, b] = ["a", "b"].map(line);
        unsettled.settle(&a.worker);
        assert_eq!(unsettled.tell(9), Changes::default(), "it was never said to be unsettled");
        [&a, &b].into_iter().for_each(|line| unsettled.set(line.clone()));
        assert_eq!(unsettled.tell(9), Changes { unsettled: vec![a.clone(), b.clone()], ..Changes::default() });
        assert_eq!(unsettled.tell(9), Changes::default());
        unsettled.settle(&a.worker);
        assert!(unsettled.keep(|line| line.worker == b.worker) == unsettled.keep(|_| true), "nothing else is gone");
        assert_eq!(unsettled.tell(9), Changes { settled: vec![a.worker.clone()], ..Changes::default() });
        unsettled.tell_all();
        assert_eq!(unsettled.tell(9), Changes { unsettled: vec![b.clone()], ..Changes::default() });
        assert!(unsettled.keep(|_| false));
        assert_eq!(unsettled.tell(9), Changes { settled: vec![b.worker], ..Changes::default() });
    }

    #[test]
    fn what_does_not_fit_is_told_next_as_it_is_then() {
        let mut unsettled = Unsettled::default();
        let lines: Vec<_> = ["a", "b", "c"].map(line).into();
        lines.iter().for_each(|line| unsettled.set(line.clone()));
        assert_eq!(unsettled.tell(2), Changes { unsettled: lines[..2].to_vec(), settled: vec![], more: true });
        unsettled.settle(&lines[2].worker);
        unsettled.settle(&lines[0].worker);
        let rest = Changes { settled: vec![lines[0].worker.clone(), lines[2].worker.clone()], ..Changes::default() };
        assert_eq!(unsettled.tell(2), rest);
    }
}
