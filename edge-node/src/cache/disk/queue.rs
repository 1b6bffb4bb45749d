//! What the writer has to do, in order and bounded in bytes. What finds no room is not written: a slow disk costs hits after a restart, never memory or time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::index::PlaceList;
use crate::cache::entry::Entry;
use crate::limits::{DISK_FORGETS_MAX, DISK_QUEUE_BYTES};
use crate::metrics::RouteCounters;

/// One thing to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Write a response.
    Put {
        /// The hash of its key.
        name: u64,
        key: Box<[u8]>,
        entry: Arc<Entry>,
    },
    /// Write a slice of a route's body that arrives; say whether that was done.
    Slice { body: u64, number: u32, pieces: Vec<Bytes>, route: Option<Arc<RouteCounters>>, done: oneshot::Sender<bool> },
    /// Make that these are not found again.
    Kill { name: u64, places: PlaceList },
    /// Drop all that is on disk.
    Abandon,
    /// Say when all before is done.
    Barrier(oneshot::Sender<()>),
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    orders: VecDeque<(u64, Order)>,
    bytes: u64,
    kills: usize,
    last: u64,
    closed: bool,
}

/// There is no room.
#[derive(Debug)]
pub(super) struct Full(Order);

impl Full {
    /// The bytes of a slice that found none.
    pub(super) fn into_pieces(self) -> Vec<Bytes> {
        match self.0 {
            Order::Slice { pieces, .. } => pieces,
            _ => Vec::new(),
        }
    }
}

impl Order {
    fn bytes(&self) -> u64 {
        const OWN: u64 = 1024;
        match self {
            Self::Put { entry, .. } => OWN + if entry.body.on_disk().is_some() { 0 } else { entry.body.len() },
            Self::Slice { pieces, .. } => OWN + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>(),
            Self::Kill { .. } | Self::Abandon | Self::Barrier(_) => 0,
        }
    }
}

impl State {
    fn has_room(&self, bytes: u64) -> bool {
        !self.closed && (self.bytes == 0 || self.bytes + bytes <= DISK_QUEUE_BYTES)
    }
}

impl Queue {
    /// Orders something that may be left undone. Gives its number.
    pub(super) fn push(&self, order: Order) -> Result<u64, Full> {
        let bytes = order.bytes();
        let mut state = self.state.lock();
        if !state.has_room(bytes) {
            return Err(Full(order));
        }
        state.bytes += bytes;
        Ok(self.append(&mut state, order))
    }

    /// Orders that something is forgotten: `forget` is given the order's number, and says what must be killed. False: so many wait that all must be given up.
    pub(super) fn kill(&self, name: u64, forget: impl FnOnce(u64) -> PlaceList) -> bool {
        let mut state = self.state.lock();
        if state.kills >= DISK_FORGETS_MAX {
            return false;
        }
        let places = forget(state.last + 1);
        state.kills += 1;
        self.append(&mut state, Order::Kill { name, places });
        true
    }

    /// Orders that all is dropped, in the place of all that waits: `forget` is given the order's number.
    pub(super) fn abandon(&self, forget: impl FnOnce(u64)) {
        let mut state = self.state.lock();
        state.orders.retain(|(_, order)| matches!(order, Order::Barrier(_)));
        (state.bytes, state.kills) = (0, 0);
        forget(state.last + 1);
        self.append(&mut state, Order::Abandon);
    }

    /// Something told when all that was ordered before is done.
    pub(super) fn barrier(&self) -> oneshot::Receiver<()> {
        let (done, told) = oneshot::channel();
        self.append(&mut self.state.lock(), Order::Barrier(done));
        told
    }

    fn append(&self, state: &mut State, order: Order) -> u64 {
        state.last += 1;
        let number = state.last;
        state.orders.push_back((number, order));
        self.changed.notify_one();
        number
    }

    /// The next order and its number; waits at most `within`. `Err`: nothing more will come.
    pub(super) fn pop(&self, within: Duration) -> Result<Option<(u64, Order)>, Closed> {
        let mut state = self.state.lock();
        if state.orders.is_empty() && !state.closed {
            self.changed.wait_for(&mut state, within);
        }
        match state.orders.pop_front() {
            Some((number, order)) => {
                state.bytes -= order.bytes();
                state.kills -= usize::from(matches!(order, Order::Kill { .. }));
                Ok(Some((number, order)))
            }
            None if state.closed => Err(Closed),
            None => Ok(None),
        }
    }

    /// Whether so many bytes would find room.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.state.lock().has_room(bytes)
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().orders.is_empty()
    }

    /// Takes no more orders; what waits is done.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

/// The queue is closed and empty.
#[derive(Debug)]
pub(super) struct Closed;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_to_be_forgotten_is_bounded() {
        let queue = Queue::default();
        let told = queue.barrier();
        for name in 0..DISK_FORGETS_MAX as u64 {
            assert!(queue.kill(name, |_| PlaceList::new()));
        }
        assert!(!queue.kill(0, |_| panic!("nothing is forgotten by an order that is not made")));
        let mut number = 0;
        queue.abandon(|order| number = order);
        assert!(queue.kill(0, |_| PlaceList::new()));
        let pop = || queue.pop(Duration::ZERO).expect("open").expect("an order");
        assert!(matches!(pop(), (1, Order::Barrier(_))), "who waits is told");
        assert!(matches!(pop(), (at, Order::Abandon) if at == number));
        assert!(matches!(pop(), (at, Order::Kill { .. }) if at == number + 1));
        assert!(queue.is_empty());
        drop(told);
    }
}
