//! What a node checks of each line before it applies anything: pure, lines in, verdicts out.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::encode::{entry_message, heartbeat_message, question_message, reset_message};
use super::{Position, next_chain};
use crate::api::wire::Question;
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
    /// Nothing new: this follower has all that the registry has.
    Heartbeat {
        /// The registry's last entry.
        seq: u64,
        /// The registry's clock, Unix time in milliseconds; later than that of every heartbeat before that was of this entry.
        at_ms: u64,
    },
    /// Something to answer; no part of the log.
    Question(Box<Question>),
    /// A sign of life that says nothing of this follower: of another place in the log, or one that is no later than the last. Something is held back, or said again.
    Elsewhere {
        /// The entry that it names.
        seq: u64,
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
    #[serde(borrow)]
    question: Option<&'a RawValue>,
    sig: Signature,
}

/// Follows one registry's log, line by line.
#[derive(Debug, Clone)]
pub struct FeedVerifier {
    key: PublicKey,
    position: Option<Position>,
    /// The registry's time in its last heartbeat of this position.
    heard_ms: u64,
}

impl FeedVerifier {
    /// Continues at `position`; without one, the first frame must be a reset.
    pub fn new(key: PublicKey, position: Option<Position>) -> Self {
        Self { key, position, heard_ms: 0 }
    }

    /// Where it stands.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// The registry's time in its last heartbeat, Unix time in milliseconds; 0: none was heard since the last entry.
    pub fn heard_ms(&self) -> u64 {
        self.heard_ms
    }

    /// Checks one line, without or with its line feed: signature first, then place, then content. Moves on only where all hold.
    pub fn accept(&mut self, line: &[u8]) -> Result<Accepted, FeedError> {
        if line.len() > FEED_LINE_BYTES_MAX {
            return Err(FeedError::TooLong { bytes_len: line.len() });
        }
        let malformed = |error: serde_json::Error| FeedError::Malformed(error.to_string());
        // serde would take an array for a struct, by position.
        if !line.starts_with(b"{") {
            return Err(FeedError::Malformed("not a JSON object".to_owned()));
        }
        let line: Line<'_> = serde_json::from_slice(line).map_err(malformed)?;
        let Line { epoch, seq, chain, entry, reset, heartbeat, question, sig } = line;
        let position = Position { epoch, seq, chain };
        match (entry, reset, heartbeat, question) {
            (Some(entry), None, None, None) => {
                self.signed(Purpose::FeedEntry, &entry_message(&position), &position, &sig)?;
                self.next_entry(&position, entry.get().as_bytes())?;
                let entry = serde_json::from_str(entry.get()).map_err(malformed)?;
                self.stand(position);
                Ok(Accepted::Entry(entry))
            }
            (None, Some(state), None, None) => {
                self.signed(Purpose::FeedReset, &reset_message(&position, state.get().as_bytes()), &position, &sig)?;
                self.newer(&position)?;
                let state = serde_json::from_str(state.get()).map_err(malformed)?;
                self.stand(position);
                Ok(Accepted::Reset(state))
            }
            (None, None, Some(at_ms), None) => {
                self.signed(Purpose::FeedHeartbeat, &heartbeat_message(&position, at_ms), &position, &sig)?;
                let seq = position.seq;
                if self.position.as_ref() != Some(&position) || at_ms <= self.heard_ms {
                    return Ok(Accepted::Elsewhere { seq });
                }
                self.heard_ms = at_ms;
                Ok(Accepted::Heartbeat { seq, at_ms })
            }
            (None, None, None, Some(question)) => {
                let message = question_message(&position, question.get().as_bytes());
                self.signed(Purpose::FeedQuestion, &message, &position, &sig)?;
                Ok(Accepted::Question(serde_json::from_str(question.get()).map_err(malformed)?))
            }
            _ => Err(FeedError::Malformed("a frame is one of entry, reset, heartbeat and question".to_owned())),
        }
    }

