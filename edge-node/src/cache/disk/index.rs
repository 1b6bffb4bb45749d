//! What is on disk, in memory: for each key the places of its variants' heads, for each sliced body the places of its slices. 33 bytes for a usual entry.
//!
//! A place is a hint: what is read there is verified. The index says only what may be there, and what must not be used any more.

mod loading;
mod slices;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::watch;

use super::place::{Place, Retired};
use crate::cache::vary::VARIANTS_MAX;
pub(super) use loading::Found;

/// Parts of the index that are locked, and loaded, apart: as many as a word has bits.
const SHARDS: usize = 64;

/// The places of one key: one, as a rule. Newest first.
#[derive(Debug)]
enum Places {
    One(Place),
    #[allow(clippy::box_collection, reason = "rare, and every key pays for the larger variant")]
    Many(Box<Vec<Place>>),
}

impl Places {
    fn as_slice(&self) -> &[Place] {
        match self {
            Self::One(place) => std::slice::from_ref(place),
            Self::Many(places) => places,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Place] {
        match self {
            Self::One(place) => std::slice::from_mut(place),
            Self::Many(places) => places,
        }
    }

    fn of(places: Vec<Place>) -> Option<Self> {
        match places.as_slice() {
            [] => None,
            [only] => Some(Self::One(*only)),
            _ => Some(Self::Many(Box::new(places))),
        }
    }
}

/// Names are hashes already.
#[derive(Debug, Default, Clone, Copy)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type ByName<T> = HashMap<u64, T, BuildHasherDefault<Hashed>>;

#[derive(Debug, Default)]
struct Shard {
    heads: ByName<Places>,
    /// Names that were forgotten, by the number of the order that will have it written: what was ordered before is not to be found again.
    forgotten: ByName<u64>,
    /// What earlier runs have written is known.
    loaded: bool,
}

/// What is on disk.
#[derive(Debug)]
pub(super) struct Index {
    shards: [Mutex<Shard>; SHARDS],
    bodies: Mutex<ByName<BTreeMap<u32, Place>>>,
    heads: AtomicU64,
    /// What was ordered before this order is not to be found again, whatever its name.
    floor: AtomicU64,
    /// Shards that somebody waits for, one bit for each.
    wanted: AtomicU64,
    /// Told whenever a shard was loaded.
    loads: watch::Sender<()>,
}

/// Several places: on the stack as a rule.
pub(super) type PlaceList = SmallVec<[Place; 2]>;

impl Index {
    /// Empty, and not loaded: see [`loading`].
    pub(super) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            bodies: Mutex::default(),
            heads: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            loads: watch::Sender::new(()),
        }
    }

    fn shard(&self, name: u64) -> &Mutex<Shard> {
        &self.shards[loading::shard_of(name)]
    }

    /// Heads that it knows.
    pub(super) fn heads(&self) -> u64 {
        self.heads.load(Relaxed)
    }

    /// Whether something of this name is known.
    pub(super) fn has(&self, name: u64) -> bool {
        self.shard(name).lock().heads.contains_key(&name)
    }

    /// Whether there may be something of this name: it is known, or not known yet.
    pub(super) fn may_have(&self, name: u64) -> bool {
        let shard = self.shard(name).lock();
        !shard.loaded || shard.heads.contains_key(&name)
    }

    /// The heads of a name, newest first.
    pub(super) fn places(&self, name: u64) -> PlaceList {
        self.shard(name).lock().heads.get(&name).map(|places| PlaceList::from_slice(places.as_slice())).unwrap_or_default()
    }

    /// Whether a head is still where it was.
    pub(super) fn is_current(&self, name: u64, place: Place) -> bool {
        self.shard(name).lock().heads.get(&name).is_some_and(|places| places.as_slice().contains(&place))
    }

    /// A head was written by the order of this number; it takes the place of the one with the same mark. Gives heads that must not be found again: older ones, or this
    /// one where its name was forgotten after it was ordered.
    pub(super) fn put(&self, name: u64, place: Place, order: u64) -> PlaceList {
        let mut shard = self.shard(name).lock();
        if order < self.floor.load(Relaxed) || shard.forgotten.get(&name).is_some_and(|forgotten| *forgotten > order) {
            return PlaceList::from_slice(&[place]);
        }
        let old = shard.heads.get(&name).map(Places::as_slice).unwrap_or_default();
        let before = old.len();
        let mut list = vec![place];
        list.extend(old.iter().filter(|other| other.mark() != place.mark()));
        let gone = if list.len() > VARIANTS_MAX { list.split_off(VARIANTS_MAX) } else { Vec::new() };
        self.count(before, list.len());
        if let Some(places) = Places::of(list) {
            shard.heads.insert(name, places);
        }
        gone.into()
    }

    /// Forgets a name: nothing that was ordered before `order` is found again. Gives what was there.
    pub(super) fn forget(&self, name: u64, order: u64) -> PlaceList {
        let mut shard = self.shard(name).lock();
        shard.forgotten.insert(name, order);
        let gone = shard.heads.remove(&name);
        let gone = gone.as_ref().map(Places::as_slice).unwrap_or_default();
        self.count(gone.len(), 0);
        PlaceList::from_slice(gone)
    }

    /// Forgets all: nothing that was ordered before `order` is found again.
    pub(super) fn forget_all(&self, order: u64) {
        self.floor.store(order, Relaxed);
        self.shards.iter().for_each(|shard| shard.lock().forgotten = ByName::default());
        self.clear();
    }

    /// What was forgotten by this order is gone from the disk too.
    pub(super) fn forgotten(&self, name: u64, order: u64) {
        let mut shard = self.shard(name).lock();
        if shard.forgotten.get(&name) == Some(&order) {
            shard.forgotten.remove(&name);
        }
    }

    /// Drops a head that is there no more.
    pub(super) fn remove(&self, name: u64, place: Place) {
        self.retain(name, |other| *other != place);
    }

    /// Drops the head with this mark; gives it.
    pub(super) fn remove_marked(&self, name: u64, mark: u32) -> PlaceList {
        let gone = self.places(name).into_iter().filter(|place| place.mark() == mark).collect();
        self.retain(name, |place| place.mark() != mark);
        gone
    }

    fn retain(&self, name: u64, keep: impl Fn(&Place) -> bool) {
        let mut shard = self.shard(name).lock();
        let Some(places) = shard.heads.get(&name).map(Places::as_slice) else { return };
        let left: Vec<Place> = places.iter().filter(|place| keep(place)).copied().collect();
        self.count(places.len(), left.len());
        match Places::of(left) {
            Some(places) => shard.heads.insert(name, places),
            None => shard.heads.remove(&name),
        };
    }

    /// Drops all that is in a segment. Looks at everything: for segments that cannot be listed.
    pub(super) fn drop_segment(&self, number: NonZeroU32) {
        let keep = |place: &Place| place.segment() != number;
        for shard in &self.shards {
            shard.lock().heads.retain(|_, places| {
                let left: Vec<Place> = places.as_slice().iter().filter(|place| keep(place)).copied().collect();
                self.count(places.as_slice().len(), left.len());
                Places::of(left).map(|left| *places = left).is_some()
            });
        }
        self.bodies.lock().retain(|_, slices| {
            slices.retain(|_, place| keep(place));
            !slices.is_empty()
        });
    }

    /// Drops all. What is forgotten stays forgotten.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let gone: usize = shard.heads.values().map(|places| places.as_slice().len()).sum();
            shard.heads = ByName::default();
            self.count(gone, 0);
        }
        *self.bodies.lock() = ByName::default();
    }

    fn count(&self, before: usize, after: usize) {
        self.heads.fetch_add((after as u64).wrapping_sub(before as u64), Relaxed);
    }

    /// A head was read.
    pub(super) fn read(&self, name: u64, place: Place) {
        self.mark(name, |other| if *other == place { other.read().in_memory() } else { *other });
    }

    /// A name has left the memory.
    pub(super) fn left_memory(&self, name: u64) {
        self.mark(name, |place| place.left_memory());
    }

    fn mark(&self, name: u64, mark: impl Fn(&Place) -> Place) {
        if let Some(places) = self.shard(name).lock().heads.get_mut(&name) {
            places.as_mut_slice().iter_mut().for_each(|place| *place = mark(place));
        }
    }

    /// Its segment goes: whether the head is wanted elsewhere. One that is not wanted is dropped.
    pub(super) fn retire(&self, name: u64, place: Place) -> Retired {
        let retired = self.places(name).iter().find(|other| **other == place).map_or(Retired::Gone, Place::retired);
        if retired == Retired::Dropped {
            self.remove(name, place);
        }
        retired
    }

    /// A head was written to another segment. It must be read again to be wanted again.
    pub(super) fn moved(&self, name: u64, from: Place, to: Place) -> bool {
        let mut shard = self.shard(name).lock();
        let Some(place) = shard.heads.get_mut(&name).and_then(|places| places.as_mut_slice().iter_mut().find(|place| **place == from))
        else {
            return false;
        };
        *place = place.moved(to);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(segment: u32, offset: u32, mark: u32) -> Place {
        Place::new(NonZeroU32::new(segment).expect("a number"), offset, 100, mark).expect("a place")
    }

    #[test]
    fn a_usual_entry_takes_few_bytes() {
        assert_eq!(size_of::<(u64, Places)>(), 24);
    }

    #[test]
    fn the_newest_of_a_variant_is_found_and_variants_are_bounded() {
        let index = Index::new();
        for number in 0..=VARIANTS_MAX as u32 {
            let gone = index.put(7, place(1, number, number), number.into());
            assert_eq!(gone.is_empty(), (number as usize) < VARIANTS_MAX);
        }
        assert!(index.put(7, place(2, 0, 3), 99).is_empty());
        let places = index.places(7);
        assert_eq!((places.len(), places[0].segment().get()), (VARIANTS_MAX, 2));
        assert_eq!(index.heads(), VARIANTS_MAX as u64);
        index.remove(7, place(2, 0, 3));
        assert_eq!(index.heads(), VARIANTS_MAX as u64 - 1);
    }

    #[test]
    fn what_was_ordered_before_its_name_was_forgotten_is_not_found() {
        let index = Index::new();
        index.put(7, place(1, 0, 0), 1);
        assert_eq!(index.forget(7, 3).len(), 1);
        assert_eq!(index.put(7, place(1, 8, 0), 2).as_slice(), [place(1, 8, 0)], "it must be killed");
        assert!(!index.has(7));
        assert!(index.put(7, place(1, 16, 0), 4).is_empty());
        index.forgotten(7, 3);
        assert_eq!(index.places(7).as_slice(), [place(1, 16, 0)]);
        index.forget_all(9);
        assert_eq!(index.heads(), 0);
        assert_eq!(index.put(8, place(1, 24, 0), 8).as_slice(), [place(1, 24, 0)], "it must be killed");
        assert!(index.put(8, place(1, 40, 0), 10).is_empty());
    }

    #[test]
    fn what_was_read_or_is_in_memory_is_wanted_when_its_segment_goes() {
        let index = Index::new();
        index.put(1, place(1, 0, 0), 1);
        index.put(2, place(1, 8, 0), 2);
        index.put(3, place(1, 16, 0).in_memory(), 3);
        index.read(1, place(1, 0, 0));
        index.left_memory(1);
        assert_eq!(index.retire(1, place(1, 0, 0)), Retired::Read);
        assert!(index.moved(1, place(1, 0, 0), place(2, 0, 0)));
        assert_eq!(index.retire(1, place(2, 0, 0)), Retired::Dropped, "once, unless it is read again");
        assert_eq!(index.retire(2, place(1, 8, 0)), Retired::Dropped);
        assert_eq!(index.retire(3, place(1, 16, 0)), Retired::InMemory);
        assert_eq!(index.retire(2, place(1, 8, 0)), Retired::Gone);
    }

    #[test]
    fn slices_are_all_there_or_none() {
        let index = Index::new();
        for number in [0, 1, 3] {
            index.put_slice(5, place(1, number * 8, number));
        }
        assert!(index.has_slices(5, 0..2) && index.has_slices(5, 3..4) && !index.has_slices(5, 0..3) && !index.has_slices(5, 3..5));
        assert_eq!(index.slices(5, 0..2).map(|places| places.len()), Some(2));
        assert!(index.slices(5, 1..4).is_none() && index.slices(5, 2..3).is_none() && index.slices(6, 0..1).is_none());
        assert_eq!(index.retire_slice(5, place(1, 0, 0)), Retired::Read);
        assert_eq!(index.retire_slice(5, place(1, 24, 3)), Retired::Dropped);
        assert!(index.has_slices(5, 0..2) && !index.has_slices(5, 0..3));
    }
}
