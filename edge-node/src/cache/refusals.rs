//! Why the last answer of a key was not stored: for whoever asks later. A table of fixed size by hash of the key, written on refusals only, without a lock; a newer
//! refusal takes the place of an older one that falls on the same place.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::policy::Refusal;
use super::time::Time;
use crate::limits::REFUSALS_KEPT;

/// The last refusals.
#[derive(Debug)]
pub struct Refusals {
    /// Of the hashes: nobody outside can choose keys that push out another's.
    seed: u64,
    /// 24 bits of the key's hash, 8 of the reason (0: none), 32 of Unix seconds.
    places: Box<[AtomicU64]>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { seed: uuid::Uuid::new_v4().as_u64_pair().0, places: (0..REFUSALS_KEPT).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Refusals {
    /// An answer of a key was refused now.
    pub fn note(&self, key: &[u8], refusal: Refusal, now: Time) {
        let (tag, place) = self.find(key);
        let reason = Refusal::ALL.iter().position(|other| *other == refusal).map_or(0, |at| at as u64 + 1);
        if let Some(place) = place {
            place.store(tag | (reason & 0xff) << 32 | (now.0 / 1000) & 0xffff_ffff, Relaxed);
        }
    }

    /// Why the last answer of a key that was refused was, and when; none where that is not known any more. (Another key is taken for it with odds of 1 to 16 million.)
    pub fn last(&self, key: &[u8]) -> Option<(Refusal, Time)> {
        let (tag, place) = self.find(key);
        let noted = place?.load(Relaxed);
        let reason = usize::try_from(noted >> 32 & 0xff).ok()?.checked_sub(1)?;
        let refusal = *Refusal::ALL.get(reason).filter(|_| noted & TAG == tag)?;
        Some((refusal, Time((noted & 0xffff_ffff) * 1000)))
    }

    fn find(&self, key: &[u8]) -> (u64, Option<&AtomicU64>) {
        let hash = xxh3_64_with_seed(key, self.seed);
        let at = (hash & !TAG) % self.places.len().max(1) as u64;
        (hash & TAG, self.places.get(at as usize))
    }
}

/// The bits of a place that are the key's.
const TAG: u64 = 0xffff_ff00_0000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_refusal_of_a_key_is_known_and_the_table_does_not_grow() {
        let refusals = Refusals::default();
        let now = Time(1_700_000_000_000);
        assert_eq!(refusals.last(b"a"), None);
        refusals.note(b"a", Refusal::Private, now);
        refusals.note(b"a", Refusal::PassThrough, now.plus_ms(1000));
        assert_eq!(refusals.last(b"a"), Some((Refusal::PassThrough, now.plus_ms(1000))));
        for refusal in Refusal::ALL {
            refusals.note(b"b", refusal, now);
            assert_eq!(refusals.last(b"b"), Some((refusal, now)));
        }
        for number in 0..4 * REFUSALS_KEPT as u64 {
            refusals.note(&number.to_be_bytes(), Refusal::NoStore, now);
        }
        let known = (0..4 * REFUSALS_KEPT as u64).filter(|number| refusals.last(&number.to_be_bytes()).is_some()).count();
        assert!(known > REFUSALS_KEPT / 2 && known <= REFUSALS_KEPT, "{known}");
    }
}
