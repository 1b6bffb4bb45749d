//! Chance: what is drawn here is passed to rules, which draw nothing themselves.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number from 0 to 1 (exclusive), not for secrets: hash keys of the standard library are random for each.
pub(crate) fn draw() -> f64 {
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_within_their_bounds_and_differ() {
        let drawn: Vec<f64> = (0..100).map(|_| draw()).collect();
        assert!(drawn.iter().all(|drawn| (0.0..1.0).contains(drawn)) && drawn.windows(2).any(|pair| pair[0] != pair[1]), "{drawn:?}");
    }
}
