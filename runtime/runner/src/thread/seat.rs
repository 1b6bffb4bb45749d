//! What an isolate is given to call, and the accounts of a thread's invocations: whose CPU time is whose.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;
use selvedge_runtime::protocol::{BodyKind, STREAMS_MAX, Slot, StreamId, ToEdge};
use selvedge_runtime::{Limits, Outcome};

use super::background::Background;
use crate::heap::ExternalBudget;
use crate::isolate::{FieldIter, Surroundings};
use crate::limits::TEARDOWN_CPU;
use crate::meter::Meter;
use crate::span::Entry;
use crate::station::Station;

/// What all isolates of a thread share.
pub(super) struct Shared {
    pub(super) station: &'static Station,
    pub(super) meter: Meter,
    /// By the low bits of the stream.
    accounts: RefCell<Box<[Account]>>,
    /// Invocations that have ended, not yet told to the edge.
    pub(super) finished: RefCell<VecDeque<(StreamId, Outcome)>>,
    /// Invocations that have used up their CPU time between two entries.
    pub(super) overdrawn: RefCell<VecDeque<StreamId>>,
}

/// One running invocation.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Account {
    /// 0: nobody's.
    stream: StreamId,
    /// The isolate, by its key on this thread.
    pub(super) tenant: usize,
    pub(super) cpu_ns: u64,
    cpu_max_ns: u64,
}

/// An isolate's place on its thread.
pub(super) struct Seat {
    shared: Rc<Shared>,
    /// The isolate's number on this thread; never used again.
    pub(super) number: u64,
    pub(super) slot: Cell<Slot>,
    pub(super) external: Arc<ExternalBudget>,
    external_bytes_max: Cell<u64>,
    heap_bytes_max: Cell<u64>,
    /// What is left for loading; none once it is loaded.
    load_budget_ns: Cell<Option<u64>>,
    /// CPU time that loading took.
    pub(super) load_cpu_ns: Cell<u64>,
    /// CPU time that is left for what belongs to no invocation, once it is loaded.
    background: Cell<Background>,
    /// The CPU time when the entry that lasts began.
    entered_ns: Cell<u64>,
    /// Its invocations, those that wait for it included.
    pub(super) live: Cell<usize>,
    /// The invocation that ran last.
    pub(super) last: Cell<StreamId>,
    /// Its isolate was hit by a termination, in an entry of this invocation, for this reason.
    pub(super) verdict: Cell<Option<(StreamId, Outcome)>>,
    /// V8 has called out that the heap is full.
    pub(super) overflowed: Rc<Cell<bool>>,
}

impl Shared {
    pub(super) fn new(station: &'static Station) -> Rc<Self> {
        let accounts = RefCell::new(vec![Account::default(); STREAMS_MAX].into_boxed_slice());
        Rc::new(Self { station, meter: Meter::new(), accounts, finished: RefCell::default(), overdrawn: RefCell::default() })
    }

    /// Opens the account of an invocation; false where its place is taken.
    pub(super) fn open(&self, stream: StreamId, tenant: usize, cpu_ms: u32) -> bool {
        let mut accounts = self.accounts.borrow_mut();
        match accounts.get_mut(index(stream)) {
            Some(account) if account.stream == 0 && stream != 0 => {
                *account = Account { stream, tenant, cpu_ns: 0, cpu_max_ns: u64::from(cpu_ms) * 1_000_000 };
                true
            }
            _ => false,
        }
    }

    /// The account of a running invocation.
    pub(super) fn account(&self, stream: StreamId) -> Option<Account> {
        self.accounts.borrow().get(index(stream)).filter(|account| account.stream == stream && stream != 0).copied()
    }

    /// Closes it.
    pub(super) fn close(&self, stream: StreamId) -> Option<Account> {
        let account = self.account(stream)?;
        if let Some(place) = self.accounts.borrow_mut().get_mut(index(stream)) {
            *place = Account::default();
        }
        Some(account)
    }

