//! What the memory tier's table holds for a key. The table frees what it dropped only when no thread looks at it any more (epochs), and a thread that the kernel keeps off the
//! processor in the middle of a look holds all of that back: bodies of tens of MiB were seen to wait so. Who drops a large slot empties it first, so that its bytes go at once.

use std::sync::Arc;

use parking_lot::Mutex;

use super::entry::Slot;

/// A slot of up to so many bytes may go late: finding it costs nothing more, and thousands of them are a few MiB.
const LATE_BYTES_MAX: usize = 4 << 10;

/// A slot in the table.
#[derive(Debug, Clone)]
pub(super) enum Held {
    Small(Slot),
    /// Empty once it was let go.
    Large(Arc<Mutex<Slot>>),
}

impl Held {
    pub(super) fn new(slot: Slot) -> Self {
        if slot.weight() <= LATE_BYTES_MAX { Self::Small(slot) } else { Self::Large(Arc::new(Mutex::new(slot))) }
    }

    /// What it holds; none, where it was let go.
    pub(super) fn slot(&self) -> Option<Slot> {
        let slot = match self {
            Self::Small(slot) => slot.clone(),
            Self::Large(slot) => slot.lock().clone(),
        };
        (!slot.is_empty()).then_some(slot)
    }

    /// Bytes that it takes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Small(slot) => slot.weight(),
            Self::Large(slot) => slot.lock().weight(),
        }
    }

    /// Takes what it holds out of it: whoever still has a copy of it from the table finds nothing.
    pub(super) fn let_go(self) -> Slot {
        match self {
            Self::Small(slot) => slot,
            Self::Large(slot) => std::mem::take(&mut *slot.lock()),
        }
    }
}
