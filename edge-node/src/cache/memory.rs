//! The memory tier: moka, by weight. The only file that knows moka; freshness is not its business (its clock cannot be set).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::sync::Cache;

use super::doorkeeper::Doorkeeper;
use super::entry::Slot;
use super::held::Held;
use super::tier::Tier;
use crate::limits::MEMORY_RESERVE_SHARE;
use crate::metrics::{Metrics, Removal};

/// What moka and the key's own structures take for each key, in bytes.
const KEY_OVERHEAD_BYTES: usize = 400;

/// The part of its bytes by which the store may be over its bound before it evicts.
const UNBOUNDED_SHARE_MAX: u64 = 64;

/// How often a key is looked up that was replaced during the look.
const LOOKS_MAX: usize = 4;

/// Responses in memory.
pub(super) struct Memory {
    slots: Cache<Box<[u8]>, Held>,
    /// Bytes that were put in since the store was last brought within its bound, and how many may be.
    since: AtomicU64,
    since_max: u64,
    doorkeeper: Doorkeeper,
    /// The bytes beyond which what nobody asked for before stays out.
    open_bytes_max: u64,
    metrics: Arc<Metrics>,
}

impl Memory {
    /// At most `bytes_max` bytes, by weight. `evicted` is told of each key that goes for want of room.
    #[allow(clippy::borrowed_box, reason = "moka gives the weigher its key by reference")]
    pub(super) fn new(bytes_max: u64, metrics: Arc<Metrics>, evicted: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        crate::allocator::give_back();
        let counted = metrics.clone();
        let slots = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|key: &Box<[u8]>, held: &Held| {
                u32::try_from(key.len().saturating_add(KEY_OVERHEAD_BYTES).saturating_add(held.weight())).unwrap_or(u32::MAX)
            })
            .eviction_listener(move |key: Arc<Box<[u8]>>, held: Held, cause| {
                let slot = held.let_go();
                if cause == RemovalCause::Size {
                    counted.cache_evictions.add(1);
                    slot.variants().iter().for_each(|entry| entry.removed(Removal::Evicted));
                    evicted(&key);
                }
            })
            .build();
        Self {
            slots,
            since: AtomicU64::new(0),
            since_max: bytes_max / UNBOUNDED_SHARE_MAX,
            doorkeeper: Doorkeeper::new(bytes_max),
            open_bytes_max: bytes_max - bytes_max / MEMORY_RESERVE_SHARE,
            metrics,
        }
    }
}

impl Tier for Memory {
    fn get(&self, key: &[u8]) -> Option<Slot> {
        // What was let go during the look has a successor, or none.
        (0..LOOKS_MAX).map_while(|_| self.slots.get(key)).find_map(|held| held.slot())
    }

    fn change(&self, key: &[u8], change: &mut dyn FnMut(Option<&Slot>) -> Option<Slot>) {
        let mut put = 0;
        self.slots.entry(key.into()).and_compute_with(|old| {
            let old = old.map(|entry| entry.into_value());
            match (change(old.as_ref().and_then(Held::slot).as_ref()), old) {
                (Some(slot), _) => {
                    put = slot.weight() as u64;
                    Op::Put(Held::new(slot))
                }
                (None, Some(_)) => Op::Remove,
                (None, None) => Op::Nop,
            }
        });
        // moka evicts when some hundreds of entries were put in, however large they are.
        if self.since.fetch_add(put, Relaxed).saturating_add(put) > self.since_max {
            self.since.store(0, Relaxed);
            self.slots.run_pending_tasks();
        }
    }

    fn holds(&self, key: &[u8]) -> bool {
        self.slots.contains_key(key)
    }

    fn welcomes(&self, key: &[u8], bytes: u64) -> bool {
        let is_known = self.knows(key);
        // What moka says may be a moment old; what it does not know of yet is in `since`.
        let held = self.slots.weighted_size().saturating_add(self.since.load(Relaxed));
        let welcome = is_known || held.saturating_add(bytes) <= self.open_bytes_max;
        if !welcome {
            self.metrics.cache_strangers.add(1);
        }
        welcome
    }

    fn knows(&self, key: &[u8]) -> bool {
        self.doorkeeper.knows(key)
    }

    fn peek(&self, key: &[u8]) -> Option<Slot> {
        // moka counts each look for one key; it does not where all are gone through.
        self.slots.iter().find(|(other, _)| ***other == *key).and_then(|(_, held)| held.slot())
    }

