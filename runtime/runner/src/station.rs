//! What a JavaScript thread shows of itself to the watchdog. Stations live as long as the process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use deno_core::v8;
use parking_lot::Mutex;
use selvedge_runtime::protocol::Area;

use crate::link::Link;
use crate::span::Span;

/// One JavaScript thread, from outside.
pub(crate) struct Station {
    pub(crate) link: Link,
    pub(crate) span: Span,
    /// Where the edge looks.
    pub(crate) area: Option<Area>,
    /// See [`crate::arguments::Arguments::console_places`].
    pub(crate) places_lines: bool,
    /// Since when the thread has been in one turn of its loop (monotonic, nanoseconds); 0 while it waits.
    turn_started_ns: AtomicU64,
    /// Bytes that the isolate which runs may hold outside its heap.
    pub(crate) external_bytes_max: AtomicU64,
    /// Bytes that it may hold in its heap.
    pub(crate) heap_bytes_max: AtomicU64,
    /// Bytes that it may hold in all.
    pub(crate) memory_bytes_max: AtomicU64,
    /// Its invocations.
    pub(crate) live: AtomicUsize,
    /// The number of the isolate that was asked to look at them and has not yet; 0: none.
    pub(crate) asked_to_look: AtomicU64,
    handles: Mutex<HashMap<u64, v8::IsolateHandle>>,
}

impl Station {
    pub(crate) fn new(link: Link, area: Option<Area>, places_lines: bool) -> Self {
        Self {
            link,
            span: Span::default(),
            area,
            places_lines,
            turn_started_ns: AtomicU64::new(0),
            external_bytes_max: AtomicU64::new(u64::MAX),
            heap_bytes_max: AtomicU64::new(u64::MAX),
            memory_bytes_max: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            asked_to_look: AtomicU64::new(0),
            handles: Mutex::new(HashMap::new()),
        }
    }

    /// Without an edge.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        let (ours, _) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        Self::new(Link::new(ours.into()).expect("a second descriptor"), None, false)
    }

    /// The thread begins a turn.
    pub(crate) fn turn_begins(&self, now_ns: u64) {
        self.turn_started_ns.store(now_ns.max(1), Ordering::Release);
    }

    /// The thread goes to wait, unless something is in its inbox: then the turn goes on.
    pub(crate) fn turn_ends(&self) -> bool {
        let inbox = self.link.inbox.lock();
        // Under the lock: the watchdog puts messages there only while a turn lasts.
        if inbox.is_empty() {
            self.turn_started_ns.store(0, Ordering::Release);
            if let Some(area) = &self.area {
                area.turn_ends();
            }
        }
        inbox.is_empty()
    }

    /// Since when the thread has been in its turn; 0 while it waits.
    pub(crate) fn turn_started_ns(&self) -> u64 {
        self.turn_started_ns.load(Ordering::Acquire)
    }

    /// An isolate was born.
    pub(crate) fn add_isolate(&self, number: u64, handle: v8::IsolateHandle) {
        self.handles.lock().insert(number, handle);
    }

    /// It is no more.
    pub(crate) fn remove_isolate(&self, number: u64) {
        self.handles.lock().remove(&number);
    }

    /// Calls `f` with an isolate's handle, if it lives.
    pub(crate) fn with_isolate(&self, number: u64, f: impl FnOnce(&v8::IsolateHandle)) {
        if let Some(handle) = self.handles.lock().get(&number) {
            f(handle);
        }
    }
}
