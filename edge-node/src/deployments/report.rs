//! What the node says of itself: to the registry on every change and every 5 s, and to health and metrics at any time.

use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_origin::api::wire::{Applied, FeedRefusal, NodeReport, WorkerReport, WorkerState};
use selvedge_origin::client::Client;
use selvedge_origin::feed::Position;
use selvedge_origin::limits::{FEED_REFUSAL_KEPT, REPORT_LINES_MAX};
use selvedge_origin::registry::{NodeName, VersionId, WorkerName};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::load::Failure;
use super::unsettled::Unsettled;
use super::{Contact, FollowerConfig, FollowerStatus, Link, limits};

/// Where every part of following writes what became of its work.
#[derive(Debug)]
pub(super) struct Board {
    said: Mutex<Said>,
    news: Notify,
    pub(super) contact: Arc<Contact>,
    /// The last entry whose purges are applied, and will not be forgotten.
    applied: watch::Sender<Option<Position>>,
}

/// What the board says. Whoever moves the position has said before what does not run of it.
#[derive(Debug)]
struct Said {
    node: NodeName,
    position: Option<Position>,
    link: Link,
    feed_refusal: Option<String>,
    /// The last line that was refused, and when.
    last_refusal: Option<(FeedRefusal, Instant)>,
    unsettled: Unsettled,
}

impl Said {
    /// The last line of the feed that was refused, as long as it is remembered.
    fn last_refusal(&self) -> Option<FeedRefusal> {
        let (refusal, at) = self.last_refusal.as_ref()?;
        let ago = at.elapsed();
        (ago < FEED_REFUSAL_KEPT).then(|| FeedRefusal { ms_ago: u64::try_from(ago.as_millis()).unwrap_or(u64::MAX), ..refusal.clone() })
    }
}

impl Board {
    /// Nothing is known yet.
    pub(super) fn new(node: NodeName) -> Self {
        let link = Link::Disconnected("not connected yet".into());
        let said = Said { node, position: None, link, feed_refusal: None, last_refusal: None, unsettled: Unsettled::default() };
        Self { said: Mutex::new(said), news: Notify::new(), contact: Arc::default(), applied: watch::Sender::new(None) }
    }

    /// What it says now.
    pub(super) fn status(&self) -> FollowerStatus {
        let said = self.said.lock();
        FollowerStatus {
            node: said.node.clone(),
            position: said.position.clone(),
            link: said.link.clone(),
            feed_refusal: said.feed_refusal.clone(),
            unsettled: said.unsettled.lines().clone(),
        }
    }

    /// The node's name, once it is known.
    pub(super) fn node(&self, node: &NodeName) {
        self.said.lock().node = node.clone();
    }

    /// The link to the registry. Once removed, always removed.
    pub(super) fn link(&self, link: Link) {
        if link == Link::Following {
            self.contact.heard(std::time::Instant::now());
        }
        let mut said = self.said.lock();
        if !matches!(said.link, Link::Removed(_)) {
            said.link = link;
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

    /// The feed's next frame is not taken, and why.
    pub(super) fn refuses_feed(&self, reason: String) {
        let reason = cut(reason);
        let mut said = self.said.lock();
        let count = said.last_refusal().map_or(1, |last| last.count.saturating_add(1));
        said.last_refusal = Some((FeedRefusal { reason: reason.clone(), ms_ago: 0, count }, Instant::now()));
        said.feed_refusal = Some(reason);
        self.news.notify_one();
    }

    /// The feed's next frame is taken. What was refused before is remembered for a while.
    pub(super) fn takes_feed(&self) {
        if self.said.lock().feed_refusal.take().is_some() {
            self.news.notify_one();
        }
    }

    /// The last entry that was taken, and the workers that run as it wants since.
    pub(super) fn settled<'a>(&self, position: Option<Position>, workers: impl IntoIterator<Item = &'a WorkerName>) {
        let mut said = self.said.lock();
        said.position = position;
        workers.into_iter().for_each(|worker| said.unsettled.settle(worker));
        self.news.notify_one();
    }

    /// Deployments that are being prepared. No news: the registry waits for their end.
    pub(super) fn begun(&self, workers: impl IntoIterator<Item = WorkerReport>) {
        let mut said = self.said.lock();
        workers.into_iter().for_each(|line| said.unsettled.set(line));
    }

    /// Why a deployment does not run, or not yet.
    pub(super) fn hindered(&self, worker: &WorkerName, deployment: &VersionId, why: Failure, active: Vec<VersionId>) {
        let state = match why {
            Failure::Refused(reason) => WorkerState::Refused(cut(reason)),
            Failure::Later(reason) | Failure::RunnerLost(reason) => WorkerState::Waiting(cut(reason)),
        };
        self.said.lock().unsettled.set(WorkerReport { worker: worker.clone(), deployment: deployment.clone(), state, active });
        self.news.notify_one();
    }

    /// Forgets workers that the registry wants no more, or as they are.
    pub(super) fn keep(&self, unsettled: impl Fn(&WorkerReport) -> bool) {
        if self.said.lock().unsettled.keep(unsettled) {
            self.news.notify_one();
        }
    }

    /// The next report, after one that the registry calls `since`, and whether one more has to follow at once. None: the node is removed.
    fn report(&self, since: Option<u64>, place: &Place) -> Option<(NodeReport, bool)> {
        let mut said = self.said.lock();
        if matches!(said.link, Link::Removed(_)) {
            return None;
        }
        if since.is_none() {
            said.unsettled.tell_all();
        }
        let changes = said.unsettled.tell(REPORT_LINES_MAX);
        let report = NodeReport {
            since,
            position: said.position.clone().filter(|_| !changes.more),
            region: place.region.clone(),
            address: place.address.clone(),
            peer: place.peer.clone(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            feed_refusal: said.feed_refusal.clone(),
            last_refusal: said.last_refusal(),
            unsettled: changes.unsettled,
            settled: changes.settled,
        };
        Some((report, changes.more))
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
            // Whatever it was: operators wait for this node until it is heard, unless they have removed it.
            if !error.is_revoked() {
                // Something newer need not wait.
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

/// Reports on every change and every 5 s, until the registry has removed the node: what has changed since the last report that was heard, and
/// everything where that is not known.
pub(super) async fn report(client: Client, board: Arc<Board>, place: Place) {
    let mut next = Instant::now();
    let mut since = None;
    loop {
        tokio::select! {
            () = board.news.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
        let Some((report, more)) = board.report(since, &place) else { return };
        let begun = Instant::now();
        next = begun + limits::REPORT_INTERVAL;
        match client.report(&report).await {
            Ok(reported) => {
                since = reported.mark;
                if more || (since.is_none() && report.since.is_some()) {
                    next = begun;
                }
            }
            Err(error) => {
                since = None;
                tracing::debug!(%error, "report to the registry");
                if error.is_revoked() {
                    board.link(Link::Removed(error.to_string()));
                }
            }
        }
        tokio::time::sleep_until(begun + limits::REPORT_SPACING).await;
    }
}
