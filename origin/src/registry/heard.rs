//! One node as it was heard: how far it has applied the log, and which workers do not run there what that wants. A report costs what it says; what
//! runs as it should is in none.

use std::collections::{BTreeMap, VecDeque};

use super::{Deployment, State, WorkerName};
use crate::api::wire::{FeedRefusal, NodeReport, NodeSaid, NodeState, WorkerReport, WorkerState as Said};
use crate::feed::Position;
use crate::limits::{FEED_REFUSAL_KEPT, HEARD_KEPT, NODE_OFFLINE_AFTER, NODE_REASONS_BYTES_MAX, REASON_BYTES_MAX};

/// Stands for a reason for which there was no room.
const NO_ROOM: &str = "this node has more workers that do not run than there is room for reasons: see its log";

/// What a node's reports add up to. Times are milliseconds of one clock that never goes back.
#[derive(Debug, Default)]
pub(super) struct Heard {
    at_ms: u64,
    /// Names the last report: the next may go on from it.
    pub(super) mark: u64,
    /// Where it stands in the registry's log, and all of what that wants was said.
    pub(super) position: Option<Position>,
    pub(super) about: About,
    /// The last line of the feed that it refused, and when.
    refused: Option<(FeedRefusal, u64)>,
    unsettled: BTreeMap<WorkerName, WorkerReport>,
    reason_bytes: usize,
    /// Entries and when they were first heard to be applied, oldest first.
    reached: VecDeque<(u64, u64)>,
    /// Workers and when they were heard to be settled, oldest first.
    settled: VecDeque<(WorkerName, u64)>,
}

/// What a node says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    pub(super) region: String,
    pub(super) address: Option<String>,
    build: String,
    feed_refusal: Option<String>,
}

impl Heard {
    /// Takes a report in, of which only what the registry knows is kept. Says whether it is news.
    pub(super) fn take(&mut self, state: &State, report: NodeReport, now_ms: u64) -> bool {
        let mut is_news = self.is_old(now_ms);
        self.at_ms = now_ms;
        let NodeReport { since, position, region, address, peer: _, build, feed_refusal, last_refusal, unsettled, settled } = report;
        let about =
            About { region: clean(region), address: address.map(clean), build: clean(build), feed_refusal: feed_refusal.map(clean) };
        is_news |= about != self.about;
        self.about = about;
        is_news |= last_refusal.is_some_and(|refusal| self.refuse(refusal, now_ms));
        if since.is_none() {
            self.reason_bytes = 0;
            let before = std::mem::take(&mut self.unsettled);
            unsettled.into_iter().for_each(|line| self.insert(state, line));
            is_news |= before != self.unsettled || position != self.position;
            let ended = before.into_keys().filter(|worker| !self.unsettled.contains_key(worker)).collect::<Vec<_>>();
            ended.into_iter().for_each(|worker| self.keep_settled(worker, now_ms));
            self.position = position;
        } else {
            is_news |=
                !unsettled.is_empty() || !settled.is_empty() || position.as_ref().is_some_and(|at| Some(at) != self.position.as_ref());
            unsettled.into_iter().for_each(|line| self.insert(state, line));
            for worker in settled.into_iter().filter(|worker| self.forget(worker)).collect::<Vec<_>>() {
                self.keep_settled(worker, now_ms);
            }
            self.position = position.or(self.position.take());
        }
        self.reach(now_ms);
        is_news
    }

    /// Remembers what it refused of the feed. Says whether that is news.
    fn refuse(&mut self, refusal: FeedRefusal, now_ms: u64) -> bool {
        let refusal = FeedRefusal { reason: clean(refusal.reason), ..refusal };
        let is_same = |(known, _): &(FeedRefusal, u64)| known.reason == refusal.reason && known.count == refusal.count;
        if self.refused.as_ref().is_some_and(is_same) {
            return false;
        }
        let at_ms = now_ms.saturating_sub(refusal.ms_ago);
        self.refused = Some((refusal, at_ms));
        true
    }

    fn insert(&mut self, state: &State, mut line: WorkerReport) {
        // What the registry knows bounds what is kept.
        if state.worker(&line.worker).is_none() {
            return;
        }
        self.forget(&line.worker);
        line.state = line.state.because(|reason| {
            let reason = clean(reason);
            let has_room = self.reason_bytes.saturating_add(reason.len()) <= NODE_REASONS_BYTES_MAX;
            self.reason_bytes += if has_room { reason.len() } else { 0 };
            if has_room { reason } else { NO_ROOM.to_owned() }
        });
        self.unsettled.insert(line.worker.clone(), line);
    }

