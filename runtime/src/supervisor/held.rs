//! What the calls of one link make the edge hold: what they ask, until it is carried out, and what is answered, until its runner takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::limits::CALLS_BYTES_MAX;

/// All of it, in bytes.
#[derive(Default)]
pub(super) struct Holding(Arc<AtomicUsize>);

/// A part of it. Dropping it gives the room back.
#[must_use]
pub(super) struct Held {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Holding {
    /// Room for so many bytes more; none where they are too many.
    pub(super) fn take(&self, bytes: usize) -> Option<Held> {
        let held = Held { bytes, all: self.0.clone() };
        // Dropping what is too much takes it out again.
        (held.all.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= CALLS_BYTES_MAX).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_up_to_the_bound_and_again_when_some_is_given_back() {
        let holding = Holding::default();
        let most = holding.take(CALLS_BYTES_MAX - 1);
        let last = holding.take(1);
        assert!(most.is_some() && last.is_some() && holding.take(1).is_none());
        drop(last);
        assert!(holding.take(2).is_none() && holding.take(1).is_some());
    }
}
