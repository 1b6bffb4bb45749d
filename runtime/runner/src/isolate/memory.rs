//! What an isolate holds, and the two moments at which V8 says so by itself: a full collection, and a heap that is nearly full.

use std::ffi::c_void;

use deno_core::v8;

use super::Isolate;
use crate::limits::OWN_BYTES_FREE;

/// Memory of an isolate, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heap {
    /// V8 heap in use.
    pub used: u64,
    /// What V8 knows to hang on its objects outside the heap, but for what it is born with, and what its compilers hold beyond their
    /// usual little.
    pub external: u64,
}

/// What V8 counts outside the heap of an isolate, by its two books: array buffers stand in both, wasm memories in one only, and so do
/// external strings (700 KB of scripts of ours).
pub(super) struct External {
    /// `Heap::backing_store_bytes`: array buffers and strings.
    backing: u64,
    /// `Heap::external_memory`: what objects own, which are array buffers and wasm memories.
    owned: u64,
}

impl External {
    /// `statistics` are the isolate's own.
    pub(super) fn of(isolate: &mut v8::Isolate, statistics: &v8::HeapStatistics) -> Self {
        Self { backing: statistics.external_memory() as u64, owned: owned_bytes(isolate) }
    }

    /// What has come since `birth`, in bytes.
    fn since(&self, birth: &Self) -> u64 {
        self.backing.saturating_sub(birth.backing).max(self.owned.saturating_sub(birth.owned))
    }
}

/// What the objects of an isolate own outside its heap, in bytes. For its own thread.
pub(crate) fn owned_bytes(isolate: &mut v8::Isolate) -> u64 {
    u64::try_from(isolate.adjust_amount_of_external_allocated_memory(0)).unwrap_or(0)
}

/// Takes the bytes that are alive.
pub(super) type Collected = Box<dyn Fn(u64)>;

impl Isolate {
    /// Memory in use.
    pub fn heap(&mut self) -> Heap {
        let (statistics, external) = {
            let mut entered = self.engine.enter();
            let isolate = entered.v8_isolate();
            let statistics = isolate.get_heap_statistics();
            let external = External::of(isolate, &statistics);
            (statistics, external.since(&self.external_at_birth))
        };
        let own = (statistics.malloced_memory() as u64).saturating_sub(OWN_BYTES_FREE);
        Heap { used: statistics.used_heap_size() as u64, external: external + own + self.blobs.bytes() }
    }

    /// What the objects of the isolate owned outside the heap when it was blank, in bytes.
    pub fn owned_at_birth(&self) -> u64 {
        self.external_at_birth.owned
    }

    /// Collects all garbage, also outside the heap.
    pub fn collect_garbage(&mut self) {
        self.engine.enter().v8_isolate().low_memory_notification();
    }

    /// Installs what is told the bytes of the heap that are alive, after each full collection, when that is known exactly. Once.
    pub fn on_collected(&mut self, callback: impl Fn(u64) + 'static) {
        if self.collected.is_some() {
            return;
        }
        let callback: Box<Collected> = Box::new(Box::new(callback));
        let data: *const Collected = &raw const *callback;
        self.engine.enter().v8_isolate().add_gc_epilogue_callback(collected, data.cast_mut().cast(), v8::GCType::kGCTypeMarkSweepCompact);
        self.collected = Some(callback);
    }

    /// Installs the callback that V8 asks when the heap is nearly full: `(current, initial, used) -> new limit`, in bytes;
    /// V8 also asks when something outside the heap could not be had. Once.
    pub fn on_near_heap_limit(&mut self, mut callback: impl FnMut(usize, usize, usize) -> usize + 'static) {
        if std::mem::replace(&mut self.near_heap_limit, true) {
            return;
        }
        let mut entered = self.engine.enter();
        // SAFETY: V8 calls back only while the isolate lives, on its own thread; counters are read, nothing is run.
        let pointer = unsafe { entered.v8_isolate().as_raw_isolate_ptr() };
        entered.add_near_heap_limit_callback(move |current, initial| {
            // SAFETY: as above.
            let mut isolate = unsafe { v8::Isolate::from_raw_isolate_ptr(pointer) };
            let used = isolate.get_heap_statistics().used_heap_size();
            callback(current, initial, used)
        });
    }

    /// No more calls: the isolate is about to go, and what is called with it.
    pub(super) fn forget_collected(&mut self) {
        if let Some(callback) = self.collected.take() {
            let data: *const Collected = &raw const *callback;
            self.engine.enter().v8_isolate().remove_gc_epilogue_callback(collected, data.cast_mut().cast());
        }
    }
}

unsafe extern "C" fn collected(isolate: v8::UnsafeRawIsolatePtr, _: v8::GCType, _: v8::GCCallbackFlags, data: *mut c_void) {
    // SAFETY: V8 calls on the isolate's own thread, with what `on_collected` gave; it is removed before it is dropped.
    let (mut isolate, callback) = unsafe { (v8::Isolate::from_raw_isolate_ptr(isolate), &*data.cast::<Collected>()) };
    callback(isolate.get_heap_statistics().used_heap_size() as u64);
}
