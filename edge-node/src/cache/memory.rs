//! The memory tier: moka, by weight. The only file that knows moka; freshness is not its business (its clock cannot be set).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::sync::Cache;

use super::entry::Slot;
use super::tier::Tier;
use crate::metrics::{Metrics, Removal};

/// What moka and the key's own structures take for each key, in bytes.
const KEY_OVERHEAD_BYTES: usize = 250;

/// The part of its bytes by which the store may be over its bound before it evicts.
const UNBOUNDED_SHARE_MAX: u64 = 64;

/// Responses in memory.
pub(super) struct Memory {
    slots: Cache<Box<[u8]>, Arc<Slot>>,
    /// Bytes that were put in since the store was last brought within its bound, and how many may be.
    since: AtomicU64,
    since_max: u64,
}

impl Memory {
    /// At most `bytes_max` bytes, by weight. `evicted` is told of each key that goes for want of room.
    #[allow(clippy::borrowed_box, reason = "moka gives the weigher its key by reference")]
    pub(super) fn new(bytes_max: u64, metrics: Arc<Metrics>, evicted: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        crate::allocator::give_back();
        let slots = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|key: &Box<[u8]>, slot: &Arc<Slot>| {
                u32::try_from(key.len().saturating_add(KEY_OVERHEAD_BYTES).saturating_add(slot.weight())).unwrap_or(u32::MAX)
            })
            .eviction_listener(move |key: Arc<Box<[u8]>>, slot: Arc<Slot>, cause| {
                if cause == RemovalCause::Size {
                    metrics.cache_evictions.add(1);
                    slot.variants.iter().for_each(|entry| entry.removed(Removal::Evicted));
                    evicted(&key);
                }
            })
            .build();
        Self { slots, since: AtomicU64::new(0), since_max: bytes_max / UNBOUNDED_SHARE_MAX }
    }
}

impl Tier for Memory {
    fn get(&self, key: &[u8]) -> Option<Arc<Slot>> {
        self.slots.get(key)
    }

    fn change(&self, key: &[u8], change: &mut dyn FnMut(Option<&Slot>) -> Option<Slot>) {
        let mut put = 0;
        self.slots.entry(key.into()).and_compute_with(|old| {
            let old = old.map(|entry| entry.into_value());
            match (change(old.as_deref()), old) {
                (Some(slot), _) => {
                    put = slot.weight() as u64;
                    Op::Put(Arc::new(slot))
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
}