    fn usage(&self) -> (u64, u64) {
        self.slots.run_pending_tasks();
        (self.slots.entry_count(), self.slots.weighted_size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::entry;

    #[test]
    fn memory_stays_within_its_bytes() {
        let metrics = Arc::new(Metrics::default());
        let memory = Memory::new(1 << 20, metrics.clone(), |_| {});
        for number in 0..2_000u32 {
            let mut slot = Some(Slot::default().with(entry(&vec![0; 4 << 10])));
            memory.change(&number.to_be_bytes(), &mut |_| slot.take());
        }
        let (keys, bytes) = memory.usage();
        assert!(bytes <= 1 << 20, "{bytes}");
        assert!(keys >= 100, "{keys}");
        assert!(metrics.cache_evictions.get() > 1_000);
    }

    #[test]
    fn what_goes_gives_its_bytes_back_at_once_also_while_a_thread_rests_in_the_middle_of_a_look() {
        let resting = crossbeam_epoch::pin();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let memory = Memory::new(1 << 20, Arc::default(), |_| {});
                let put = |number: u32| {
                    let entry = entry(&vec![0; 16 << 10]);
                    let weak = Arc::downgrade(&entry);
                    let mut slot = Some(Slot::default().with(entry));
                    memory.change(&number.to_be_bytes(), &mut |_| slot.take());
                    weak
                };
                // Pushed out, replaced, removed.
                let mut stored: Vec<_> = (0..500).map(put).collect();
                stored.extend((0..500).map(|_| put(7)));
                stored.push(put(8));
                memory.change(&8u32.to_be_bytes(), &mut |_| None);
                let (_, bytes) = memory.usage();
                let alive = stored.iter().filter(|entry| entry.strong_count() > 0).count() as u64;
                assert!(alive * (16 << 10) <= bytes, "{alive} live, and the store weighs {bytes} bytes");
                assert!(alive > 10, "{alive}");
            });
        });
        drop(resting);
    }

    /// The same by plain LRU, by weight: what is asked for comes in, and what was asked for longest ago goes.
    #[derive(Default)]
    struct Lru {
        by_age: std::collections::BTreeMap<u64, (u32, u64)>,
        ages: std::collections::HashMap<u32, u64>,
        clock: u64,
        bytes: u64,
    }

    trait Asked {
        /// Asks for a key as the request path does, which stores what is not there.
        fn ask(&mut self, key: u32, bytes: usize);

        fn has(&self, key: u32) -> bool;

        fn hold(&self, keys: std::ops::Range<u32>) -> usize {
            keys.filter(|key| self.has(*key)).count()
        }
    }

    impl Asked for Memory {
        fn ask(&mut self, number: u32, bytes: usize) {
            let key = number.to_be_bytes();
            if self.get(&key).is_none() {
                // It looks again before it fetches, and before it stores.
                assert!(self.get(&key).is_none() && self.get(&key).is_none());
                let entry = entry(&vec![0; bytes]);
                if self.welcomes(&key, entry.weight() as u64) {
                    let mut slot = Some(Slot::default().with(entry));
                    self.change(&key, &mut |_| slot.take());
                }
            }
            if number.is_multiple_of(32) {
                self.slots.run_pending_tasks();
            }
        }

        fn has(&self, key: u32) -> bool {
            self.holds(&key.to_be_bytes())
        }
    }

    impl Asked for Lru {
        fn ask(&mut self, key: u32, bytes: usize) {
            self.clock += 1;
            match self.ages.insert(key, self.clock).and_then(|age| self.by_age.remove(&age)) {
                Some(_) => {}
                None => self.bytes += bytes as u64,
            }
            self.by_age.insert(self.clock, (key, bytes as u64));
            while self.bytes > MEMORY_BYTES
                && let Some((_, (key, bytes))) = self.by_age.pop_first()
            {
                self.ages.remove(&key);
                self.bytes -= bytes;
            }
        }

        fn has(&self, key: u32) -> bool {
            self.ages.contains_key(&key)
        }
    }

    const MEMORY_BYTES: u64 = 64 << 20;
    const PAGE_BYTES: usize = 16 << 10;

    /// Asks for `hot` pages some times, then for a run of others once each; gives how many of the pages are left in memory, and by plain LRU.
    fn left_of(hot: u32, times: usize, run: u32, bytes: usize) -> [usize; 2] {
        let left = |cache: &mut dyn Asked| {
            (0..times).for_each(|_| (0..hot).for_each(|key| cache.ask(key, PAGE_BYTES)));
            (0..run).for_each(|key| cache.ask(1_000_000 + key, bytes));
            cache.hold(0..hot)
        };
        [left(&mut Memory::new(MEMORY_BYTES, Arc::default(), |_| {})), left(&mut Lru::default())]
    }

    #[test]
    fn a_working_set_that_rests_outlives_what_is_asked_for_once_however_much_and_however_large() {
        // A quarter of memory, and three quarters of it.
        for hot in [1_000, 3_000] {
            for (run, bytes) in [(12_000, PAGE_BYTES), (400, 1 << 20), (200, 4 << 20)] {
                let [ours, by_lru] = left_of(hot, 3, run, bytes);
                assert!(ours as f64 >= 0.99 * f64::from(hot) && by_lru == 0, "{ours} and {by_lru} of {hot}, after {run} of {bytes} bytes");
            }
        }
    }

    #[test]
    fn another_working_set_takes_the_place_of_one_that_is_asked_for_no_more() {
        let mut memory = Memory::new(MEMORY_BYTES, Arc::default(), |_| {});
        for set in 0..3 {
            let keys = || set * 10_000..set * 10_000 + 3_500;
            (0..12).for_each(|_| keys().for_each(|key| memory.ask(key, PAGE_BYTES)));
            assert!(memory.hold(keys()) >= 2_500, "{} of set {set}", memory.hold(keys()));
        }
    }

    #[test]
    fn what_is_huge_comes_in_when_it_is_asked_for_again() {
        let mut memory = Memory::new(MEMORY_BYTES, Arc::default(), |_| {});
        (0..5_000).for_each(|key| memory.ask(key, PAGE_BYTES));
        let mut is_in_after = |asks: u32| {
            (0..asks).for_each(|_| memory.ask(1_000_000 + asks, 1 << 20));
            memory.slots.run_pending_tasks();
            memory.has(1_000_000 + asks)
        };
        assert!(!is_in_after(1));
        assert!((2..20).any(is_in_after));
    }
}