    /// Forgets what was said of a worker. Says whether anything was.
    pub(super) fn forget(&mut self, worker: &WorkerName) -> bool {
        let Some(line) = self.unsettled.remove(worker) else { return false };
        if let Some(reason) = line.state.reason().filter(|reason| *reason != NO_ROOM) {
            self.reason_bytes = self.reason_bytes.saturating_sub(reason.len());
        }
        true
    }

    fn keep_settled(&mut self, worker: WorkerName, now_ms: u64) {
        self.settled.push_back((worker, now_ms));
        if self.settled.len() > HEARD_KEPT {
            self.settled.pop_front();
        }
    }

    fn reach(&mut self, now_ms: u64) {
        let seq = self.seq();
        match self.reached.back() {
            Some((last, _)) if *last == seq => return,
            // It stands in another log, or came back with an older state.
            Some((last, _)) if *last > seq => self.reached.clear(),
            _ => {}
        }
        self.reached.push_back((seq, now_ms));
        if self.reached.len() > HEARD_KEPT {
            self.reached.pop_front();
        }
    }

    /// The last entry that it applied.
    fn seq(&self) -> u64 {
        self.position.as_ref().map_or(0, |position| position.seq)
    }

    /// What became of a worker's deployment, which entry `seq` made, and since when it is active where that is known.
    pub(super) fn became(&self, worker: &WorkerName, deployment: &Deployment, seq: u64) -> (NodeState, Option<String>, Option<u64>) {
        let refused = |reason: &String| (NodeState::Refused, Some(reason.clone()), None);
        match self.unsettled.get(worker) {
            None if self.seq() >= seq => return (NodeState::Active, None, self.active_since_ms(worker, seq)),
            Some(line) if line.deployment == deployment.id => match &line.state {
                Said::Refused(reason) => return refused(reason),
                Said::Activating => return (NodeState::Pending, None, None),
                Said::Waiting(reason) => return (NodeState::Pending, Some(reason.clone()), None),
            },
            _ => {}
        }
        match &self.about.feed_refusal {
            Some(reason) if self.seq() < seq => refused(reason),
            _ => (NodeState::Pending, None, None),
        }
    }

    fn active_since_ms(&self, worker: &WorkerName, seq: u64) -> Option<u64> {
        let at = self.reached.iter().position(|(reached, _)| *reached >= seq)?;
        let (_, reached_ms) = self.reached.get(at).filter(|_| at > 0 || self.reached.len() < HEARD_KEPT)?;
        let settled_ms = self.settled.iter().rev().find(|(settled, _)| settled == worker).map(|(_, at_ms)| *at_ms);
        let oldest_ms = self.settled.front().filter(|_| self.settled.len() == HEARD_KEPT).map_or(0, |(_, at_ms)| *at_ms);
        match settled_ms {
            Some(settled_ms) => Some(settled_ms.max(*reached_ms)),
            None => (oldest_ms <= *reached_ms).then_some(*reached_ms),
        }
    }

    /// Everything that was said.
    pub(super) fn said(&self, now_ms: u64) -> NodeSaid {
        let refused = self.refused.as_ref();
        let refused = refused.map(|(refusal, at_ms)| FeedRefusal { ms_ago: now_ms.saturating_sub(*at_ms), ..refusal.clone() });
        NodeSaid {
            seq: self.seq(),
            build: self.about.build.clone(),
            feed_refusal: self.about.feed_refusal.clone(),
            last_refusal: refused.filter(|refusal| u128::from(refusal.ms_ago) < FEED_REFUSAL_KEPT.as_millis()),
            unsettled: self.unsettled.values().cloned().collect(),
        }
    }

    /// Age of the last report, in milliseconds.
    pub(super) fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.at_ms)
    }

    /// Whether the node counts as offline.
    pub(super) fn is_old(&self, now_ms: u64) -> bool {
        is_old(self.at_ms, now_ms)
    }
}

/// Whether a node that was heard then counts as offline.
pub(super) fn is_old(at_ms: u64, now_ms: u64) -> bool {
    u128::from(now_ms.saturating_sub(at_ms)) > NODE_OFFLINE_AFTER.as_millis()
}

/// A text of a node ends on an operator's terminal: no control characters, and no more than fits. Cuts at a character's border.
fn clean(mut text: String) -> String {
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, " ");
    }
    if text.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
