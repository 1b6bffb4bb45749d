//! The isolates of a thread: their birth, what follows each entry into one, and their end.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Context;
use std::time::Instant;

use selvedge_runtime::protocol::{BodyKind, Fields, LoadHead, RequestHead, Slot, StreamId, ToEdge, ToRunner};
use selvedge_runtime::{ClientInfo, Limits, Module, Outcome};

use super::JsThread;
use super::seat::Seat;
use super::wake::Alarm;
use crate::heap::{self, ExternalBudget};
use crate::isolate::{Heap, Isolate, IsolateSetup, LoadState, Pulse};
use crate::limits::{BACKGROUND_CPU, BACKGROUND_PERIOD, HEAP_LOOK_AFTER, LOAD_WALL};

/// An isolate that runs nothing yet.
pub(super) struct Blank {
    isolate: Isolate,
    seat: Rc<Seat>,
}

/// An isolate that runs a version.
pub(super) struct Tenant {
    isolate: Isolate,
    pub(super) seat: Rc<Seat>,
    pub(super) alarm: Alarm,
    pub(super) limits: Limits,
    /// To be dropped as soon as its invocations have ended.
    pub(super) draining: bool,
    /// Invocations that came before the version was ready, and what came for them.
    pub(super) waiting: VecDeque<Start>,
    pub(super) waiting_messages: VecDeque<ToRunner>,
    load_until: Option<Instant>,
    next_timer: Option<Instant>,
    heap: Heap,
    heap_looked_ns: u64,
}

/// A `Start`, but for its slot.
pub(super) struct Start {
    pub(super) stream: StreamId,
    pub(super) head: RequestHead<Fields>,
    pub(super) client: ClientInfo,
    pub(super) body: BodyKind,
}

impl Tenant {
    /// When it must be polled at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next_timer.into_iter().chain(self.load_until).min()
    }
}

impl JsThread {
    /// Makes an isolate, for a version's limits or for any.
    pub(super) fn bear(&mut self, limits: Option<&Limits>) -> Blank {
        let default = Limits::default();
        let limits = limits.unwrap_or(&default);
        self.isolates_born += 1;
        let external = ExternalBudget::new(self.station, limits.external_bytes_max);
        let seat = Seat::new(&self.shared, self.isolates_born, external.clone());
        let mut isolate = Isolate::blank(IsolateSetup {
            heap_bytes_max: usize::try_from(limits.heap_bytes_max).unwrap_or(usize::MAX),
            allocator: Some(heap::allocator(external.clone())),
            surroundings: seat.clone(),
        });
        let handle = isolate.handle();
        external.belongs_to(handle.clone());
        isolate.on_collected(heap::limit(self.station, handle.clone(), seat.overflowed.clone(), limits.heap_bytes_max));
        isolate.on_near_heap_limit(heap::near_limit(self.station, handle.clone(), seat.overflowed.clone()));
        self.station.add_isolate(seat.number, handle);
        Blank { isolate, seat }
    }

    /// Loads a version into an isolate.
    pub(super) fn settle_in(&mut self, slot: Slot, head: LoadHead, modules: Vec<Module>) {
        let limits = head.limits.clone();
        let pooled = if limits.heap_bytes_max == Limits::default().heap_bytes_max { self.blanks.pop() } else { None };
        let Blank { isolate, seat } = pooled.unwrap_or_else(|| self.bear(Some(&limits)));
        self.blank_taken();
        seat.take(slot, &limits, isolate.owned_at_birth());
        let entry = self.tenants.vacant_entry();
        let key = entry.key();
        entry.insert(Tenant {
            isolate,
            seat,
            alarm: self.woken.alarm(key),
            limits,
            draining: false,
            waiting: VecDeque::new(),
            waiting_messages: VecDeque::new(),
            load_until: Some(Instant::now() + LOAD_WALL),
            next_timer: None,
            heap: Heap { used: 0, external: 0 },
            heap_looked_ns: 0,
        });
        self.slots.insert(slot, key);
        self.enter(key, |isolate| isolate.load(slot, head, modules));
    }

    /// Starts an invocation of a version that is ready.
    pub(super) fn begin(&mut self, key: usize, start: Start) {
        if let Some(area) = &self.station.area {
            area.starts(start.stream);
        }
        self.enter(key, |isolate| isolate.start(start.stream, start.head, start.client, start.body));
    }

