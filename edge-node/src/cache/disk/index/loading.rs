//! Loading the index when a node starts: shard by shard, and those first that somebody waits for, so that a look-up waits for its own names and not for all.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::atomic::Ordering::Relaxed;

use super::super::place::Place;
use super::super::record::Kind;
use super::super::segment::Item;
use super::{ByName, Hashed, Index, Places, SHARDS};
use crate::cache::vary::VARIANTS_MAX;

/// What earlier runs have written, by the shard that it belongs to: newest first.
#[derive(Debug)]
pub(in super::super) struct Found([Vec<Item>; SHARDS]);

impl Default for Found {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Vec::new()))
    }
}

impl Found {
    /// A record that is older than all before.
    pub(in super::super) fn add(&mut self, item: Item) {
        if let Some(shard) = self.0.get_mut(shard_of(item.name)) {
            shard.push(item);
        }
    }

    fn take(&mut self, shard: usize) -> Vec<Item> {
        self.0.get_mut(shard).map(std::mem::take).unwrap_or_default()
    }
}

/// The map takes the lowest bits and the highest.
pub(super) fn shard_of(name: u64) -> usize {
    (name >> 32) as usize % SHARDS
}

impl Index {
    /// Waits until all that earlier runs have written of a name is known. Cancel-safe.
    pub(in super::super) async fn until_loaded(&self, name: u64) {
        if self.shard(name).lock().loaded {
            return;
        }
        self.wanted.fetch_or(1 << shard_of(name), Relaxed);
        // Its sender lives as long as the index.
        let _ = self.loads.subscribe().wait_for(|()| self.shard(name).lock().loaded).await;
    }

    /// Loads all that was found. Gives heads that must not be found again.
    pub(in super::super) fn load(&self, mut found: Found) -> Vec<(u64, Place)> {
        let mut gone = Vec::new();
        while let Some(shard) = self.next_to_load() {
            self.load_shard(shard, found.take(shard), &mut gone);
            self.loads.send_replace(());
        }
        gone
    }

    /// A shard that is not loaded yet: one that is waited for, if there is any.
    fn next_to_load(&self) -> Option<usize> {
        let wanted = self.wanted.load(Relaxed);
        let left = || self.shards.iter().enumerate().filter(|(_, shard)| !shard.lock().loaded).map(|(at, _)| at);
        left().find(|at| wanted >> at & 1 == 1).or_else(|| left().next())
    }

    /// A dead head hides all older ones of its name, which costs a fetch and is never wrong. What is known already is newer; what was forgotten since the start hides all.
    fn load_shard(&self, at: usize, items: Vec<Item>, gone: &mut Vec<(u64, Place)>) {
        let mut heads = ByName::<Places>::with_capacity_and_hasher(items.len(), BuildHasherDefault::default());
        let mut dead = HashSet::<u64, BuildHasherDefault<Hashed>>::default();
        for Item { kind, name, place, .. } in items {
            match kind {
                Kind::Dead => _ = dead.insert(name),
                Kind::Head if dead.contains(&name) => gone.push((name, place)),
                Kind::Head => add_older(&mut heads, name, place),
                Kind::Slice => {}
            }
        }
        // Only now: nobody waits for this lock while so much is read.
        let Some(mut shard) = self.shards.get(at).map(|shard| shard.lock()) else { return };
        if self.floor.load(Relaxed) > 0 {
            heads.clear();
        }
        for name in shard.forgotten.keys() {
            let hidden = heads.remove(name);
            gone.extend(hidden.iter().flat_map(|places| places.as_slice()).map(|place| (*name, *place)));
        }
        let newer = std::mem::replace(&mut shard.heads, heads);
        for (name, places) in newer {
            self.count(places.as_slice().len(), 0);
            let older = shard.heads.insert(name, places);
            older.iter().flat_map(|older| older.as_slice()).for_each(|place| add_older(&mut shard.heads, name, *place));
        }
        let known = shard.heads.values().map(|places| places.as_slice().len()).sum();
        self.count(0, known);
        shard.loaded = true;
    }
}

/// Adds a head that is older than all that are known of its name: for requests of another variant, as far as there is room.
fn add_older(heads: &mut ByName<Places>, name: u64, place: Place) {
    let Some(places) = heads.get_mut(&name) else {
        heads.insert(name, Places::One(place));
        return;
    };
    let list = places.as_slice();
    if list.len() < VARIANTS_MAX && !list.iter().any(|other| other.mark() == place.mark()) {
        *places = Places::Many(Box::new([list, &[place]].concat()));
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::super::routes::RouteMark;
    use super::*;

    fn item(kind: Kind, name: u64, offset: u32, mark: u32) -> Item {
        let place = Place::new(NonZeroU32::MIN, offset, 100, mark).expect("a place");
        Item { kind, name, place, route: RouteMark::default() }
    }

    fn found(items: impl IntoIterator<Item = Item>) -> Found {
        let mut found = Found::default();
        items.into_iter().for_each(|item| found.add(item));
        found
    }

    #[test]
    fn older_records_never_hide_newer_ones_and_what_was_forgotten_meanwhile_is_not_found() {
        let index = Index::new();
        let known = item(Kind::Head, 7, 900, 0).place;
        index.put(7, known, 1);
        index.forget(8, 2);
        let newest_first = [
            item(Kind::Head, 7, 800, 0),
            item(Kind::Head, 7, 700, 1),
            item(Kind::Head, 8, 600, 0),
            item(Kind::Head, 5, 500, 0),
            item(Kind::Dead, 6, 400, 0),
            item(Kind::Dead, 5, 300, 0),
            item(Kind::Head, 6, 200, 1),
            item(Kind::Head, 5, 100, 1),
        ];
        let mut gone = index.load(found(newest_first));
        gone.sort_unstable_by_key(|(name, place)| (*name, place.offset()));
        assert_eq!(gone.iter().map(|(name, place)| (*name, place.offset())).collect::<Vec<_>>(), [(5, 100), (6, 200), (8, 600)]);
        let offsets = |name| index.places(name).iter().map(Place::offset).collect::<Vec<_>>();
        assert_eq!((offsets(7), offsets(8), offsets(5), offsets(6)), (vec![900, 700], vec![], vec![500], vec![]));
        assert_eq!(index.heads(), 3);
    }

    #[test]
    fn nothing_is_found_of_what_was_there_before_all_was_forgotten() {
        let index = Index::new();
        index.forget_all(9);
        index.load(found([item(Kind::Head, 6, 8, 0)]));
        assert!(!index.has(6) && index.heads() == 0);
    }

    #[tokio::test]
    async fn who_waits_for_a_name_waits_for_its_shard_only_and_that_is_next() {
        let index = Index::new();
        let name = |shard: u64| shard << 32;
        let last = SHARDS as u64 - 1;
        assert!(futures::poll!(std::pin::pin!(index.until_loaded(name(last)))).is_pending());
        assert_eq!(index.next_to_load(), Some(SHARDS - 1));
        let waiting = index.until_loaded(name(last));
        let loading = async {
            index.load_shard(SHARDS - 1, vec![item(Kind::Head, name(last), 8, 0)], &mut Vec::new());
            index.loads.send_replace(());
        };
        futures::join!(waiting, loading);
        assert!(index.has(name(last)));
        assert!(futures::poll!(std::pin::pin!(index.until_loaded(name(1)))).is_pending(), "the others are not loaded yet");
    }
}
