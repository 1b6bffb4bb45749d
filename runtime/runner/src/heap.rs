//! The memory of an isolate: its V8 heap, and what hangs on it outside.

use std::cell::Cell;
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use deno_core::v8;
use selvedge_runtime::Outcome;

use crate::isolate::owned_bytes;
use crate::limits::{HEAP_GRACE_BYTES, HEAP_GRACES_MAX};
use crate::station::Station;

/// V8 asks four times for a buffer, with ever harder garbage collections in between, before it throws a RangeError
/// (`Heap::AllocateExternalBackingStore`). The fourth refusal in a row ends the invocation instead.
const REFUSALS_MAX: u32 = 4;

/// What an isolate holds outside its heap, counted.
pub(crate) struct ExternalBudget {
    bytes: AtomicUsize,
    bytes_max: AtomicU64,
    refusals: AtomicU32,
    station: &'static Station,
    handle: OnceLock<v8::IsolateHandle>,
}

impl ExternalBudget {
    pub(crate) fn new(station: &'static Station, bytes_max: u64) -> Arc<Self> {
        let (bytes, refusals) = (AtomicUsize::new(0), AtomicU32::new(0));
        Arc::new(Self { bytes, bytes_max: AtomicU64::new(bytes_max), refusals, station, handle: OnceLock::new() })
    }

    /// The isolate that it counts for.
    pub(crate) fn belongs_to(&self, handle: v8::IsolateHandle) {
        let _ = self.handle.set(handle);
    }

    /// Lets a version have so many bytes beyond those that the isolate was born with.
    pub(crate) fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max.saturating_add(self.bytes.load(Ordering::Relaxed) as u64), Ordering::Relaxed);
    }

    /// Counts a buffer, or refuses it. Compare-and-swap: adding first would let two callers pass the bound together.
    fn take(&self, len: usize) -> bool {
        let bytes_max = usize::try_from(self.bytes_max.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let grow = |bytes: usize| bytes.checked_add(len).filter(|bytes| *bytes <= bytes_max);
        if self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).is_ok() {
            self.refusals.store(0, Ordering::Relaxed);
            return true;
        }
        // One buffer that could never fit is an error that the worker may handle.
        if len <= bytes_max && self.refusals.fetch_add(1, Ordering::Relaxed) + 1 >= REFUSALS_MAX {
            self.station.span.doom(Outcome::ExceededMemory);
            self.handle.get().map(v8::IsolateHandle::terminate_execution);
        }
        false
    }

    fn give_back(&self, len: usize) {
        self.bytes.fetch_sub(len, Ordering::Relaxed);
    }
}

/// An allocator of array buffers that counts.
pub(crate) fn allocator(budget: Arc<ExternalBudget>) -> v8::UniqueRef<v8::Allocator> {
    static VTABLE: v8::RustAllocatorVtable<ExternalBudget> =
        v8::RustAllocatorVtable { allocate, allocate_uninitialized, free, drop: drop_budget };
    // SAFETY: the pointer is an Arc's, which `drop_budget` takes back.
    unsafe { v8::new_rust_allocator(Arc::into_raw(budget), &VTABLE) }
}

unsafe extern "C" fn allocate(budget: &ExternalBudget, len: usize) -> *mut c_void {
    // SAFETY: calloc has no preconditions.
    counted(budget, len, |len| unsafe { libc::calloc(len, 1) })
}

unsafe extern "C" fn allocate_uninitialized(budget: &ExternalBudget, len: usize) -> *mut c_void {
    // SAFETY: malloc has no preconditions.
    counted(budget, len, |len| unsafe { libc::malloc(len) })
}

fn counted(budget: &ExternalBudget, len: usize, make: impl FnOnce(usize) -> *mut c_void) -> *mut c_void {
    if !budget.take(len) {
        return std::ptr::null_mut();
    }
    // V8 takes null for a failure, and a length of 0 must not look like one.
    let made = make(len.max(1));
    if made.is_null() {
        budget.give_back(len);
    }
    made
}

