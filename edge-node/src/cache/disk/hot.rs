//! Blocks of large bodies that are asked for again: they come into memory as responses do, by the same rules, and go as these do. What a huge body has of it is what its
//! blocks deserve, each by itself.
//!
//! Only a body's head leads to its blocks, and no other body has its number: what was purged, replaced or forgotten is not found here either.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::Shared;
use super::record::BLOCK_BYTES;
use crate::cache::entry::Slot;
use crate::cache::tier::Tier;

/// The key of a block, or of a slice that is asked for. No key of a request begins like this.
fn key(what: u8, body: u64, number: u64) -> [u8; 18] {
    let mut key = [b'b'; 18];
    let parts = [what].into_iter().chain(body.to_ne_bytes()).chain(number.to_ne_bytes());
    key.iter_mut().skip(1).zip(parts).for_each(|(to, from)| *to = from);
    key
}

impl Shared {
    pub(super) fn memory(&self) -> Option<Arc<dyn Tier>> {
        self.memory.get().and_then(Weak::upgrade)
    }

    /// The bytes of a body from `at` to the end of their block, where memory has them.
    pub(super) fn hot(&self, body: u64, at: u64) -> Option<Bytes> {
        let block = BLOCK_BYTES as u64;
        let slot = self.memory()?.get(&key(b'b', body, at / block))?;
        let bytes = slot.block()?;
        let within = usize::try_from(at % block).ok().filter(|within| *within < bytes.len())?;
        Some(bytes.slice(within..))
    }

    /// Whether the blocks of a slice are wanted in memory: it was asked for before. (Room alone is no reason, since the kernel has what was read once. By slices, and once for
    /// each reading: a long body must not make memory forget what else was asked for.)
    pub(super) fn wants(&self, body: u64, slice: u32) -> bool {
        self.memory().is_some_and(|memory| memory.knows(&key(b's', body, slice.into())))
    }

    /// Takes a block to memory whose checksum was seen.
    pub(super) fn heat(&self, body: u64, at: u64, bytes: &Bytes) {
        if let Some(memory) = self.memory() {
            memory.change(&key(b'b', body, at / BLOCK_BYTES as u64), &mut |_| Some(Slot::of_block(bytes.clone())));
        }
    }
}
