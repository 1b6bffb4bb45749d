//! Follows the registry's feed: opens it where the node stands, checks every line, takes it into the wanted state. A line that does not
//! verify changes nothing; the reason is reported, and the feed is opened again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use selvedge_origin::client::{Client, ClientError, FeedLines};
use selvedge_origin::feed::{Accepted, FeedError, FeedVerifier, Position};
use selvedge_origin::keys::PublicKey;
use selvedge_origin::registry::{Change, Desired, Entry, NodeName};
use tokio::sync::watch;

use super::journal::Journal;
use super::question::Inbox;
use super::report::Board;
use super::{Link, limits, spelling};
use crate::peers::Peers;
use crate::request::Clock;
use crate::routes::ActiveRoutes;

/// What the registry wants, as of a position in its log.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) position: Option<Position>,
    pub(super) desired: Arc<Desired>,
}

/// Follows the feed.
pub(super) struct Follow {
    pub(super) client: Client,
    pub(super) node: NodeName,
    pub(super) verifier: FeedVerifier,
    pub(super) wanted: watch::Sender<Wanted>,
    pub(super) board: Arc<Board>,
    pub(super) peers: Arc<Peers>,
    journal: Arc<Mutex<Journal>>,
    routes: Arc<ActiveRoutes>,
    inbox: Inbox,
    clock: Clock,
    /// A snapshot that is accepted, and not in `wanted` yet.
    reset: Option<Box<Desired>>,
    /// Entries after it that are accepted, and whose purges are applied, but that are not in `wanted` yet.
    batch: Vec<Entry>,
    /// An acknowledgement is due when the batch is taken.
    owes: bool,
}

/// Why one opening of the feed ended.
#[derive(Debug)]
enum Ended {
    /// The registry stops, or the connection broke.
    Lost(String),
    /// A line did not verify.
    Refused(FeedError),
    /// The registry says no.
    Denied(ClientError),
    /// The registry has removed this node.
    Removed(String),
}

impl Follow {
    /// A follower that goes on after the last entry that `wanted` holds.
    pub(super) fn new(
        client: Client,
        node: NodeName,
        key: PublicKey,
        wanted: watch::Sender<Wanted>,
        (board, peers): (Arc<Board>, Arc<Peers>),
        (journal, routes): (Journal, Arc<ActiveRoutes>),
        inbox: Inbox,
    ) -> Self {
        let verifier = FeedVerifier::new(key, wanted.borrow().position.clone());
        let (journal, clock) = (Arc::new(Mutex::new(journal)), Clock::default());
        Self { client, node, verifier, wanted, board, peers, journal, routes, inbox, clock, reset: None, batch: Vec::new(), owes: false }
    }

    /// Follows until it is dropped; after the registry has removed the node, without asking it any more.
    pub(super) async fn run(mut self) {
        let mut wait = limits::RECONNECT_MIN;
        loop {
            let mut taken = 0;
            let ended = self.session(&mut taken).await;
            if taken > 0 {
                wait = limits::RECONNECT_MIN;
            }
            match ended {
                Ended::Lost(reason) => {
                    tracing::warn!(reason, "the feed is closed; serving what is active");
                    self.board.link(Link::Disconnected(reason));
                }
                Ended::Refused(error) => {
                    tracing::error!(%error, "a frame of the feed is refused; serving what is active");
                    self.board.refuses_feed(error.to_string());
                    self.board.link(Link::Disconnected(error.to_string()));
                }
                Ended::Denied(error) => {
                    tracing::error!(%error, "the registry refuses the feed; serving what is active");
                    self.board.link(Link::Disconnected(error.to_string()));
                    wait = limits::REFUSED_WAIT;
                }
                Ended::Removed(reason) => {
                    tracing::error!(reason, "the registry has removed this node: it follows no more, and goes on serving what is active");
                    self.board.link(Link::Removed(reason));
                    // What is active is kept up by the activator, which ends with the sender of what is wanted.
                    return std::future::pending().await;
                }
            }
            // Jitter of half the wait, so that nodes do not come back in step.
            tokio::time::sleep(wait.mul_f64(0.5 + crate::chance::draw() / 2.0)).await;
            wait = next_wait(wait);
        }
    }

    /// Follows one opening of the feed to its end; counts the lines that were taken.
    async fn session(&mut self, taken: &mut u64) -> Ended {
        let mut lines = match self.client.feed(self.verifier.position(), self.verifier.heard_ms()).await {
            Ok(lines) => lines,
            Err(error) => return ended(error),
        };
        // Whoever asks the registry may have come back to one that knows nothing of this node's acknowledgements.
        self.owes = true;
        let ended = self.lines(&mut lines, taken).await;
        self.settle().await.err().unwrap_or(ended)
    }

