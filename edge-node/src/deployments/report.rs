//! What the node says of itself: to the registry on every change and every 5 s, and to health and metrics at any time.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_origin::api::wire::{Applied, NodeReport, WorkerReport, WorkerState};
use selvedge_origin::client::Client;
use selvedge_origin::feed::Position;
use selvedge_origin::registry::{NodeName, VersionId, WorkerName};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Contact, FollowerConfig, FollowerStatus, Link, limits};

/// Where every part of following writes what became of its work.
#[derive(Debug)]
pub(super) struct Board {
    status: Mutex<FollowerStatus>,
    news: Notify,
    pub(super) contact: Arc<Contact>,
    /// The last entry whose purges are applied, and will not be forgotten.
    applied: watch::Sender<Option<Position>>,
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
        Self { status: Mutex::new(status), news: Notify::new(), contact: Arc::default(), applied: watch::Sender::new(None) }
    }

    /// What it says now.
    pub(super) fn status(&self) -> FollowerStatus {
        self.status.lock().clone()
    }

    /// The node's name, once it is known.
    pub(super) fn node(&self, node: &NodeName) {
        self.status.lock().node = node.clone();
    }

    /// The link to the registry. Once removed, always removed.
    pub(super) fn link(&self, link: Link) {
        if link == Link::Following {
            self.contact.heard(std::time::Instant::now());
        }
        let mut status = self.status.lock();
        if !matches!(status.link, Link::Removed(_)) {
            status.link = link;
        }
    }

    /// All purges up to here are applied, and will not be forgotten.
    pub(super) fn applied(&self, position: &Position) {
        self.applied.send_replace(Some(position.clone()));
    }

    /// Follows what is applied.
    pub(super) fn watch_applied(&self) -> watch::Receiver<Option<Position>> {
        self.applied.subscribe()
    }

    /// Why the feed's next frame is not taken; none: it is.
    pub(super) fn feed_refusal(&self, reason: Option<String>) {
        let mut status = self.status.lock();
        let reason = reason.map(cut);
        if status.feed_refusal != reason {
            status.feed_refusal = reason;
            self.news.notify_one();
        }
    }

    /// The last entry that was taken, and what became of deployments since.
    pub(super) fn settled(&self, position: Option<Position>, workers: impl IntoIterator<Item = WorkerReport>) {
        let mut status = self.status.lock();
        status.position = position;
        status.workers.extend(workers.into_iter().map(|report| (report.worker.clone(), report)));
        self.news.notify_one();
    }

    /// Deployments that are being prepared. No news: the registry waits for their end.
    pub(super) fn begun(&self, workers: impl IntoIterator<Item = WorkerReport>) {
        self.status.lock().workers.extend(workers.into_iter().map(|report| (report.worker.clone(), report)));
    }

    /// Why a deployment does not run.
    pub(super) fn refused(&self, worker: &WorkerName, deployment: &VersionId, reason: String, active: Vec<VersionId>) {
        let report =
            WorkerReport { worker: worker.clone(), deployment: deployment.clone(), state: WorkerState::Refused(cut(reason)), active };
        self.status.lock().workers.insert(worker.clone(), report);
        self.news.notify_one();
    }

    /// Forgets workers that the registry wants no more.
    pub(super) fn keep(&self, wanted: impl Fn(&WorkerName) -> bool) {
        let mut status = self.status.lock();
        let before = status.workers.len();
        status.workers.retain(|worker, _| wanted(worker));
        if status.workers.len() != before {
            self.news.notify_one();
        }
    }
}

fn cut(reason: String) -> String {
    if reason.chars().count() <= limits::REASON_CHARS_MAX { reason } else { reason.chars().take(limits::REASON_CHARS_MAX).collect() }
}

/// Where the node stands, and where it is reached.
pub(super) struct Place {
    region: String,
    address: Option<String>,
    peer: Option<String>,
}

impl Place {
    pub(super) fn of(config: &FollowerConfig) -> Self {
        Self { region: config.region.clone(), address: config.address.clone(), peer: config.peer.clone() }
    }
}

/// Acknowledges purges: at once, and only the latest where they come faster than the registry answers.
pub(super) async fn acknowledge(client: Client, board: Arc<Board>) {
    let mut applied = board.watch_applied();
    let mut wait = limits::ACKNOWLEDGE_RETRY_MIN;
    loop {
        let latest = applied.borrow_and_update().clone();
        if let Some(Position { epoch, seq, .. }) = latest
            && let Err(error) = client.applied(&Applied { epoch, seq }).await
        {
            tracing::debug!(%error, "acknowledge purges");
            if error.is_transient() {
                // Something newer need not wait, and a lost acknowledgement is sent again when the feed is opened anew.
                let _ = tokio::time::timeout(wait, applied.changed()).await;
                wait = (wait * 2).min(limits::ACKNOWLEDGE_RETRY_MAX);
                continue;
            }
        }
        wait = limits::ACKNOWLEDGE_RETRY_MIN;
        // Ends with the board, which this task holds: with the task.
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Reports on every change and every 5 s, until the registry has removed the node.
pub(super) async fn report(client: Client, board: Arc<Board>, place: Place) {
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = board.news.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
        let status = board.status();
        if let Link::Removed(_) = status.link {
            return;
        }
        let report = NodeReport {
            epoch: status.position.as_ref().map(|position| position.epoch.clone()),
            seq: status.position.as_ref().map_or(0, |position| position.seq),
            region: place.region.clone(),
            address: place.address.clone(),
            peer: place.peer.clone(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            feed_refusal: status.feed_refusal.clone(),
            workers: status.workers.into_values().collect(),
        };
        let large = report.workers.len() > limits::REPORT_SMALL_WORKERS;
        next = Instant::now() + limits::REPORT_INTERVAL;
        if let Err(error) = client.report(&report).await {
            tracing::debug!(%error, "report to the registry");
            if error.code() == Some(super::REVOKED) {
                board.link(Link::Removed(error.to_string()));
            }
        }
        if large {
            tokio::time::sleep(limits::REPORT_SPACING).await;
        }
    }
}
