//! The requests in flight that a server may have. Their number may change while some are out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places for requests in flight.
#[derive(Debug)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    max: AtomicUsize,
    /// Places that are out and shall not come back: there are fewer now.
    surplus: AtomicUsize,
}

/// One of the requests in flight that an upstream may have.
pub(super) struct Slot(Option<(OwnedSemaphorePermit, Arc<Slots>)>);

impl Slots {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(max)), max: AtomicUsize::new(max), surplus: AtomicUsize::new(0) })
    }

    /// From now on so many. Those that are out stay out; one caller at a time.
    pub(super) fn resize(&self, max: usize) {
        let before = self.max.swap(max, Ordering::AcqRel);
        if max < before {
            let gone = self.free.forget_permits(before - max);
            self.surplus.fetch_add(before - max - gone, Ordering::AcqRel);
        } else {
            let added = max - before;
            let kept = |surplus: usize| Some(surplus.saturating_sub(added));
            let surplus = self.surplus.fetch_update(Ordering::AcqRel, Ordering::Acquire, kept).unwrap_or_default();
            self.free.add_permits(added.saturating_sub(surplus));
        }
    }

    /// A place, if one is free.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Slot> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        Some(Slot(Some((permit, self.clone()))))
    }

    /// The next place that is free. Cancel-safe.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Slot> {
        let permit = self.free.clone().acquire_owned().await.ok()?;
        Some(Slot(Some((permit, self.clone()))))
    }

    /// No place is free.
    pub(super) fn is_full(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// Places that are out.
    pub(super) fn taken(&self) -> usize {
        let all = self.max.load(Ordering::Acquire) + self.surplus.load(Ordering::Acquire);
        all.saturating_sub(self.free.available_permits())
    }
}

impl Slot {
    /// Beside the requests in flight: for a health check, which asks a server and not how busy this node keeps it.
    pub(super) fn beside() -> Self {
        Self(None)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some((permit, slots)) = self.0.take() else { return };
        if slots.surplus.load(Ordering::Acquire) > 0
            && slots.surplus.fetch_update(Ordering::AcqRel, Ordering::Acquire, |surplus| surplus.checked_sub(1)).is_ok()
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_places_take_effect_as_requests_end_and_more_at_once() {
        let slots = Slots::new(4);
        let mut out: Vec<Slot> = (0..4).filter_map(|_| slots.try_take()).collect();
        assert!(out.len() == 4 && slots.try_take().is_none());
        slots.resize(2);
        assert_eq!(slots.taken(), 4);
        out.truncate(2);
        assert!(slots.is_full() && slots.taken() == 2, "the first two that ended left no place");
        out.truncate(1);
        assert_eq!(slots.taken(), 1);
        out.extend(slots.try_take());
        assert!(out.len() == 2 && slots.is_full());
        slots.resize(3);
        out.extend(slots.try_take());
        assert!(out.len() == 3 && slots.is_full());
        slots.resize(1);
        slots.resize(3);
        out.clear();
        assert_eq!((0..9).filter_map(|_| slots.try_take()).collect::<Vec<_>>().len(), 3);
        assert!(slots.try_take().is_some() && slots.taken() == 0, "they came back");
    }
}