    fn charge(&self, stream: StreamId, cpu_ns: u64) {
        let mut accounts = self.accounts.borrow_mut();
        let Some(account) = accounts.get_mut(index(stream)).filter(|account| account.stream == stream) else { return };
        let before = account.cpu_ns;
        account.cpu_ns += cpu_ns;
        if before <= account.cpu_max_ns && account.cpu_ns > account.cpu_max_ns {
            self.overdrawn.borrow_mut().push_back(stream);
        }
    }
}

const fn index(stream: StreamId) -> usize {
    stream as usize & (STREAMS_MAX - 1)
}

impl Seat {
    pub(super) fn new(shared: &Rc<Shared>, number: u64, external: Arc<ExternalBudget>) -> Rc<Self> {
        Rc::new(Self {
            shared: shared.clone(),
            number,
            slot: Cell::new(0),
            external,
            external_bytes_max: Cell::new(u64::MAX),
            heap_bytes_max: Cell::new(u64::MAX),
            load_budget_ns: Cell::new(None),
            load_cpu_ns: Cell::new(0),
            background: Cell::new(Background::full(shared.meter.now_ns())),
            entered_ns: Cell::new(0),
            live: Cell::new(0),
            last: Cell::new(0),
            verdict: Cell::new(None),
            overflowed: Rc::default(),
        })
    }

    /// The isolate is about to load a version; `born_with` is what V8 counts outside its heap already.
    pub(super) fn take(&self, slot: Slot, limits: &Limits, born_with: u64) {
        self.slot.set(slot);
        self.external.set_bytes_max(limits.external_bytes_max);
        self.external_bytes_max.set(limits.external_bytes_max.saturating_add(born_with));
        self.heap_bytes_max.set(limits.heap_bytes_max);
        self.load_budget_ns.set(Some(u64::from(limits.startup_cpu_ms) * 1_000_000));
    }

    /// It has loaded.
    pub(super) fn loaded(&self) {
        self.load_budget_ns.set(None);
    }

    pub(super) fn is_loading(&self) -> bool {
        self.load_budget_ns.get().is_some()
    }

    /// The isolate is dropped, under the watchdog's eyes.
    pub(super) fn tear_down(&self, drop_it: impl FnOnce()) {
        self.enter(0, TEARDOWN_CPU.as_nanos() as u64);
        drop_it();
        let _ = self.shared.station.span.end();
        self.shared.station.remove_isolate(self.number);
    }

    /// The isolate's garbage is collected, under the watchdog's eyes.
    pub(super) fn collect(&self, collect: impl FnOnce()) {
        self.enter(0, TEARDOWN_CPU.as_nanos() as u64);
        collect();
        self.leave(self.last.get());
    }

    /// The entry is over. If its isolate was hit, it goes, and this invocation is why.
    fn leave(&self, stream: StreamId) {
        if let Some(reason) = self.shared.station.span.end() {
            self.verdict.set(Some((stream, reason)));
        }
    }

    fn background<T>(&self, change: impl FnOnce(&mut Background) -> T) -> T {
        let mut background = self.background.get();
        let result = change(&mut background);
        self.background.set(background);
        result
    }

    fn enter(&self, stream: StreamId, cpu_budget_ns: u64) {
        let (station, cpu_start_ns) = (self.shared.station, self.shared.meter.cpu_ns());
        self.entered_ns.set(cpu_start_ns);
        let (external, heap) = (self.external_bytes_max.get(), self.heap_bytes_max.get());
        station.external_bytes_max.store(external, Ordering::Relaxed);
        station.heap_bytes_max.store(heap, Ordering::Relaxed);
        station.memory_bytes_max.store(external.saturating_add(heap), Ordering::Relaxed);
        station.live.store(self.live.get(), Ordering::Relaxed);
        if let Some(area) = &station.area {
            area.turn_begins(station.turn_started_ns(), stream);
        }
        station.span.begin(Entry { isolate: self.number, slot: self.slot.get(), stream, cpu_start_ns, cpu_budget_ns });
    }
}