    /// Takes lines in until the feed ends. Those that have arrived together are settled together.
    async fn lines(&mut self, lines: &mut FeedLines, taken: &mut u64) -> Ended {
        loop {
            let here = if self.batch.len() < limits::ENTRIES_TOGETHER_MAX { lines.next().now_or_never() } else { None };
            let next = match here {
                Some(next) => next,
                None => match self.settle().await {
                    Ok(()) => lines.next().await,
                    Err(ended) => return ended,
                },
            };
            match next {
                Ok(Some(line)) => {
                    if let Err(ended) = self.line(line).await {
                        return ended;
                    }
                    *taken += 1;
                }
                Ok(None) => return Ended::Lost("the registry ended the feed".into()),
                Err(error) => return ended(error),
            }
        }
    }

    /// Makes the applied purges last, then takes what was accepted into the wanted state: that is saved with its position, so nothing before that position may be forgotten.
    /// Then it acknowledges.
    async fn settle(&mut self) -> Result<(), Ended> {
        if self.journal.lock().is_behind() {
            let journal = self.journal.clone();
            let synced = tokio::task::spawn_blocking(move || journal.lock().sync()).await;
            let synced = synced.map_err(|error| Ended::Lost(error.to_string()))?;
            synced.map_err(|error| Ended::Lost(format!("the purges can be neither written nor removed: {error}")))?;
        }
        let (reset, batch) = (self.reset.take(), std::mem::take(&mut self.batch));
        if reset.is_some() || !batch.is_empty() {
            self.take(|wanted| {
                if let Some(reset) = reset {
                    *wanted = Arc::new(*reset);
                }
                let desired = Arc::make_mut(wanted);
                batch.iter().flat_map(|entry| &entry.changes).for_each(|change| desired.apply(change));
            });
        }
        if std::mem::take(&mut self.owes)
            && let Some(position) = self.verifier.position()
        {
            self.board.applied(position);
        }
        Ok(())
    }

    /// Takes one line in, or says why not.
    async fn line(&mut self, line: Bytes) -> Result<(), Ended> {
        let accepted = if line.len() <= limits::LINE_BYTES_INLINE {
            self.verifier.accept(&line)
        } else {
            let mut verifier = self.verifier.clone();
            let checked = tokio::task::spawn_blocking(move || (verifier.accept(&line), verifier)).await;
            let (accepted, verifier) = checked.map_err(|error| Ended::Lost(error.to_string()))?;
            self.verifier = verifier;
            accepted
        };
        let accepted = accepted.map_err(Ended::Refused)?;
        if let Some(position) = self.verifier.position() {
            self.peers.hears(position);
        }
        match accepted {
            Accepted::Entry(entry) => self.entry(*entry)?,
            Accepted::Reset(desired) => {
                tracing::info!(position = ?self.verifier.position(), "took the registry's snapshot");
                // Purges may be among what the snapshot stands for.
                if let Some(position) = self.verifier.position() {
                    self.journal.lock().missed(position, self.clock.now());
                }
                self.owes = true;
                self.batch.clear();
                self.reset = Some(desired);
            }
            // Up to date, nothing is refused any more.
            Accepted::Heartbeat { .. } => self.board.takes_feed(),
            // Neither says that this follower, who may lack purges, has all that the registry has: it does not count as heard.
            Accepted::Question(question) => {
                self.inbox.put(*question);
                return Ok(());
            }
            Accepted::Elsewhere { seq } => {
                tracing::debug!(seq, "a heartbeat of another place in the log, or an old one");
                return Ok(());
            }
        }
        if let Some(position) = self.verifier.position() {
            self.peers.applied(position);
        }
        self.board.link(Link::Following);
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<(), Ended> {
        for change in &entry.changes {
            if let (Change::Purged(purge), Some(position)) = (change, self.verifier.position()) {
                let purge = spelling::as_stored(purge, &self.routes.load());
                self.journal.lock().apply(&position.epoch, position.seq, &purge, self.clock.now());
                self.owes = true;
            }
        }
        let of_this_node = |change: &Change| matches!(change, Change::NodeRemoved { node } if *node == self.node);
        let removed = entry.changes.iter().any(of_this_node).then(|| format!("removed by {}", entry.actor));
        self.batch.push(entry);
        removed.map_or(Ok(()), |reason| Err(Ended::Removed(reason)))
    }

    fn take(&self, change: impl FnOnce(&mut Arc<Desired>)) {
        self.board.takes_feed();
        self.wanted.send_modify(|wanted| {
            change(&mut wanted.desired);
            wanted.position = self.verifier.position().cloned();
            self.peers.update(&wanted.desired.peers);
        });
    }
}

fn ended(error: ClientError) -> Ended {
    match &error {
        _ if error.is_revoked() => Ended::Removed(error.to_string()),
        ClientError::Refused { .. } if !error.is_transient() => Ended::Denied(error),
        _ => Ended::Lost(error.to_string()),
    }
}

fn next_wait(wait: Duration) -> Duration {
    (wait * 2).min(limits::RECONNECT_MAX)
}