unsafe extern "C" fn free(budget: &ExternalBudget, data: *mut c_void, len: usize) {
    budget.give_back(len);
    // SAFETY: V8 gives back what the functions above made.
    unsafe { libc::free(data) };
}

unsafe extern "C" fn drop_budget(budget: *const ExternalBudget) {
    // SAFETY: from `Arc::into_raw` in `allocator`.
    drop(unsafe { Arc::from_raw(budget) });
}

/// What is done with the bytes that are alive after a full collection: the invocation that holds more than its version may ends.
pub(crate) fn limit(
    station: &'static Station,
    handle: v8::IsolateHandle,
    overflowed: Rc<Cell<bool>>,
    bytes_max: u64,
) -> impl Fn(u64) + 'static {
    move |alive| {
        if alive > bytes_max {
            overflowed.set(true);
            station.span.doom(Outcome::ExceededMemory);
            handle.terminate_execution();
        }
    }
}

/// What V8 is told when an isolate's memory nears its limit: `(current, initial, used) -> new limit`. When the heap is
/// full, the invocation ends; a little more room lets V8 reach a point where it sees that, instead of aborting the process.
/// V8 also asks when a single object, or something outside the heap, could not be had: that is no verdict yet.
pub(crate) fn near_limit(
    station: &'static Station,
    handle: v8::IsolateHandle,
    overflowed: Rc<Cell<bool>>,
) -> impl FnMut(usize, usize, usize) -> usize + 'static {
    let (mut graces, mut warnings) = (0, 0);
    move |current, initial, used| {
        if used < initial - initial / 8 && warnings < HEAP_GRACES_MAX {
            warnings += 1;
            return current + HEAP_GRACE_BYTES;
        }
        overflowed.set(true);
        station.span.doom(Outcome::ExceededMemory);
        handle.terminate_execution();
        graces += 1;
        if graces <= HEAP_GRACES_MAX { current + HEAP_GRACE_BYTES } else { current }
    }
}

/// Asks an isolate, from the watchdog's thread, to look at what it holds as soon as its JavaScript can be interrupted: V8 collects
/// when it sees fit, and wasm memories and resizable buffers do not come from our allocator.
pub(crate) fn request_look(station: &'static Station, number: u64, handle: &v8::IsolateHandle) {
    // An isolate that was asked may end before it looks: that is no reason not to ask the next.
    if station.asked_to_look.swap(number, Ordering::AcqRel) != number {
        handle.request_interrupt(look, std::ptr::from_ref(station).cast_mut().cast());
    }
}

unsafe extern "C" fn look(isolate: v8::UnsafeRawIsolatePtr, station: *mut c_void) {
    // SAFETY: `request_look` gave a station, which lives as long as the process; V8 calls on the isolate's own thread.
    let (mut isolate, station) = unsafe { (v8::Isolate::from_raw_isolate_ptr(isolate), &*station.cast::<Station>()) };
    station.asked_to_look.store(0, Ordering::Release);
    if isolate.get_heap_statistics().used_heap_size() as u64 > station.heap_bytes_max.load(Ordering::Relaxed) {
        // One full collection, after which `limit` knows what is alive.
        isolate.memory_pressure_notification(v8::MemoryPressureLevel::Critical);
    }
    let bytes_max = station.external_bytes_max.load(Ordering::Relaxed);
    let is_over = |isolate: &mut v8::Isolate| owned_bytes(isolate) > bytes_max;
    if is_over(&mut isolate) {
        // V8 counts what is dead until it has been collected.
        isolate.low_memory_notification();
        if is_over(&mut isolate) {
            station.span.doom(Outcome::ExceededMemory);
            isolate.terminate_execution();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_budget_is_refused_and_what_is_freed_counts_no_more() {
        let budget = ExternalBudget::new(Box::leak(Box::new(Station::detached())), 100);
        assert!(budget.take(60));
        assert!(!budget.take(41));
        assert!(!budget.take(usize::MAX));
        assert!(budget.take(40));
        budget.give_back(60);
        assert!(budget.take(60));
    }
}
