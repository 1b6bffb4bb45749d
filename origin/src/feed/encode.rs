//! Frames of the feed, signed: the registry's side.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Position;
use crate::keys::{Purpose, Signature, SigningKey};
use crate::registry::{Desired, Digest};

/// Makes signed lines of the feed. A line ends with its line feed.
pub struct FeedSigner<'a> {
    key: &'a SigningKey,
}

#[derive(Serialize)]
struct Line<'a> {
    epoch: &'a str,
    seq: u64,
    chain: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<&'a RawValue>,
    sig: Signature,
}

impl<'a> FeedSigner<'a> {
    /// Signs with the registry's key.
    pub fn new(key: &'a SigningKey) -> Self {
        Self { key }
    }

    /// The entry that leads to `position`; `entry` holds its bytes in the log.
    pub fn entry(&self, position: &Position, entry: &[u8]) -> Result<Bytes, serde_json::Error> {
        let raw: &RawValue = serde_json::from_slice(entry)?;
        let sig = self.key.sign(Purpose::FeedEntry, entry_message(position).as_bytes());
        line(&Line { entry: Some(raw), ..Line::at(position, sig) })
    }

    /// The desired state at `position`.
    pub fn reset(&self, position: &Position, desired: &Desired) -> Result<Bytes, serde_json::Error> {
        self.reset_of(position, &serde_json::to_vec(desired)?)
    }

    /// Whatever these bytes are, as the desired state.
    pub(super) fn reset_of(&self, position: &Position, state: &[u8]) -> Result<Bytes, serde_json::Error> {
        let sig = self.key.sign(Purpose::FeedReset, reset_message(position, state).as_bytes());
        let raw: &RawValue = serde_json::from_slice(state)?;
        line(&Line { reset: Some(raw), ..Line::at(position, sig) })
    }

    /// Nothing new at `position`, at the registry's time `now_ms`.
    pub fn heartbeat(&self, position: &Position, now_ms: u64) -> Result<Bytes, serde_json::Error> {
        let sig = self.key.sign(Purpose::FeedHeartbeat, heartbeat_message(position, now_ms).as_bytes());
        line(&Line { heartbeat: Some(now_ms), ..Line::at(position, sig) })
    }

    /// A question (JSON), asked at `position`.
    pub fn question(&self, position: &Position, question: &[u8]) -> Result<Bytes, serde_json::Error> {
        let raw: &RawValue = serde_json::from_slice(question)?;
        let sig = self.key.sign(Purpose::FeedQuestion, question_message(position, raw.get().as_bytes()).as_bytes());
        line(&Line { question: Some(raw), ..Line::at(position, sig) })
    }
}

impl<'a> Line<'a> {
    fn at(position: &'a Position, sig: Signature) -> Self {
        let Position { epoch, seq, chain } = position;
        Self { epoch: epoch.as_str(), seq: *seq, chain: chain.as_str(), entry: None, reset: None, heartbeat: None, question: None, sig }
    }
}

fn line(line: &Line<'_>) -> Result<Bytes, serde_json::Error> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes.into())
}

/// The chain binds the entry's bytes and all entries before it.
pub(super) fn entry_message(position: &Position) -> String {
    format!("{}\n{}\n{}", position.epoch, position.seq, position.chain)
}

/// No chain leads to a snapshot, so its digest is signed.
pub(super) fn reset_message(position: &Position, state: &[u8]) -> String {
    format!("{}\n{}", entry_message(position), Digest::of(state))
}

/// The time is signed, so that an old sign of life is not taken for a new one.
pub(super) fn heartbeat_message(position: &Position, now_ms: u64) -> String {
    format!("{}\n{now_ms}", entry_message(position))
}

/// A question is no part of the log: its digest is signed, with where it was asked.
pub(super) fn question_message(position: &Position, question: &[u8]) -> String {
    reset_message(position, question)
}
