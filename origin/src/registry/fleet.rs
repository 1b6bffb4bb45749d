//! What nodes say about themselves: their last reports, held in memory only. A registry that restarts hears from every node within 5 s.

use std::collections::BTreeMap;

use super::{NodeName, State, VersionId, WorkerName};
use crate::api::wire::{NodeReport, NodeState, NodeStatus, WorkerNode, WorkerNodes, WorkerState as Said};
use crate::limits::{NODE_OFFLINE_AFTER, REASON_BYTES_MAX};

/// The last reports. Times are milliseconds of one clock that never goes back.
#[derive(Debug, Default)]
pub struct Fleet {
    heard: BTreeMap<NodeName, Heard>,
    committed_ms: BTreeMap<WorkerName, (u64, u64)>,
    /// Nodes that were here before the registry started, and when it did: their reports from before are not known, but may be young.
    expected: BTreeMap<NodeName, u64>,
}

#[derive(Debug)]
struct Heard {
    at_ms: u64,
    report: NodeReport,
    /// Since when the node has a deployment active, as far as was heard.
    active_since_ms: BTreeMap<WorkerName, (VersionId, u64)>,
}

impl Fleet {
    /// No report yet; these nodes had joined before the registry started.
    pub fn expecting<'a>(nodes: impl IntoIterator<Item = &'a NodeName>, started_ms: u64) -> Self {
        Self { expected: nodes.into_iter().map(|node| (node.clone(), started_ms)).collect(), ..Self::default() }
    }

    /// Remembers when a worker's deployment was committed.
    pub fn committed(&mut self, worker: &WorkerName, seq: u64, now_ms: u64) {
        self.committed_ms.insert(worker.clone(), (seq, now_ms));
    }

    /// Forgets a worker.
    pub fn deleted(&mut self, worker: &WorkerName) {
        self.committed_ms.remove(worker);
    }

    /// Forgets a node.
    pub fn removed(&mut self, node: &NodeName) {
        self.heard.remove(node);
        self.expected.remove(node);
    }

    /// Takes in a report. Says whether it differs from the one before.
    pub fn reported(&mut self, node: &NodeName, mut report: NodeReport, now_ms: u64) -> bool {
        for worker in &mut report.workers {
            if let Said::Refused(reason) = &mut worker.state {
                clean(reason);
            }
        }
        report.feed_refusal.iter_mut().for_each(clean);
        report.address.iter_mut().for_each(clean);
        clean(&mut report.region);
        clean(&mut report.build);
        self.expected.remove(node);
        let before = self.heard.remove(node);
        let mut active_since_ms = before.as_ref().map(|heard| heard.active_since_ms.clone()).unwrap_or_default();
        active_since_ms.retain(|name, _| report.workers.iter().any(|worker| worker.worker == *name));
        for worker in report.workers.iter().filter(|worker| worker.state == Said::Active) {
            let same = active_since_ms.get(&worker.worker).is_some_and(|(deployment, _)| *deployment == worker.deployment);
            if !same {
                active_since_ms.insert(worker.worker.clone(), (worker.deployment.clone(), now_ms));
            }
        }
        let differs = before.as_ref().is_none_or(|heard| heard.report != report || offline(heard, now_ms));
        self.heard.insert(node.clone(), Heard { at_ms: now_ms, report, active_since_ms });
        differs
    }

    /// All nodes with their last reports.
    pub fn nodes(&self, state: &State, now_ms: u64) -> Vec<NodeStatus> {
        let status = |(name, record): (&NodeName, &super::NodeRecord)| {
            let heard = self.heard.get(name);
            let report = heard.map(|heard| heard.report.clone());
            NodeStatus {
                name: name.clone(),
                region: report.as_ref().map_or(&record.region, |report| &report.region).clone(),
                address: report.as_ref().and_then(|report| report.address.clone()).or_else(|| record.address.clone()),
                online: heard.is_some_and(|heard| !offline(heard, now_ms)),
                reported_ms_ago: heard.map(|heard| now_ms.saturating_sub(heard.at_ms)),
                report,
            }
        };
        state.nodes().iter().map(status).collect()
    }

    /// A worker's present deployment on all nodes; `None` where the worker has none.
    pub fn worker_nodes(&self, state: &State, worker: &WorkerName, now_ms: u64) -> Option<WorkerNodes> {
        let known = state.worker(worker)?;
        let deployment = known.deployment()?.clone();
        let seq = known.record.deployed_seq;
        let committed = self.committed_ms.get(worker).filter(|(committed, _)| *committed == seq).map(|(_, at_ms)| *at_ms);
        let mut nodes = Vec::with_capacity(state.nodes().len());
        for (name, record) in state.nodes() {
            let heard = self.heard.get(name);
            let (state, reason) = match heard {
                Some(heard) if !offline(heard, now_ms) => said(&heard.report, worker, &deployment.id, seq),
                // Its last report may be younger than the registry: a deployment is not settled before it is heard again.
                None if self.expected.get(name).is_some_and(|at_ms| !is_old(*at_ms, now_ms)) => (NodeState::Pending, None),
                _ => (NodeState::Offline, None),
            };
            let since = heard.and_then(|heard| heard.active_since_ms.get(worker)).filter(|(active, _)| *active == deployment.id);
            let ms = match (state, since, committed) {
                (NodeState::Active, Some((_, since)), Some(committed)) => Some(since.saturating_sub(committed)),
                _ => None,
            };
            nodes.push(WorkerNode { node: name.clone(), region: record.region.clone(), state, reason, ms });
        }
        let online = || nodes.iter().filter(|node| node.state != NodeState::Offline);
        let settled = online().next().is_some() && online().all(|node| node.state != NodeState::Pending);
        Some(WorkerNodes { worker: worker.clone(), seq, deployment, settled, nodes })
    }
}

fn said(report: &NodeReport, worker: &WorkerName, deployment: &VersionId, seq: u64) -> (NodeState, Option<String>) {
    let line = report.workers.iter().find(|line| line.worker == *worker && line.deployment == *deployment);
    match line.map(|line| &line.state) {
        Some(Said::Active) => (NodeState::Active, None),
        Some(Said::Refused(reason)) => (NodeState::Refused, Some(reason.clone())),
        Some(Said::Activating) => (NodeState::Pending, None),
        None => match &report.feed_refusal {
            Some(reason) if report.seq < seq => (NodeState::Refused, Some(reason.clone())),
            _ => (NodeState::Pending, None),
        },
    }
}

fn offline(heard: &Heard, now_ms: u64) -> bool {
    is_old(heard.at_ms, now_ms)
}

fn is_old(at_ms: u64, now_ms: u64) -> bool {
    u128::from(now_ms.saturating_sub(at_ms)) > NODE_OFFLINE_AFTER.as_millis()
}

/// A text of a node ends on an operator's terminal: no control characters, and no more than fits. Cuts at a character's border.
fn clean(text: &mut String) {
    if text.contains(char::is_control) {
        *text = text.replace(char::is_control, " ");
    }
    if text.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}
