//! The feed's endpoint: a body that ends with the registry, or with the node's removal.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Frame;
use tokio_util::sync::CancellationToken;

use super::body::parameter;
use super::desk::Seat;
use super::life::Life;
use super::reply::{self, Answer, ApiError};
use super::{Api, Asked, Caller};
use crate::feed::{FeedSigner, HEARD, KINDS, Position, QUESTION};
use crate::keys::PublicKey;
use crate::ledger::{Ledger, LedgerError};
use crate::limits::{FEED_BATCH, FEED_HEARTBEAT, HEARD_AHEAD_MAX};
use crate::registry::{Digest, Epoch, NodeName};

impl Api {
    pub(super) async fn feed(&self, asked: &Asked, life: &Life) -> Answer {
        let Caller::Node(node, key) = &asked.caller else { return Err(ApiError::Forbidden("only nodes follow".to_owned())) };
        let [epoch, after, chain] = asked.query(["epoch", "after", "chain"])?;
        let epoch: Option<Epoch> = parameter("epoch", epoch)?;
        let seq: Option<u64> = parameter("after", after)?;
        let chain: Option<Digest> = parameter("chain", chain)?;
        let position = match (epoch, seq, chain) {
            (Some(epoch), Some(seq), Some(chain)) => Some(Position { epoch, seq, chain }),
            (None, None, None) => None,
            _ => return Err(ApiError::Malformed("epoch, after and chain go together".to_owned())),
        };
        let at = self.usable(position).await?;
        let permit = Arc::new(Permit::new(&self.ledger, node, *key));
        life.follows(&permit);
        let follower = Follower {
            ledger: self.ledger.clone(),
            stop: self.stop.clone(),
            node: node.clone(),
            permit,
            at,
            ready: VecDeque::new(),
            greeted: false,
            heard_ms: heard_ms(&asked.head.headers),
            seat: self.desk.seat(node, takes_questions(&asked.head.headers)),
            _open: OpenFeed::new(&self.ledger, node),
        };
        let lines = futures::stream::unfold(follower, |mut follower| async move {
            let line = follower.next().await?;
            Some((Ok(Frame::data(line)), follower))
        });
        Ok(reply::streamed("application/x-ndjson", None, lines))
    }

    /// A node's position, where the log leads on from it.
    pub(super) async fn usable(&self, position: Option<Position>) -> Result<Option<Position>, ApiError> {
        let head = self.ledger.meta().head();
        let Some(position) = position.filter(|position| position.epoch == head.epoch) else { return Ok(None) };
        let leads_on = self.ledger.meta().chain_at(position.seq).await?.as_ref() == Some(&position.chain);
        Ok(leads_on.then_some(position))
    }
}

/// Whether a node says that it takes questions: earlier releases refuse a feed with frames that they do not know.
fn takes_questions(headers: &http::HeaderMap) -> bool {
    headers.get_all(KINDS).iter().any(|kinds| kinds == QUESTION)
}

