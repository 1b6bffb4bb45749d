//! What a node checks of each line before it applies anything: pure, lines in, verdicts out.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::encode::{entry_message, heartbeat_message, reset_message};
use super::{Position, next_chain};
use crate::keys::{PublicKey, Purpose, Signature};
use crate::limits::FEED_LINE_BYTES_MAX;
use crate::registry::{Desired, Digest, Entry, Epoch};

/// A line that holds, and what it says.
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// The next entry of the log.
    Entry(Box<Entry>),
    /// The desired state, instead of all that was before.
    Reset(Box<Desired>),
    /// Nothing new.
    Heartbeat {
        /// The registry's last entry.
        seq: u64,
        /// The registry's clock, Unix time in milliseconds.
        at_ms: u64,
    },
}

/// Why a line is refused. The verifier stays where it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// Longer than any frame.
    #[error("feed line of {bytes_len} bytes; {FEED_LINE_BYTES_MAX} are allowed")]
    TooLong {
        /// Its size.
        bytes_len: usize,
    },
    /// Not a frame.
    #[error("malformed feed frame: {0}")]
    Malformed(String),
    /// Not signed by the registry, or changed on the way.
    #[error("feed frame {seq} is not signed by the registry's key (forged or tampered)")]
    Forged {
        /// The number it claims.
        seq: u64,
    },
    /// An entry of another log.
    #[error("feed frame {seq} is of epoch {got}, this node follows {expected}")]
    OtherEpoch {
        /// The number it claims.
        seq: u64,
        /// Its epoch.
        got: Epoch,
        /// Ours.
        expected: Epoch,
    },
    /// An entry that is not the next one.
    #[error("feed frame {got} where {expected} is next (reordered, repeated or missing)")]
    Order {
        /// The number it claims.
        got: u64,
        /// The next number.
        expected: u64,
    },
    /// The right number, but not the entry that follows what this node has.
    #[error("feed frame {seq} does not follow from this node's log: its bytes, or entries before it, were changed (tampered)")]
    Chain {
        /// The number it claims.
        seq: u64,
    },
    /// A snapshot older than what this node has: it would roll the node back.
    #[error("feed reset to {epoch}/{seq} is older than this node's state")]
    Rewind {
        /// Its epoch.
        epoch: Epoch,
        /// Its number.
        seq: u64,
    },
    /// An entry before any snapshot.
    #[error("feed frame {seq} before the first reset")]
    NoState {
        /// The number it claims.
        seq: u64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    epoch: Epoch,
    seq: u64,
    chain: Digest,
    #[serde(borrow)]
    entry: Option<&'a RawValue>,
    #[serde(borrow)]
    reset: Option<&'a RawValue>,
    heartbeat: Option<u64>,
    sig: Signature,
}

/// Follows one registry's log, line by line.
#[derive(Debug, Clone)]
pub struct FeedVerifier {
    key: PublicKey,
    position: Option<Position>,
}

impl FeedVerifier {
    /// Continues at `position`; without one, the first frame must be a reset.
    pub fn new(key: PublicKey, position: Option<Position>) -> Self {
        Self { key, position }
    }

    /// Where it stands.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Checks one line, without or with its line feed: signature first, then place, then content. Moves on only where all hold.
    pub fn accept(&mut self, line: &[u8]) -> Result<Accepted, FeedError> {
        if line.len() > FEED_LINE_BYTES_MAX {
            return Err(FeedError::TooLong { bytes_len: line.len() });
        }
        let malformed = |error: serde_json::Error| FeedError::Malformed(error.to_string());
        let line: Line<'_> = serde_json::from_slice(line).map_err(malformed)?;
        let Line { epoch, seq, chain, entry, reset, heartbeat, sig } = line;
        let position = Position { epoch, seq, chain };
        match (entry, reset, heartbeat) {
            (Some(entry), None, None) => {
                self.signed(Purpose::FeedEntry, &entry_message(&position), &position, &sig)?;
                self.next_entry(&position, entry.get().as_bytes())?;
                let entry = serde_json::from_str(entry.get()).map_err(malformed)?;
                self.position = Some(position);
                Ok(Accepted::Entry(entry))
            }
            (None, Some(state), None) => {
                self.signed(Purpose::FeedReset, &reset_message(&position, state.get().as_bytes()), &position, &sig)?;
                self.newer(&position)?;
                let state = serde_json::from_str(state.get()).map_err(malformed)?;
                self.position = Some(position);
                Ok(Accepted::Reset(state))
            }
            (None, None, Some(at_ms)) => {
                self.signed(Purpose::FeedHeartbeat, &heartbeat_message(&position, at_ms), &position, &sig)?;
                Ok(Accepted::Heartbeat { seq: position.seq, at_ms })
            }
            _ => Err(FeedError::Malformed("a frame is one of entry, reset and heartbeat".to_owned())),
        }
    }

    fn signed(&self, purpose: Purpose, message: &str, position: &Position, sig: &Signature) -> Result<(), FeedError> {
        if self.key.verifies(purpose, message.as_bytes(), sig) { Ok(()) } else { Err(FeedError::Forged { seq: position.seq }) }
    }

    fn next_entry(&self, next: &Position, entry: &[u8]) -> Result<(), FeedError> {
        let Some(ours) = &self.position else { return Err(FeedError::NoState { seq: next.seq }) };
        if next.epoch != ours.epoch {
            return Err(FeedError::OtherEpoch { seq: next.seq, got: next.epoch.clone(), expected: ours.epoch.clone() });
        }
        let expected = ours.seq.saturating_add(1);
        if next.seq != expected {
            return Err(FeedError::Order { got: next.seq, expected });
        }
        if next_chain(&ours.chain, entry) != next.chain {
            // The signature covers the chain's value; other entry bytes give another value.
            return Err(FeedError::Chain { seq: next.seq });
        }
        Ok(())
    }

    /// A snapshot replaces a state of the same log that is not newer, or that of an earlier log.
    fn newer(&self, reset: &Position) -> Result<(), FeedError> {
        match &self.position {
            Some(ours) if reset.epoch < ours.epoch || (reset.epoch == ours.epoch && reset.seq < ours.seq) => {
                Err(FeedError::Rewind { epoch: reset.epoch.clone(), seq: reset.seq })
            }
            _ => Ok(()),
        }
    }
}
