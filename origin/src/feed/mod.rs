//! The resumable stream that nodes follow: one JSON object per line, each signed by the registry.
//!
//! ```text
//! {"epoch":E,"seq":N,"chain":C,"entry":{..},"sig":S}      the log's entry N; C = SHA-256(chain of N-1 ‖ bytes of the entry)
//! {"epoch":E,"seq":N,"chain":C,"reset":{..},"sig":S}      the desired state after entry N: the follower's position is of no use
//! {"epoch":E,"seq":N,"chain":C,"heartbeat":T,"sig":S}     nothing new at time T; every 5 s
//! {"epoch":E,"seq":N,"chain":C,"question":{..},"sig":S}   of an operator; no part of the log, and only for nodes that say that they take some
//! ```
//!
//! The entry's bytes are taken as they were received, so no two parsers can disagree about what was signed.

mod encode;
mod verify;

pub use encode::FeedSigner;
pub use verify::{Accepted, FeedError, FeedVerifier};

use serde::{Deserialize, Serialize};

use crate::registry::{Digest, Epoch};

/// The field by which a node that opens the feed says which kinds of frames it takes beside those that every release knows.
pub const KINDS: http::HeaderName = http::HeaderName::from_static("selvedge-feed-kinds");
/// Its value: questions.
pub const QUESTION: http::HeaderValue = http::HeaderValue::from_static("question");

/// The field in which a node that opens the feed says what time the registry gave in the last heartbeat that it heard: the next is later, also where the registry
/// was started anew with a clock that is not.
pub const HEARD: http::HeaderName = http::HeaderName::from_static("selvedge-feed-heard");

/// A place in a log: after entry `seq` of `epoch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The log's life.
    pub epoch: Epoch,
    /// The last entry.
    pub seq: u64,
    /// The chain's value after it.
    pub chain: Digest,
}

/// The chain's next value.
pub fn next_chain(chain: &Digest, entry: &[u8]) -> Digest {
    Digest::of(&[chain.as_str().as_bytes(), entry].concat())
}

/// For fuzzing: gives each line of the bytes to a verifier, as it is (nothing may be accepted that is not signed), and as the content of
/// frames that are signed (what is signed may still be malformed, and nothing else).
pub fn fuzz(bytes: &[u8]) {
    static FIXED: std::sync::OnceLock<Option<(crate::keys::SigningKey, Epoch)>> = std::sync::OnceLock::new();
    let fixed = FIXED.get_or_init(|| Some((crate::keys::SigningKey::generate().ok()?, Epoch::generate())));
    let Some((key, epoch)) = fixed else { return };
    let mut verifier = FeedVerifier::new(key.public(), None);
    for line in bytes.split(|byte| *byte == b'\n') {
        assert!(verifier.accept(line).is_err(), "nobody has signed it");
        let signer = FeedSigner::new(key);
        if let Ok(frame) = signer.question(&Position { epoch: epoch.clone(), seq: 1, chain: Digest::zero() }, line) {
            let accepted = verifier.accept(&frame);
            assert!(
                matches!(accepted, Ok(Accepted::Question(_)) | Err(FeedError::Malformed(_) | FeedError::Forged { .. })),
                "{accepted:?}"
            );
            assert!(verifier.position().is_none(), "a question is no part of the log");
        }
        let at = Position { epoch: epoch.clone(), seq: 1, chain: Digest::zero() };
        if let Ok(frame) = signer.reset_of(&at, line) {
            match FeedVerifier::new(key.public(), None).accept(&frame) {
                // What a node takes for the desired state, it can write down and read again.
                Ok(Accepted::Reset(desired)) => {
                    let text = serde_json::to_vec(&desired).unwrap_or_default();
                    assert_eq!(serde_json::from_slice(&text).ok().as_ref(), Some(&desired), "not read as written");
                }
                // White space around it is no part of what was signed.
                accepted => assert!(matches!(accepted, Err(FeedError::Malformed(_) | FeedError::Forged { .. })), "{accepted:?}"),
            }
        }
        let next = Position { epoch: epoch.clone(), seq: 2, chain: next_chain(&at.chain, line) };
        let mut verifier = FeedVerifier::new(key.public(), Some(at));
        let before = verifier.position().cloned();
        // A line that is no JSON has no frame.
        let Ok(frame) = signer.entry(&next, line) else { continue };
        match verifier.accept(&frame) {
            Ok(_) => assert_eq!(verifier.position(), Some(&next)),
            // White space around the entry is no part of it once it is in a frame: another chain.
            Err(FeedError::Malformed(_) | FeedError::Chain { .. }) => assert_eq!(verifier.position(), before.as_ref()),
            Err(error) => panic!("{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    /// Changes bytes of a seed in ways that depend on `round` alone.
    fn mutated(seed: &[u8], round: u64) -> Vec<u8> {
        let mut state = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below.max(1) as u64).unwrap_or(0)
        };
        let mut bytes = seed.to_vec();
        for _ in 0..next(4) {
            let at = next(bytes.len());
            match next(3) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, b"{}[]\",:0\\ n"[next(11)]),
                _ => bytes.get_mut(at).into_iter().for_each(|byte| *byte = b"{}[]\",:0\\ n"[round as usize % 11]),
            }
        }
        bytes
    }

    #[test]
    fn mutated_lines_and_manifests_are_refused_or_survive() {
        let entry = br#"{"at_ms":1,"actor":"admin","reason":null,"changes":[{"node_removed":{"node":"edge-1"}}]}"#;
        let module = |name: &str| crate::bundle::PackModule {
            specifier: name.into(),
            kind: crate::bundle::ModuleKind::EsModule,
            bytes: bytes::Bytes::from_static(b"export default 1"),
            source_map: None,
        };
        let manifest = crate::bundle::pack("a.js", vec![module("a.js"), module("b.js")]).expect("a bundle").manifest.encode();
        for round in 0..2_000 {
            super::fuzz(&mutated(entry, round));
            crate::bundle::fuzz(&mutated(&manifest, round));
        }
    }
}
