//! Which isolates of a thread want to be polled: each has a waker of its own, so that a turn touches only those.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use futures::task::AtomicWaker;
use parking_lot::Mutex;

/// The isolates that were woken, in order.
#[derive(Default)]
pub(super) struct Woken {
    list: Mutex<Vec<usize>>,
    /// The thread looks at the list itself before its turn ends.
    in_turn: AtomicBool,
    thread: AtomicWaker,
}

/// Wakes one isolate.
struct IsolateWaker {
    key: usize,
    listed: AtomicBool,
    woken: Arc<Woken>,
}

/// An isolate's waker, and whether it is on the list.
pub(super) struct Alarm {
    isolate: Arc<IsolateWaker>,
    pub(super) waker: Waker,
}

impl Woken {
    /// The thread begins a turn, and wants `waker` called for what happens after it.
    pub(super) fn turn_begins(&self, waker: &Waker) {
        self.thread.register(waker);
        self.in_turn.store(true, Ordering::SeqCst);
    }

    /// The thread's turn ends; false where an isolate was woken meanwhile.
    pub(super) fn turn_ends(&self) -> bool {
        self.in_turn.store(false, Ordering::SeqCst);
        self.list.lock().is_empty()
    }

    /// Who wants to be polled.
    pub(super) fn take(&self, into: &mut Vec<usize>) {
        into.append(&mut self.list.lock());
    }

    /// The waker of the isolate with this key.
    pub(super) fn alarm(self: &Arc<Self>, key: usize) -> Alarm {
        let isolate = Arc::new(IsolateWaker { key, listed: AtomicBool::new(false), woken: self.clone() });
        Alarm { waker: isolate.clone().into(), isolate }
    }
}

impl Alarm {
    /// It is being polled: the next wake-up counts again.
    pub(super) fn reset(&self) {
        self.isolate.listed.store(false, Ordering::Release);
    }
}

impl Wake for IsolateWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.listed.swap(true, Ordering::AcqRel) {
            self.woken.list.lock().push(self.key);
            if !self.woken.in_turn.load(Ordering::SeqCst) {
                self.woken.thread.wake();
            }
        }
    }
}
