//! What the calls of one link make the edge hold: what they ask, until it is carried out, and what is answered, until its runner takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::limits::{CALLS_BYTES_MAX, CALLS_BYTES_PER_VERSION_MAX};

/// What one version on one link makes the edge hold, in bytes.
pub(super) struct Holding {
    own: Arc<AtomicUsize>,
    /// The same of all versions of the link.
    all: Arc<AtomicUsize>,
}

/// A part of it. Dropping it gives the room back.
#[must_use]
pub(super) struct Held {
    bytes: usize,
    own: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

impl Holding {
    /// Nothing yet, of a link whose versions hold so much together.
    pub(super) fn within(all: &Arc<AtomicUsize>) -> Self {
        Self { own: Arc::default(), all: all.clone() }
    }

    /// Room for so many bytes more of what is asked. The last quarter is for answers: what has been carried out shall not fail for what is asked next.
    pub(super) fn ask(&self, bytes: usize) -> Option<Held> {
        self.take(bytes, |max| max - max / 4)
    }

    /// The same for what is answered.
    pub(super) fn answer(&self, bytes: usize) -> Option<Held> {
        self.take(bytes, |max| max)
    }

    /// None where they are too many.
    fn take(&self, bytes: usize, part: impl Fn(usize) -> usize) -> Option<Held> {
        let held = Held { bytes, own: self.own.clone(), all: self.all.clone() };
        let own = held.own.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let all = held.all.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        // Dropping what is too much takes it out again.
        (own <= part(CALLS_BYTES_PER_VERSION_MAX) && all <= part(CALLS_BYTES_MAX)).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.own.fetch_sub(self.bytes, Ordering::Relaxed);
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = CALLS_BYTES_PER_VERSION_MAX;

    #[test]
    fn there_is_room_up_to_the_bound_and_again_when_some_is_given_back() {
        let holding = Holding::within(&Arc::default());
        let most = holding.answer(MOST - 1);
        let last = holding.answer(1);
        assert!(most.is_some() && last.is_some() && holding.answer(1).is_none());
        drop(last);
        assert!(holding.answer(2).is_none() && holding.answer(1).is_some());
    }

    #[test]
    fn a_version_leaves_room_to_the_others_of_its_link() {
        let all = Arc::default();
        let greedy = Holding::within(&all);
        let held = [greedy.ask(MOST / 4 * 3), greedy.answer(MOST / 4)];
        assert!(held.iter().all(Option::is_some) && greedy.answer(1).is_none());
        let others = [(); 3].map(|()| Holding::within(&all));
        let held_too = others.each_ref().map(|other| other.answer(MOST));
        assert!(held_too.iter().all(Option::is_some), "a version found no room");
        let one_more = Holding::within(&all);
        assert!(one_more.answer(1).is_none(), "more than all may hold");
        drop(held);
        assert!(one_more.answer(1).is_some());
    }

    #[test]
    fn what_is_asked_leaves_room_for_what_is_answered() {
        let all = Arc::default();
        let holdings = [(); 4].map(|()| Holding::within(&all));
        let asked = holdings.each_ref().map(|holding| holding.ask(MOST / 4 * 3));
        assert!(asked.iter().all(Option::is_some) && holdings.iter().all(|holding| holding.ask(1).is_none()));
        assert!(Holding::within(&all).ask(1).is_none(), "all together ask for more");
        assert!(holdings.iter().all(|holding| holding.answer(MOST / 4).is_some()));
    }
}
