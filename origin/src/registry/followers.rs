//! Who follows the log, and how far each has applied its purges. Held in memory only: nodes say it again when they come back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{NodeName, State};
use crate::api::wire::{PurgeNode, PurgeNodes, PurgeState};
use crate::limits::{ACKNOWLEDGEMENTS_KEPT, FEED_AWAY_AFTER, NODE_OFFLINE_AFTER, PURGES_TIMED};

/// What is known of each follower. Times are milliseconds of one clock that never goes back.
#[derive(Debug, Default)]
pub struct Followers {
    nodes: BTreeMap<NodeName, FollowerState>,
    /// The last purges and when each was committed, oldest first.
    committed: VecDeque<(u64, u64)>,
    started_ms: u64,
    last_feed: u64,
}

#[derive(Debug, Default)]
struct FollowerState {
    /// Feeds that are open; two for a moment where a node comes back before its old connection is known to be dead.
    open: BTreeSet<u64>,
    /// Since when there is none.
    closed_ms: u64,
    /// The last acknowledgements (number, when), oldest first.
    applied: VecDeque<(u64, u64)>,
}

impl Followers {
    /// Nobody follows yet.
    pub fn since(started_ms: u64) -> Self {
        Self { started_ms, ..Self::default() }
    }

    /// A node has opened the feed. Gives a number for this feed.
    pub fn opened(&mut self, node: &NodeName) -> u64 {
        self.last_feed += 1;
        self.nodes.entry(node.clone()).or_default().open.insert(self.last_feed);
        self.last_feed
    }

    /// A feed of a node has ended. One of a removed node says nothing of the node that has its name now.
    pub fn closed(&mut self, node: &NodeName, feed: u64, now_ms: u64) {
        if let Some(known) = self.nodes.get_mut(node)
            && known.open.remove(&feed)
        {
            known.closed_ms = now_ms;
        }
    }

    /// Forgets a node.
    pub fn removed(&mut self, node: &NodeName) {
        self.nodes.remove(node);
    }

    /// A purge was committed.
    pub fn committed(&mut self, seq: u64, now_ms: u64) {
        self.committed.push_back((seq, now_ms));
        while self.committed.len() > PURGES_TIMED {
            self.committed.pop_front();
        }
    }

    /// A node has applied all purges up to an entry. Says whether that is news.
    pub fn applied(&mut self, node: &NodeName, seq: u64, now_ms: u64) -> bool {
        let known = self.nodes.entry(node.clone()).or_default();
        if known.applied.back().is_some_and(|(last, _)| *last >= seq) {
            return false;
        }
        known.applied.push_back((seq, now_ms));
        while known.applied.len() > ACKNOWLEDGEMENTS_KEPT {
            known.applied.pop_front();
        }
        true
    }

    /// A purge on all nodes.
    pub fn purge_nodes(&self, state: &State, seq: u64, now_ms: u64) -> PurgeNodes {
        let committed_ms = self.committed.iter().find(|(committed, _)| *committed == seq).map(|(_, at_ms)| *at_ms);
        let nodes: Vec<PurgeNode> = state
            .nodes()
            .iter()
            .map(|(name, record)| {
                let known = self.nodes.get(name);
                let (state, at_ms) = known.map_or((None, None), |known| known.purge(seq));
                let state = state.unwrap_or_else(|| if self.is_away(known, now_ms) { PurgeState::Away } else { PurgeState::Pending });
                let ms = at_ms.zip(committed_ms).map(|(at_ms, committed_ms)| at_ms.saturating_sub(committed_ms));
                PurgeNode { node: name.clone(), region: record.region.clone(), state, ms }
            })
            .collect();
        let settled = nodes.iter().all(|node| node.state != PurgeState::Pending);
        PurgeNodes { seq, settled, nodes }
    }

    fn is_away(&self, known: Option<&FollowerState>, now_ms: u64) -> bool {
        let (since_ms, grace) = match known {
            Some(known) if !known.open.is_empty() => return false,
            Some(known) if known.closed_ms > 0 => (known.closed_ms, FEED_AWAY_AFTER),
            // A registry that has just started has not heard of those that are coming back.
            _ => (self.started_ms, NODE_OFFLINE_AFTER),
        };
        u128::from(now_ms.saturating_sub(since_ms)) > grace.as_millis()
    }
}

impl FollowerState {
    /// Whether it has applied an entry, and when it first said so, where that is still known.
    fn purge(&self, seq: u64) -> (Option<PurgeState>, Option<u64>) {
        let first = self.applied.iter().position(|(applied, _)| *applied >= seq);
        let Some(at) = first else { return (None, None) };
        let is_first = at > 0 || self.applied.len() < ACKNOWLEDGEMENTS_KEPT;
        (Some(PurgeState::Applied), self.applied.get(at).filter(|_| is_first).map(|(_, at_ms)| *at_ms))
    }
}
