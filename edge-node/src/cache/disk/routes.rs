//! Whose responses a segment holds: each has its route's mark beside its place in the segment's list, so that it is counted when it goes, without being read.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use xxhash_rust::xxh3::xxh3_64;

use crate::limits::DISK_ROUTES_MAX;
use crate::metrics::RouteCounters;

/// What a list has room for.
const MARK_MASK: u64 = (1 << 24) - 1;

/// A route in a list: a hash of its pattern. (Of a thousand routes two have one mark in 3 of 100 nodes, and are then counted as one of them.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct RouteMark(u32);

impl RouteMark {
    /// Of a pattern.
    fn of(pattern: &str) -> Self {
        Self(((xxh3_64(pattern.as_bytes()) & MARK_MASK) as u32).max(1))
    }

    /// As a list has it: above the kind of the record.
    pub(super) fn above(self, kind: u8) -> u32 {
        self.0 << 8 | u32::from(kind)
    }

    /// What [`Self::above`] made: the mark and the kind. Lists of earlier releases have no marks.
    pub(super) fn split(field: u32) -> (Self, u8) {
        let [kind, ..] = field.to_le_bytes();
        (Self(field >> 8), kind)
    }
}

/// The routes whose responses were written since the node started: of others nothing is counted.
#[derive(Debug, Default)]
pub(super) struct Routes(HashMap<RouteMark, Weak<RouteCounters>>);

impl Routes {
    /// The mark of a response's route, which is known from now on; that of none, where it has none.
    pub(super) fn mark(&mut self, route: Option<&Arc<RouteCounters>>) -> RouteMark {
        let Some(route) = route else { return RouteMark::default() };
        let mark = RouteMark::of(route.pattern());
        if self.0.get(&mark).is_none_or(|known| known.strong_count() == 0) {
            if self.0.len() >= DISK_ROUTES_MAX {
                self.0.retain(|_, known| known.strong_count() > 0);
            }
            if self.0.len() < DISK_ROUTES_MAX {
                self.0.insert(mark, Arc::downgrade(route));
            }
        }
        mark
    }

    /// A response went for want of room.
    pub(super) fn evicted(&self, mark: RouteMark) {
        self.0.get(&mark).and_then(Weak::upgrade).iter().for_each(|route| route.disk_evictions.add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(pattern: &str) -> Arc<RouteCounters> {
        Arc::new(RouteCounters::new(pattern.into()))
    }

    #[test]
    fn a_mark_is_read_as_written_beside_any_kind() {
        for (pattern, kind) in [("a.test/*", 1), ("b.test/*", 255)] {
            let mark = RouteMark::of(pattern);
            assert_eq!(RouteMark::split(mark.above(kind)), (mark, kind));
        }
        assert_eq!(RouteMark::split(2), (RouteMark::default(), 2));
    }

    #[test]
    fn known_routes_are_bounded_and_those_that_went_make_room() {
        let mut routes = Routes::default();
        let kept: Vec<_> = (0..DISK_ROUTES_MAX + 10).map(|number| route(&format!("{number}/*"))).collect();
        kept.iter().for_each(|route| _ = routes.mark(Some(route)));
        assert_eq!(routes.0.len(), DISK_ROUTES_MAX);
        drop(kept);
        let first = route("0/*");
        let mark = routes.mark(Some(&first));
        routes.evicted(mark);
        routes.evicted(RouteMark::default());
        assert_eq!(first.disk_evictions.get(), 1, "it is counted where its pattern is, not where the one before it was");
    }
}
