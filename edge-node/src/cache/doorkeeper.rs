//! Who comes into a memory that is full: what was asked for before. What is asked for once (a crawler's walk, a run of huge objects) goes past it, to disk where there is one, and
//! pushes nothing out. moka compares how often a newcomer and those that would have to go were asked for, but counts only from when it is half full, over few names, and
//! not what it was asked before that: a working set that rests for a while would go for what nobody asks for again.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::limits::{ASKED_NAME_SHARE_BYTES, ASKED_NAMES_MAX, ASKED_NAMES_MIN};

/// Remembers roughly which keys were asked for lately: each has one place, and forgets who was there before.
pub(super) struct Doorkeeper {
    asked: Box<[AtomicU32]>,
    /// Of the hashes: nobody outside can choose keys that displace one another.
    seed: u64,
}

impl Doorkeeper {
    /// For a memory of so many bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        let names = (bytes_max / ASKED_NAME_SHARE_BYTES).clamp(ASKED_NAMES_MIN, ASKED_NAMES_MAX);
        let (seed, _) = uuid::Uuid::new_v4().as_u64_pair();
        Self { asked: (0..names).map(|_| AtomicU32::new(0)).collect(), seed }
    }

    /// Whether a key was asked for lately; from now on it was.
    pub(super) fn knows(&self, key: &[u8]) -> bool {
        let hash = xxh3_64_with_seed(key, self.seed);
        // No mark is 0, which is an empty place.
        let mark = (hash >> 32) as u32 | 1;
        let place = usize::try_from(hash % self.asked.len() as u64).ok().and_then(|at| self.asked.get(at));
        place.is_some_and(|place| place.swap(mark, Relaxed) == mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_when_it_comes_again_soon_and_forgotten_after_many_others() {
        let doorkeeper = Doorkeeper::new(64 << 20);
        let key = |number: u32| number.to_be_bytes();
        assert!(!doorkeeper.knows(&key(0)) && doorkeeper.knows(&key(0)));
        let strangers = (1..1_000).filter(|number| doorkeeper.knows(&key(*number))).count();
        assert_eq!(strangers, 0);
        assert!((0..1_000).filter(|number| doorkeeper.knows(&key(*number))).count() > 900);
        (1_000..200_000).for_each(|number| assert!(!doorkeeper.knows(&key(number)), "{number}"));
        assert!((0..1_000).filter(|number| doorkeeper.knows(&key(*number))).count() < 10);
    }
}
