//! What nodes say about themselves: what their reports add up to, held in memory only. A registry that restarts hears from every node within 5 s.

use std::collections::BTreeMap;

use super::heard::{self, Heard};
use super::{NodeName, State, WorkerName};
use crate::api::wire::{NodeReport, NodeState, NodeStatus, WorkerNode, WorkerNodes};
use crate::feed::Position;

/// All nodes as they were heard. Times are milliseconds of one clock that never goes back.
#[derive(Debug, Default)]
pub struct Fleet {
    heard: BTreeMap<NodeName, Heard>,
    committed_ms: BTreeMap<WorkerName, (u64, u64)>,
    /// Nodes that were here before the registry started, and when it did: their reports from before are not known, but may be young.
    expected: BTreeMap<NodeName, u64>,
    last_mark: u64,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Names it: the next may say only what has changed since. `None`: it was not taken, because it goes on from one that is not known here.
    pub mark: Option<u64>,
    /// Whether it says anything that the ones before did not.
    pub is_news: bool,
}

impl Fleet {
    /// No report yet; these nodes had joined before the registry started. No mark of an earlier start is given again, below a million reports
    /// each millisecond.
    pub fn expecting<'a>(nodes: impl IntoIterator<Item = &'a NodeName>, started_ms: u64) -> Self {
        let expected = nodes.into_iter().map(|node| (node.clone(), started_ms)).collect();
        Self { expected, last_mark: started_ms.wrapping_mul(1 << 20), ..Self::default() }
    }

    /// Remembers when a worker's deployment was committed.
    pub fn committed(&mut self, worker: &WorkerName, seq: u64, now_ms: u64) {
        self.committed_ms.insert(worker.clone(), (seq, now_ms));
    }

    /// Forgets a worker.
    pub fn deleted(&mut self, worker: &WorkerName) {
        self.committed_ms.remove(worker);
        for heard in self.heard.values_mut() {
            heard.forget(worker);
        }
    }

    /// Forgets a node.
    pub fn removed(&mut self, node: &NodeName) {
        self.heard.remove(node);
        self.expected.remove(node);
    }

    /// Whether a node's last report already said that it stands there.
    pub fn stands_at(&self, node: &NodeName, position: &Position) -> bool {
        self.heard.get(node).is_some_and(|heard| heard.position.as_ref() == Some(position))
    }

    /// Takes in a report. Its position is one of the registry's log: whoever calls this has looked.
    pub fn reported(&mut self, state: &State, node: &NodeName, report: NodeReport, now_ms: u64) -> Taken {
        let goes_on = report.since.is_none_or(|since| self.heard.get(node).is_some_and(|heard| heard.mark == since));
        if !goes_on {
            return Taken { mark: None, is_news: false };
        }
        let is_first = !self.heard.contains_key(node);
        self.expected.remove(node);
        self.last_mark = self.last_mark.wrapping_add(1);
        let heard = self.heard.entry(node.clone()).or_default();
        heard.mark = self.last_mark;
        let is_news = heard.take(state, report, now_ms) || is_first;
        Taken { mark: Some(self.last_mark), is_news }
    }

    /// All nodes with what they said.
    pub fn nodes(&self, state: &State, now_ms: u64) -> Vec<NodeStatus> {
        let status = |(name, record): (&NodeName, &super::NodeRecord)| {
            let heard = self.heard.get(name);
            NodeStatus {
                name: name.clone(),
                region: heard.map_or(&record.region, |heard| &heard.about.region).clone(),
                address: heard.and_then(|heard| heard.about.address.clone()).or_else(|| record.address.clone()),
                online: heard.is_some_and(|heard| !heard.is_old(now_ms)),
                reported_ms_ago: heard.map(|heard| heard.age_ms(now_ms)),
                report: heard.map(|heard| heard.said(now_ms)),
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
            let (state, reason, since) = match self.heard.get(name) {
                Some(heard) if !heard.is_old(now_ms) => heard.became(worker, &deployment, seq),
                // Its last report may be younger than the registry: a deployment is not settled before it is heard again.
                None if self.expected.get(name).is_some_and(|at_ms| !heard::is_old(*at_ms, now_ms)) => (NodeState::Pending, None, None),
                _ => (NodeState::Offline, None, None),
            };
            let ms = since.zip(committed).map(|(since, committed)| since.saturating_sub(committed));
            nodes.push(WorkerNode { node: name.clone(), region: record.region.clone(), state, reason, ms });
        }
        let online = || nodes.iter().filter(|node| node.state != NodeState::Offline);
        let settled = online().next().is_some() && online().all(|node| node.state != NodeState::Pending);
        Some(WorkerNodes { worker: worker.clone(), seq, deployment, settled, nodes })
    }
}
