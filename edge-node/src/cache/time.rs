//! Instants of the cache. Pure: whoever asks brings `now`.

/// An instant: milliseconds since 1970, UTC. Ages are counted in it, as RFC 9111 does with `Date`; milliseconds, so that an entry is not stale for a second
/// more or less than its lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub u64);

impl Time {
    /// Milliseconds from `earlier`, 0 where that is later.
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// So many milliseconds later.
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}
