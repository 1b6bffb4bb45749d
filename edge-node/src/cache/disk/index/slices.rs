//! The slices of large bodies in the index: by the number of their body and their own.

use std::ops::Range;

use super::super::place::{Place, Retired};
use super::Index;

impl Index {
    /// A slice was written.
    pub(in super::super) fn put_slice(&self, body: u64, place: Place) {
        self.bodies.lock().entry(body).or_default().insert(place.mark(), place);
    }

    /// A slice that an earlier run has written.
    pub(in super::super) fn put_old_slice(&self, body: u64, place: Place) {
        self.bodies.lock().entry(body).or_default().entry(place.mark()).or_insert(place);
    }

    /// The places of slices, all of them or none; they count as read.
    pub(in super::super) fn slices(&self, body: u64, numbers: Range<u32>) -> Option<Vec<Place>> {
        let mut bodies = self.bodies.lock();
        let slices = bodies.get_mut(&body)?;
        let mut places = Vec::new();
        for (number, (at, place)) in numbers.clone().zip(slices.range_mut(numbers.clone())) {
            if *at != number {
                return None;
            }
            *place = place.read();
            places.push(*place);
        }
        (places.len() == numbers.len()).then_some(places)
    }

    /// Whether these slices are all there.
    pub(in super::super) fn has_slices(&self, body: u64, numbers: Range<u32>) -> bool {
        let bodies = self.bodies.lock();
        bodies.get(&body).is_some_and(|slices| match (slices.first_key_value(), slices.last_key_value()) {
            // Without gaps, as a rule.
            (Some((first, _)), Some((last, _))) if (last - first) as usize + 1 == slices.len() => {
                numbers.is_empty() || (*first <= numbers.start && numbers.end - 1 <= *last)
            }
            _ => slices.range(numbers.clone()).count() == numbers.len(),
        })
    }

    /// Its segment goes; see [`Self::retire`].
    pub(in super::super) fn retire_slice(&self, body: u64, place: Place) -> Retired {
        let mut bodies = self.bodies.lock();
        let Some(slices) = bodies.get_mut(&body) else { return Retired::Gone };
        let retired = slices.get(&place.mark()).filter(|other| **other == place).map_or(Retired::Gone, Place::retired);
        if retired == Retired::Dropped {
            slices.remove(&place.mark());
            if slices.is_empty() {
                bodies.remove(&body);
            }
        }
        retired
    }

    /// Drops a slice that is there no more.
    pub(in super::super) fn remove_slice(&self, body: u64, place: Place) {
        let mut bodies = self.bodies.lock();
        if let Some(slices) = bodies.get_mut(&body)
            && slices.get(&place.mark()) == Some(&place)
        {
            slices.remove(&place.mark());
            if slices.is_empty() {
                bodies.remove(&body);
            }
        }
    }

    /// A slice was written to another segment.
    pub(in super::super) fn moved_slice(&self, body: u64, from: Place, to: Place) {
        if let Some(place) =
            self.bodies.lock().get_mut(&body).and_then(|slices| slices.get_mut(&from.mark())).filter(|place| **place == from)
        {
            *place = to;
        }
    }
}
