//! Follows the registry's feed: opens it where the node stands, checks every line, takes it into the wanted state. A line that does not
//! verify changes nothing; the reason is reported, and the feed is opened again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use selvedge_origin::client::{Client, ClientError};
use selvedge_origin::feed::{Accepted, FeedError, FeedVerifier, Position};
use selvedge_origin::keys::PublicKey;
use selvedge_origin::registry::{Change, Desired, Entry, NodeName};
use tokio::sync::watch;

use super::report::Board;
use super::{Link, REVOKED, limits};
use crate::peers::Peers;

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
    ) -> Self {
        let verifier = FeedVerifier::new(key, wanted.borrow().position.clone());
        Self { client, node, verifier, wanted, board, peers }
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
                    self.board.feed_refusal(Some(error.to_string()));
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
            tokio::time::sleep(wait.mul_f64(0.5 + crate::routes::draw() / 2.0)).await;
            wait = next_wait(wait);
        }
    }

    /// Follows one opening of the feed to its end; counts the lines that were taken.
    async fn session(&mut self, taken: &mut u64) -> Ended {
        let mut lines = match self.client.feed(self.verifier.position()).await {
            Ok(lines) => lines,
            Err(error) => return ended(error),
        };
        loop {
            match lines.next().await {
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
            Accepted::Entry(entry) => self.entry(&entry)?,
            Accepted::Reset(desired) => {
                tracing::info!(position = ?self.verifier.position(), "took the registry's snapshot");
                self.take(|wanted| *wanted = Arc::new(*desired));
            }
            // Something is being held back where the registry is ahead of a follower that has read all before this line; the next opening of the
            // feed tells. Up to date, nothing is refused any more.
            Accepted::Heartbeat { seq, .. } if self.verifier.position().is_some_and(|position| position.seq < seq) => {
                tracing::debug!(seq, "the registry is ahead");
            }
            Accepted::Heartbeat { .. } => self.board.feed_refusal(None),
        }
        if let Some(position) = self.verifier.position() {
            self.peers.applied(position);
        }
        self.board.link(Link::Following);
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Ended> {
        self.take(|wanted| {
            let desired = Arc::make_mut(wanted);
            for change in &entry.changes {
                desired.apply(change);
            }
        });
        let of_this_node = |change: &Change| matches!(change, Change::NodeRemoved { node } if *node == self.node);
        match entry.changes.iter().any(of_this_node) {
            true => Err(Ended::Removed(format!("removed by {}", entry.actor))),
            false => Ok(()),
        }
    }

    fn take(&self, change: impl FnOnce(&mut Arc<Desired>)) {
        self.board.feed_refusal(None);
        self.wanted.send_modify(|wanted| {
            change(&mut wanted.desired);
            wanted.position = self.verifier.position().cloned();
            self.peers.update(&wanted.desired.peers);
        });
    }
}

fn ended(error: ClientError) -> Ended {
    match &error {
        _ if error.code() == Some(REVOKED) => Ended::Removed(error.to_string()),
        ClientError::Refused { .. } if !error.is_transient() => Ended::Denied(error),
        _ => Ended::Lost(error.to_string()),
    }
}

fn next_wait(wait: Duration) -> Duration {
    (wait * 2).min(limits::RECONNECT_MAX)
}