    /// Polls an isolate that was woken.
    pub(super) fn poll_isolate(&mut self, key: usize) {
        let Some(tenant) = self.tenants.get(key) else { return };
        tenant.alarm.reset();
        let late = tenant.load_until.is_some_and(|until| until <= Instant::now());
        if late {
            let message = format!("loading took longer than {} s", LOAD_WALL.as_secs());
            return self.evict(key, Outcome::StartupFailed, message);
        }
        let waker = tenant.alarm.waker.clone();
        self.enter_polled(key, |isolate| isolate.poll(&mut Context::from_waker(&waker)));
    }

    /// Calls into an isolate, draws the consequences, and has it polled in this turn where it can go on.
    pub(super) fn enter(&mut self, key: usize, call: impl FnOnce(&mut Isolate) -> Pulse) {
        self.enter_polled(key, call);
        if let Some(tenant) = self.tenants.get(key).filter(|tenant| tenant.isolate.wants_poll()) {
            tenant.alarm.waker.wake_by_ref();
        }
    }

    fn enter_polled(&mut self, key: usize, call: impl FnOnce(&mut Isolate) -> Pulse) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        let pulse = call(&mut tenant.isolate);
        // Whoever was hit by a termination is dropped, also where V8 did not come to obey it.
        let verdict =
            tenant.seat.verdict.take().or_else(|| (pulse == Pulse::Terminated).then_some((tenant.seat.last.get(), Outcome::InternalError)));
        let overflowed = tenant.seat.overflowed.get().then_some((tenant.seat.last.get(), Outcome::ExceededMemory));
        self.report_finished(key);
        if let Some((stream, reason)) = overflowed.or(verdict).or_else(|| self.look_at_heap(key)) {
            return self.condemn(key, stream, reason);
        }
        self.cut_overdrawn(key);
        self.follow_load(key);
        if let Some(tenant) = self.tenants.get_mut(key) {
            tenant.next_timer = tenant.isolate.next_timer();
        }
        self.leave_if_drained(key);
    }

    /// Sends `Done` for what has ended.
    pub(super) fn report_finished(&mut self, key: usize) {
        loop {
            let Some((stream, outcome)) = self.shared.finished.borrow_mut().pop_front() else { return };
            let (Some(account), Some(tenant)) = (self.shared.close(stream), self.tenants.get_mut(key)) else { continue };
            tenant.seat.live.set(tenant.seat.live.get().saturating_sub(1));
            let (cpu_us, heap_bytes) = (account.cpu_ns / 1000, tenant.heap.used);
            self.station.link.send(&ToEdge::Done { stream, outcome, cpu_us, heap_bytes });
        }
    }

    /// Measures the isolate's memory, not more often than needed. Says whether it holds too much.
    fn look_at_heap(&mut self, key: usize) -> Option<(StreamId, Outcome)> {
        let now_ns = self.shared.meter.now_ns();
        let tenant = self.tenants.get_mut(key)?;
        if now_ns.saturating_sub(tenant.heap_looked_ns) < HEAP_LOOK_AFTER.as_nanos() as u64 {
            return None;
        }
        tenant.heap_looked_ns = now_ns;
        tenant.heap = tenant.isolate.heap();
        let limits = &tenant.limits;
        let is_over = |heap: &Heap| heap.external > limits.external_bytes_max || heap.used > limits.heap_bytes_max;
        if is_over(&tenant.heap) {
            // V8 counts what is dead until it has been collected.
            tenant.seat.collect(|| tenant.isolate.collect_garbage());
            tenant.heap = tenant.isolate.heap();
        }
        let over = is_over(&tenant.heap).then_some((tenant.seat.last.get(), Outcome::ExceededMemory));
        // Hit while it collected: V8 would end its next entry, whosever that is.
        over.or_else(|| tenant.seat.verdict.take())
    }

    /// Ends the invocations that have used up their CPU time between two entries: their isolate need not go with them.
    fn cut_overdrawn(&mut self, key: usize) {
        loop {
            let Some(stream) = self.shared.overdrawn.borrow_mut().pop_front() else { return };
            let Some(tenant) = self.tenants.get_mut(key).filter(|_| self.shared.account(stream).is_some()) else { continue };
            let message = explain(Outcome::ExceededCpu, stream, tenant);
            self.station.link.send(&ToEdge::Failed { stream, outcome: Outcome::ExceededCpu, message });
            self.enter(key, |isolate| isolate.deliver(ToRunner::Cancel { stream, outcome: Outcome::ExceededCpu }));
        }
    }

    /// Draws the consequences of where loading stands.
    fn follow_load(&mut self, key: usize) {
        let Some(tenant) = self.tenants.get_mut(key).filter(|tenant| tenant.seat.is_loading()) else { return };
        match tenant.isolate.load_state() {
            LoadState::Blank | LoadState::Loading => {}
            LoadState::Failed(message) => {
                let message = message.clone();
                self.evict(key, Outcome::StartupFailed, message);
            }
            LoadState::Ready => {
                tenant.seat.loaded();
                tenant.load_until = None;
                tenant.heap = tenant.isolate.heap();
                let (slot, cpu_us) = (tenant.seat.slot.get(), tenant.seat.load_cpu_ns.get() / 1000);
                self.station.link.send(&ToEdge::Loaded { slot, cpu_us, heap_bytes: tenant.heap.used });
                let (waiting, messages) = (std::mem::take(&mut tenant.waiting), std::mem::take(&mut tenant.waiting_messages));
                for start in waiting {
                    self.begin(key, start);
                }
                for message in messages {
                    self.enter(key, |isolate| isolate.deliver(message));
                }
            }
        }
    }

    /// Drops a version's isolate as soon as its invocations have ended.
    pub(super) fn drain(&mut self, key: usize) {
        if let Some(tenant) = self.tenants.get_mut(key) {
            tenant.draining = true;
        }
        self.leave_if_drained(key);
    }

    fn leave_if_drained(&mut self, key: usize) {
        if self.tenants.get(key).is_some_and(|tenant| tenant.draining && tenant.seat.live.get() == 0) {
            self.evict(key, Outcome::Ok, String::new());
        }
    }

    /// An isolate was killed: tells whose fault it was, and that the others lost their runner's isolate.
    fn condemn(&mut self, key: usize, offender: StreamId, reason: Outcome) {
        let Some(tenant) = self.tenants.get(key) else { return };
        let live = tenant.isolate.live_streams();
        let why = explain(reason, offender, tenant);
        for stream in live.iter().map(|live| live.stream) {
            let outcome = if stream == offender { reason } else { Outcome::RunnerLost };
            let message = match outcome {
                Outcome::RunnerLost => format!("its isolate was dropped: {reason} in another invocation"),
                _ => why.clone(),
            };
            self.station.link.send(&ToEdge::Failed { stream, outcome, message });
            self.shared.finished.borrow_mut().push_back((stream, outcome));
        }
        self.report_finished(key);
        self.evict(key, reason, why);
    }

    /// Drops an isolate. Its invocations that have started have been told already.
    pub(super) fn evict(&mut self, key: usize, outcome: Outcome, message: String) {
        let Some(tenant) = self.tenants.try_remove(key) else { return };
        let slot = tenant.seat.slot.get();
        self.slots.remove(&slot);
        for start in &tenant.waiting {
            self.shared.close(start.stream);
            self.station.link.send(&ToEdge::Bounced { stream: start.stream });
        }
        self.station.link.send(&ToEdge::Gone { slot, outcome, message });
        // Tearing down a large heap takes its time: nobody should wait for that.
        let _ = self.station.link.flush();
        let Tenant { isolate, seat, .. } = tenant;
        seat.tear_down(|| drop(isolate));
    }
}

/// Which limit an invocation, or a version outside of any (stream 0), has crossed.
fn explain(outcome: Outcome, stream: StreamId, tenant: &Tenant) -> String {
    let limits = &tenant.limits;
    match (outcome, stream) {
        (Outcome::ExceededCpu, 0) if tenant.seat.is_loading() => {
            format!("more than {} ms of CPU time outside of any invocation", limits.startup_cpu_ms)
        }
        (Outcome::ExceededCpu, 0) => {
            let (ms, period_s) = (BACKGROUND_CPU.as_millis(), BACKGROUND_PERIOD.as_secs());
            format!("more than {ms} ms of CPU time in {period_s} s outside of any invocation")
        }
        (Outcome::ExceededCpu, _) => format!("more than {} ms of CPU time", limits.cpu_ms),
        (Outcome::ExceededMemory, _) => {
            let (heap, external) = (limits.heap_bytes_max >> 20, limits.external_bytes_max >> 20);
            format!("more than {heap} MiB of heap, or {external} MiB outside it")
        }
        (outcome, _) => format!("terminated: {outcome}"),
    }
}