    /// Heartbeats are of one place in the log: those of this one cannot be older than it, whatever was heard before.
    fn stand(&mut self, position: Position) {
        if self.position.as_ref() != Some(&position) {
            self.heard_ms = 0;
        }
        self.position = Some(position);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::FeedSigner;
    use crate::keys::SigningKey;

    /// A registry's log as a node gets it: a reset, then entries.
    struct Log {
        key: SigningKey,
        at: Position,
    }

    impl Log {
        fn new() -> Self {
            let key = SigningKey::generate().expect("random bytes");
            Self { key, at: Position { epoch: Epoch::generate(), seq: 7, chain: Digest::of(b"before") } }
        }

        fn reset(&self) -> Vec<u8> {
            FeedSigner::new(&self.key).reset(&self.at, &Desired::default()).expect("a line").to_vec()
        }

        fn entry(&mut self, reason: &str) -> Vec<u8> {
            let entry = Entry { at_ms: 1, actor: "admin".into(), reason: Some(reason.into()), changes: vec![], before: vec![] };
            let bytes = serde_json::to_vec(&entry).expect("JSON");
            self.at = Position { seq: self.at.seq + 1, chain: next_chain(&self.at.chain, &bytes), ..self.at.clone() };
            FeedSigner::new(&self.key).entry(&self.at, &bytes).expect("a line").to_vec()
        }

        fn heartbeat(&self, now_ms: u64) -> Vec<u8> {
            FeedSigner::new(&self.key).heartbeat(&self.at, now_ms).expect("a line").to_vec()
        }

        fn question(&self) -> Vec<u8> {
            FeedSigner::new(&self.key).question(&self.at, br#"{"id":"q","ask":{"upstreams":{}}}"#).expect("a line").to_vec()
        }

        fn follower(&self) -> FeedVerifier {
            let mut verifier = FeedVerifier::new(self.key.public(), None);
            verifier.accept(&self.reset()).expect("signed");
            verifier
        }
    }

    fn replace(line: &[u8], from: &str, to: &str) -> Vec<u8> {
        let text = String::from_utf8(line.to_vec()).expect("JSON");
        assert!(text.contains(from), "{text}");
        text.replacen(from, to, 1).into_bytes()
    }

    #[test]
    fn entries_in_order_are_accepted_with_and_without_line_feed() {
        let mut log = Log::new();
        let mut verifier = log.follower();
        for reason in ["one", "two", "three"] {
            let line = log.entry(reason);
            let Accepted::Entry(entry) = verifier.accept(line.trim_ascii_end()).expect("signed") else { panic!("an entry") };
            assert_eq!(entry.reason.as_deref(), Some(reason));
            assert_eq!(verifier.position(), Some(&log.at));
        }
        assert_eq!(verifier.accept(&log.heartbeat(5)), Ok(Accepted::Heartbeat { seq: 10, at_ms: 5 }));
    }

    #[test]
    fn an_old_sign_of_life_or_one_of_another_place_is_no_new_one() {
        let mut log = Log::new();
        let mut verifier = log.follower();
        let old = log.heartbeat(5);
        assert_eq!(verifier.accept(&old), Ok(Accepted::Heartbeat { seq: 7, at_ms: 5 }));
        assert_eq!(verifier.accept(&old), Ok(Accepted::Elsewhere { seq: 7 }), "said again");
        let entry = log.entry("held back");
        assert_eq!(verifier.accept(&log.heartbeat(6)), Ok(Accepted::Elsewhere { seq: 8 }), "the registry is ahead");
        verifier.accept(&entry).expect("the next one");
        assert_eq!(verifier.accept(&old), Ok(Accepted::Elsewhere { seq: 7 }));
        assert_eq!(verifier.accept(&log.heartbeat(6)), Ok(Accepted::Heartbeat { seq: 8, at_ms: 6 }));
        // A registry that was started anew, with an earlier clock.
        verifier.accept(&log.entry("next")).expect("the next one");
        assert_eq!(verifier.accept(&log.heartbeat(2)), Ok(Accepted::Heartbeat { seq: 9, at_ms: 2 }), "nobody can have kept it from before");
        verifier.accept(&log.reset()).expect("of the same place");
        assert_eq!(verifier.accept(&log.heartbeat(2)), Ok(Accepted::Elsewhere { seq: 9 }), "said again");
    }

    #[test]
    fn a_tampered_entry_is_refused() {
        let mut log = Log::new();
        let mut verifier = log.follower();
        let line = log.entry("pay alice");
        let before = verifier.position().cloned();
        assert_eq!(verifier.accept(&replace(&line, "alice", "mally")), Err(FeedError::Chain { seq: 8 }));
        assert_eq!(verifier.accept(&replace(&line, "{\"at_ms\"", "{ \"at_ms\"")), Err(FeedError::Chain { seq: 8 }), "the bytes count");
        assert_eq!(verifier.accept(&replace(&line, "\"seq\":8", "\"seq\":9")), Err(FeedError::Forged { seq: 9 }));
        let chain = log.at.chain.to_string();
        assert_eq!(verifier.accept(&replace(&line, &chain, &Digest::zero().to_string())), Err(FeedError::Forged { seq: 8 }));
        assert_eq!(verifier.position().cloned(), before, "a refused frame moves nothing");
        verifier.accept(&line).expect("the true one is still welcome");
    }

    #[test]
    fn reordered_repeated_and_missing_entries_are_refused() {
        let mut log = Log::new();
        let mut verifier = log.follower();
        let (first, second) = (log.entry("one"), log.entry("two"));
        assert_eq!(verifier.accept(&second), Err(FeedError::Order { got: 9, expected: 8 }));
        verifier.accept(&first).expect("the next one");
        assert_eq!(verifier.accept(&first), Err(FeedError::Order { got: 8, expected: 9 }));
        verifier.accept(&second).expect("the next one");
    }

    #[test]
    fn another_key_another_log_and_another_epoch_are_refused() {
        let mut log = Log::new();
        let mut other = Log::new();
        let mut verifier = log.follower();
        assert_eq!(verifier.accept(&other.entry("forged")), Err(FeedError::Forged { seq: 8 }));
        assert_eq!(verifier.accept(&other.reset()), Err(FeedError::Forged { seq: 8 }));
        assert_eq!(verifier.accept(&other.heartbeat(5)), Err(FeedError::Forged { seq: 8 }));
        log.at.epoch = Epoch::generate();
        assert!(matches!(verifier.accept(&log.entry("later life")), Err(FeedError::OtherEpoch { seq: 8, .. })));
    }

    #[test]
    fn a_registry_that_lost_entries_is_noticed() {
        let mut log = Log::new();
        let mut verifier = log.follower();
        let restored = log.at.clone();
        verifier.accept(&log.entry("acknowledged")).expect("the next one");
        verifier.accept(&log.entry("lost")).expect("the next one");
        log.at = restored;
        log.entry("something else");
        log.entry("again");
        assert_eq!(verifier.accept(&log.entry("more")), Err(FeedError::Chain { seq: 10 }));
        log.at.seq = 8;
        assert!(matches!(verifier.accept(&log.reset()), Err(FeedError::Rewind { seq: 8, .. })));
    }

    #[test]
    fn an_old_snapshot_does_not_roll_a_node_back() {
        let mut log = Log::new();
        let old = log.reset();
        let mut verifier = log.follower();
        verifier.accept(&log.entry("one")).expect("the next one");
        assert!(matches!(verifier.accept(&old), Err(FeedError::Rewind { seq: 7, .. })));
        let earlier = log.at.clone();
        log.at = Position { epoch: Epoch::generate(), seq: 1, chain: Digest::zero() };
        verifier.accept(&log.reset()).expect("a later epoch begins anew");
        log.at = earlier;
        assert!(matches!(verifier.accept(&log.reset()), Err(FeedError::Rewind { .. })), "and there is no way back");
    }

    #[test]
    fn a_snapshot_is_signed_with_its_content() {
        let log = Log::new();
        let mut verifier = FeedVerifier::new(log.key.public(), None);
        let line = replace(&log.reset(), "\"workers\":{}", "\"workers\": {}");
        assert_eq!(verifier.accept(&line), Err(FeedError::Forged { seq: 7 }));
        assert!(verifier.position().is_none());
    }

    #[test]
    fn nothing_is_applied_before_the_first_snapshot() {
        let mut log = Log::new();
        let mut verifier = FeedVerifier::new(log.key.public(), None);
        assert_eq!(verifier.accept(&log.entry("early")), Err(FeedError::NoState { seq: 8 }));
    }

    #[test]
    fn a_question_is_no_part_of_the_log() {
        use crate::api::wire::{Ask, Question};
        let mut log = Log::new();
        let mut verifier = log.follower();
        let before = verifier.position().cloned();
        let accepted = verifier.accept(&log.question()).expect("signed");
        let expected = Question { id: "q".parse().expect("an id"), ask: Some(Ask::Upstreams {}) };
        assert_eq!(accepted, Accepted::Question(Box::new(expected)));
        assert_eq!(verifier.position(), before.as_ref());
        verifier.accept(&log.entry("next")).expect("the next one");
    }

    #[test]
    fn one_kind_of_frame_does_not_pass_for_another() {
        let mut log = Log::new();
        let mut verifier = log.follower();
        let entry = log.entry("{}");
        for line in [
            replace(&entry, "\"entry\"", "\"reset\""),
            replace(&log.reset(), "\"reset\"", "\"entry\""),
            replace(&log.heartbeat(5), "\"heartbeat\":5", "\"heartbeat\":6"),
            replace(&log.heartbeat(5), "\"heartbeat\":5", "\"reset\":5"),
            replace(&log.question(), "\"question\"", "\"reset\""),
            replace(&log.question(), "upstreams", "upstreamz"),
        ] {
            assert!(matches!(verifier.accept(&line), Err(FeedError::Forged { .. })), "{}", String::from_utf8_lossy(&line));
        }
    }

    #[test]
    fn malformed_lines_are_refused() {
        let log = Log::new();
        let mut verifier = log.follower();
        let heartbeat = log.heartbeat(5);
        let both = replace(&heartbeat, "\"heartbeat\":5", "\"heartbeat\":5,\"entry\":{}");
        let none = replace(&heartbeat, "\"heartbeat\":5,", "");
        let extra = replace(&heartbeat, "{", "{\"extra\":1,");
        let twice = replace(&heartbeat, "{", "{\"seq\":1,");
        let cut = heartbeat[..heartbeat.len() / 2].to_vec();
        for line in [b"".to_vec(), b"null".to_vec(), b"\xff".to_vec(), both, none, extra, twice, cut] {
            assert!(matches!(verifier.accept(&line), Err(FeedError::Malformed(_))), "{}", String::from_utf8_lossy(&line));
        }
    }
}
