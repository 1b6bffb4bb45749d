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
    /// Of all that waits, and of what the writer has in hand.
    bytes: u64,
    in_hand: u64,
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
    /// What it holds: memory may have dropped it long before it is written.
    fn bytes(&self) -> u64 {
        const OWN: u64 = size_of::<(u64, Order)>() as u64;
        match self {
            Self::Put { key, entry, .. } => OWN + (key.len() + entry.weight()) as u64,
            Self::Slice { pieces, .. } => OWN + pieces.iter().map(|piece| (size_of::<Bytes>() + piece.len()) as u64).sum::<u64>(),
            Self::Kill { .. } | Self::Abandon | Self::Barrier(_) => 0,
        }
    }
}

impl State {
    /// (What is larger than all the room comes in alone.)
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
        (state.bytes, state.kills) = (state.in_hand, 0);
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

    /// The next order and its number; waits at most `within`. What was taken before is done: its bytes are free. `Err`: nothing more will come.
    pub(super) fn pop(&self, within: Duration) -> Result<Option<(u64, Order)>, Closed> {
        let mut state = self.state.lock();
        state.bytes -= std::mem::take(&mut state.in_hand);
        if state.orders.is_empty() && !state.closed {
            self.changed.wait_for(&mut state, within);
        }
        match state.orders.pop_front() {
            Some((number, order)) => {
                state.in_hand = order.bytes();
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

    /// Bytes that wait, or are being written.
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
    use selvedge_origin::registry::Coding;

    use super::*;
    use crate::cache::entry::{Encoding, Slot, StoredBody};
    use crate::cache::tests::{entry, varied};

    fn put(entry: Arc<Entry>) -> Order {
        Order::Put { name: 1, key: (*b"key").into(), entry }
    }

    #[test]
    fn what_is_being_written_takes_room_until_it_is_written() {
        let queue = Queue::default();
        let large = || put(entry(&vec![0; 20 << 20]));
        assert!(queue.push(large()).is_ok() && queue.push(large()).is_err());
        let in_hand = queue.pop(Duration::ZERO).expect("open");
        assert!(queue.is_empty() && queue.bytes() > 20 << 20 && queue.push(large()).is_err(), "it is held while it is written");
        queue.abandon(|_| {});
        assert!(queue.bytes() > 20 << 20, "what is dropped is not what is in hand");
        drop(in_hand);
        assert!(matches!(queue.pop(Duration::ZERO), Ok(Some((_, Order::Abandon)))));
        assert_eq!(queue.bytes(), 0);
        assert!(queue.push(large()).is_ok());
    }

    #[test]
    fn a_response_that_waits_is_charged_all_that_it_holds() {
        let plain = entry(b"x");
        let fields = varied(b"x", &[("x-long", "0123456789".repeat(1_000).leak())], &[]);
        let coded = Encoding::Smaller(Arc::new(plain.coded(Coding::Gzip, Some(StoredBody::new(&[Bytes::from(vec![0; 50_000])])))));
        let with_coding = Slot::default().with(plain.clone()).with_encoding(&plain.body, Coding::Gzip, &coded);
        let charged = |entry: &Arc<Entry>| put(entry.clone()).bytes() as usize;
        assert!(charged(&plain) > plain.weight() && charged(&fields) > 10_000 + charged(&plain) - 100);
        assert!(charged(&with_coding.variants()[0]) > 50_000);
    }

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