impl Surroundings for Seat {
    fn respond(&self, stream: StreamId, status: StatusCode, fields: &mut FieldIter<'_>, body: BodyKind) {
        self.shared.station.link.respond(stream, status, fields, &body);
    }

    fn send(&self, message: ToEdge) {
        self.shared.station.link.send(&message);
    }

    fn before_js(&self, stream: StreamId) {
        let budget = match (self.shared.account(stream), self.load_budget_ns.get()) {
            (Some(account), _) => account.cpu_max_ns.saturating_sub(account.cpu_ns),
            (None, Some(load)) => load,
            (None, None) => self.background(|background| background.left_ns(self.shared.meter.now_ns())),
        };
        self.last.set(stream);
        self.enter(stream, budget);
    }

    fn after_js(&self, stream: StreamId) {
        let used = self.shared.meter.cpu_ns().saturating_sub(self.entered_ns.get());
        self.leave(stream);
        if let Some(left) = self.load_budget_ns.get() {
            self.load_cpu_ns.set(self.load_cpu_ns.get() + used);
            self.load_budget_ns.set(Some(left.saturating_sub(used)));
        } else if self.shared.account(stream).is_some() {
            self.shared.charge(stream, used);
            self.background(|background| background.earn(used));
        } else if !self.background(|background| background.spend(used)) && self.verdict.get().is_none() {
            self.verdict.set(Some((0, Outcome::ExceededCpu)));
        }
    }

    fn places_lines(&self) -> bool {
        self.shared.station.places_lines
    }

    fn finished(&self, stream: StreamId, outcome: Outcome) {
        self.shared.finished.borrow_mut().push_back((stream, outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invocation_may_use_its_cpu_time_to_the_last_nanosecond_and_is_overdrawn_once() {
        let shared = Shared::new(Box::leak(Box::new(Station::detached())));
        let limit_ns = u64::from(Limits::default().cpu_ms) * 1_000_000;
        assert!(shared.open(1, 0, Limits::default().cpu_ms));
        shared.charge(1, limit_ns - 1);
        shared.charge(1, 1);
        assert!(shared.overdrawn.borrow().is_empty(), "at the limit");
        shared.charge(1, 1);
        shared.charge(1, 1);
        assert_eq!(*shared.overdrawn.borrow(), [1]);
    }

    #[test]
    fn a_start_up_has_400_ms_of_cpu_time_in_all_and_each_entry_what_is_left_of_them() {
        let shared = Shared::new(Box::leak(Box::new(Station::detached())));
        let seat = Seat::new(&shared, 1, ExternalBudget::new(shared.station, 100));
        seat.take(3, &Limits::default(), 0);
        let budget_ns = || shared.station.span.look().expect("an entry").entry.cpu_budget_ns;
        let mut left_ns = 400_000_000;
        for _ in 0..3 {
            seat.before_js(0);
            assert_eq!(budget_ns(), left_ns);
            let begun = shared.meter.cpu_ns();
            while shared.meter.cpu_ns() - begun < 2_000_000 {}
            seat.after_js(0);
            left_ns = 400_000_000 - seat.load_cpu_ns.get();
            assert!(left_ns < 400_000_000);
        }
        // The last nanosecond of them, and then none.
        seat.load_budget_ns.set(Some(1));
        seat.before_js(0);
        assert_eq!(budget_ns(), 1);
        seat.after_js(0);
        seat.before_js(0);
        assert_eq!(budget_ns(), 0);
        seat.after_js(0);
    }

    #[test]
    fn an_isolate_that_is_hit_while_its_garbage_is_collected_is_known() {
        let shared = Shared::new(Box::leak(Box::new(Station::detached())));
        let seat = Seat::new(&shared, 1, ExternalBudget::new(shared.station, 100));
        seat.last.set(7);
        seat.collect(|| ());
        assert_eq!(seat.verdict.get(), None);
        seat.collect(|| shared.station.span.doom(Outcome::ExceededCpu));
        assert_eq!(seat.verdict.get(), Some((7, Outcome::ExceededCpu)));
    }
}
