//! How many bytes of bodies are in memory, whoever holds them: what is stored there, a fetch, or readers of either who are slow. (What is evicted is not gone while somebody
//! reads it.) Where there are too many, what is fetched is not held.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use crate::guarded::guarded;

/// The bytes of all, and how many there may be.
#[derive(Debug)]
pub(crate) struct Ledger {
    bytes: AtomicU64,
    bytes_max: u64,
}

/// What one holds of them. Dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Share {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl Ledger {
    pub(super) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), bytes_max })
    }

    /// For somebody who holds so many bytes.
    pub(super) fn share(self: &Arc<Self>, bytes: u64) -> Share {
        let mut share = Share { ledger: self.clone(), bytes: 0 };
        share.hold(bytes);
        share
    }

    /// Whether so many more are within the bound.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.bytes.load(Relaxed).saturating_add(bytes) <= self.bytes_max
    }
}

impl Share {
    /// It is so many bytes now. Gives whether all together are within the bound.
    pub(crate) fn hold(&mut self, bytes: u64) -> bool {
        if bytes >= self.bytes {
            self.ledger.bytes.fetch_add(bytes - self.bytes, Relaxed);
        } else {
            self.ledger.bytes.fetch_sub(self.bytes - bytes, Relaxed);
        }
        self.bytes = bytes;
        self.is_within()
    }

    /// Whether all together are within the bound.
    pub(crate) fn is_within(&self) -> bool {
        self.ledger.has_room(0)
    }

    /// These bytes, with the share for as long as anybody has some of them.
    pub(super) fn of(self, bytes: Bytes) -> Bytes {
        guarded(bytes, self)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
    }
}