/// What a node says that it has heard.
fn heard_ms(headers: &http::HeaderMap) -> u64 {
    headers.get(HEARD).and_then(|heard| heard.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// The time of the next heartbeat: later than what was heard, so that a node with a registry whose clock was put back takes it. But a member may say that it has heard
/// anything, and what is signed for it is true for every node at the same place of the log, if it gets there. So it is never later than a bound that moves on with
/// the clock: a node that was made to take the latest is heard with it again, and is told of a later one.
fn next_heard_ms(heard_ms: u64, now_ms: u64) -> u64 {
    let latest = now_ms.saturating_add(u64::try_from(HEARD_AHEAD_MAX.as_millis()).unwrap_or(u64::MAX));
    heard_ms.saturating_add(1).clamp(now_ms, latest)
}

/// One node's way through the log.
struct Follower {
    ledger: Arc<Ledger>,
    stop: CancellationToken,
    node: NodeName,
    permit: Arc<Permit>,
    /// Where it stands; `None`: it needs a snapshot.
    at: Option<Position>,
    ready: VecDeque<Bytes>,
    /// Whether it has heard anything yet: the first line comes at once, so that it knows that it is connected.
    greeted: bool,
    /// The time of the last heartbeat, or what the node says of it: the next is later, within [`HEARD_AHEAD_MAX`].
    heard_ms: u64,
    /// Where it is asked questions.
    seat: Seat,
    _open: OpenFeed,
}

/// What a feed may go on by, as long as the node's name is this key's.
pub(super) struct Permit {
    ledger: Arc<Ledger>,
    node: NodeName,
    key: PublicKey,
    /// When it was first found to have ended.
    ended: OnceLock<Instant>,
}

impl Permit {
    fn new(ledger: &Arc<Ledger>, node: &NodeName, key: PublicKey) -> Self {
        Self { ledger: ledger.clone(), node: node.clone(), key, ended: OnceLock::new() }
    }

    fn holds(&self) -> bool {
        self.ledger.read(|state, _| state.nodes().get(&self.node).is_some_and(|known| known.key == self.key))
    }

    /// Whether it does not hold any more, and was found so for this long.
    pub(super) fn has_ended_for(&self, bound: Duration) -> bool {
        !self.holds() && self.ended.get_or_init(Instant::now).elapsed() >= bound
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({})", self.node)
    }
}

/// A feed counts as open until it is dropped.
struct OpenFeed {
    ledger: Arc<Ledger>,
    node: NodeName,
    number: u64,
}

impl OpenFeed {
    fn new(ledger: &Arc<Ledger>, node: &NodeName) -> Self {
        let number = ledger.followers(|followers, _| followers.opened(node));
        Self { ledger: ledger.clone(), node: node.clone(), number }
    }
}

impl Drop for OpenFeed {
    fn drop(&mut self) {
        let now_ms = self.ledger.now_ms();
        self.ledger.followers(|followers, _| followers.closed(&self.node, self.number, now_ms));
        self.ledger.announce();
    }
}

impl Follower {
    /// The next line; `None` ends the feed.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.stop.is_cancelled() || !self.permit.holds() {
                return None;
            }
            if let Some(line) = self.ready.pop_front() {
                self.greeted = true;
                return Some(line);
            }
            if let Err(error) = self.fill().await {
                tracing::error!(node = %self.node, error = %error, "the feed ends early");
                return None;
            }
        }
    }

    /// Makes at least one line ready, or waits for something to tell.
    async fn fill(&mut self) -> Result<(), LedgerError> {
        let internal = |error: serde_json::Error| LedgerError::Internal(error.to_string());
        let signer = FeedSigner::new(self.ledger.key());
        let Some(at) = self.at.clone() else {
            let ledger = self.ledger.clone();
            // A large state takes its time to write and to sign.
            let made = tokio::task::spawn_blocking(move || ledger.snapshot()).await;
            let (at, line) = made.map_err(|error| LedgerError::Internal(error.to_string()))??;
            self.ready.push_back(line);
            self.at = Some(at);
            return Ok(());
        };
        // A log that grows all the time must not keep questions waiting.
        if let Some(question) = self.seat.here() {
            self.ready.push_back(signer.question(&at, &question).map_err(internal)?);
            return Ok(());
        }
        let recent = self.ledger.recent_lines(&at);
        if let Some((last, _)) = recent.last() {
            self.at = Some(last.clone());
            self.ready.extend(recent.into_iter().map(|(_, line)| line));
            return Ok(());
        }
        // Before the log is read: a commit between the two must not look like a log that no longer reaches back.
        let head = self.ledger.meta().head();
        let entries = self.ledger.meta().read_log(at.seq, FEED_BATCH).await?;
        if entries.is_empty() {
            if head.seq > at.seq {
                // The log no longer reaches back to this follower.
                self.at = None;
                return Ok(());
            }
            let heartbeat = if self.greeted { FEED_HEARTBEAT } else { Duration::ZERO };
            let is_silent = tokio::select! {
                moved = self.ledger.wait(at.seq) => { moved?; false }
                () = self.stop.cancelled() => false,
                () = tokio::time::sleep(heartbeat) => true,
                question = self.seat.next() => {
                    self.ready.push_back(signer.question(&at, &question).map_err(internal)?);
                    false
                }
            };
            if is_silent {
                self.heard_ms = next_heard_ms(self.heard_ms, self.ledger.now_ms());
                self.ready.push_back(signer.heartbeat(&at, self.heard_ms).map_err(internal)?);
            }
            return Ok(());
        }
        for logged in entries {
            let position = Position { epoch: at.epoch.clone(), seq: logged.seq, chain: logged.chain };
            self.ready.push_back(signer.entry(&position, &logged.entry).map_err(internal)?);
            self.at = Some(position);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
