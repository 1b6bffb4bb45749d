//! What the node says of itself: to the registry on every change and every 5 s, and to health and metrics at any time.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use selvedge_origin::api::wire::{NodeReport, WorkerReport, WorkerState};
use selvedge_origin::client::Client;
use selvedge_origin::feed::Position;
use selvedge_origin::registry::{NodeName, VersionId, WorkerName};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{FollowerStatus, Link, limits};

/// Where every part of following writes what became of its work.
#[derive(Debug)]
pub(super) struct Board {
    state: Mutex<FollowerStatus>,
    shown: Arc<ArcSwap<FollowerStatus>>,
    changed: Notify,
}

impl Board {
    /// Nothing is known yet.
    pub(super) fn new(node: NodeName) -> Self {
        let status = FollowerStatus {
            node,
            position: None,
            link: Link::Disconnected("not connected yet".into()),
            feed_refusal: None,
            workers: BTreeMap::new(),
        };
        Self { state: Mutex::new(status.clone()), shown: Arc::new(ArcSwap::from_pointee(status)), changed: Notify::new() }
    }

    /// What is shown.
    pub(super) fn shown(&self) -> Arc<ArcSwap<FollowerStatus>> {
        self.shown.clone()
    }

    fn update(&self, change: impl FnOnce(&mut FollowerStatus)) {
        let mut state = self.state.lock();
        change(&mut state);
        if **self.shown.load() != *state {
            self.shown.store(Arc::new(state.clone()));
            self.changed.notify_one();
        }
    }

    /// The node's name, once it is known.
    pub(super) fn node(&self, node: &NodeName) {
        self.update(|status| status.node = node.clone());
    }

    /// The link to the registry. Once removed, always removed.
    pub(super) fn link(&self, link: Link) {
        self.update(|status| {
            if !matches!(status.link, Link::Removed(_)) {
                status.link = link;
            }
        });
    }

    /// Why the feed's next frame is not taken; none: it is.
    pub(super) fn feed_refusal(&self, reason: Option<String>) {
        self.update(|status| status.feed_refusal = reason.map(cut));
    }

    /// The last entry that was taken.
    pub(super) fn position(&self, position: Option<Position>) {
        self.update(|status| status.position = position);
    }

    /// What became of a worker's deployment.
    pub(super) fn worker(&self, worker: &WorkerName, deployment: &VersionId, state: WorkerState, active: Vec<VersionId>) {
        let state = match state {
            WorkerState::Refused(reason) => WorkerState::Refused(cut(reason)),
            other => other,
        };
        let report = WorkerReport { worker: worker.clone(), deployment: deployment.clone(), state, active };
        self.update(|status| drop(status.workers.insert(worker.clone(), report)));
    }

    /// The worker is gone.
    pub(super) fn forget(&self, worker: &WorkerName) {
        self.update(|status| drop(status.workers.remove(worker)));
    }
}

fn cut(reason: String) -> String {
    if reason.chars().count() <= limits::REASON_CHARS_MAX { reason } else { reason.chars().take(limits::REASON_CHARS_MAX).collect() }
}

/// Reports on every change and every 5 s, until the registry has removed the node.
pub(super) async fn report(client: Client, board: Arc<Board>, region: String, address: Option<String>) {
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = board.changed.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
        let status = board.shown.load_full();
        if let Link::Removed(_) = status.link {
            return;
        }
        let report = NodeReport {
            epoch: status.position.as_ref().map(|position| position.epoch.clone()),
            seq: status.position.as_ref().map_or(0, |position| position.seq),
            region: region.clone(),
            address: address.clone(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            feed_refusal: status.feed_refusal.clone(),
            workers: status.workers.values().cloned().collect(),
        };
        next = Instant::now() + limits::REPORT_INTERVAL;
        if let Err(error) = client.report(&report).await {
            tracing::debug!(%error, "report to the registry");
            if error.code() == Some(super::REVOKED) {
                board.link(Link::Removed(error.to_string()));
            }
        }
    }
}
