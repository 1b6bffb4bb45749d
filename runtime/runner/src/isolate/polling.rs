//! What makes an isolate go on without a message: due timers, and the engine's own asynchronous operations.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use deno_core::{PollEventLoopOptions, v8};
use futures::task::AtomicWaker;
use selvedge_runtime::Outcome;

use super::{Isolate, Pulse};
use crate::hooks::Hook;
use crate::limits::{READY_PER_POLL_MAX, TIMERS_PER_POLL_MAX};

/// Wakes the thread, and remembers that it was this isolate's engine that asked.
pub(super) struct Signal {
    pub(super) woken: AtomicBool,
    thread: AtomicWaker,
}

impl Default for Signal {
    /// The first poll shows the engine our waker.
    fn default() -> Self {
        Self { woken: AtomicBool::new(true), thread: AtomicWaker::new() }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.wake();
    }
}

impl Isolate {
    /// Whether [`Isolate::poll`] may have something to do now. Most invocations end within the entry that started them, and leave nothing.
    pub fn wants_poll(&self) -> bool {
        self.signal.woken.load(Ordering::Acquire) || self.evaluation.is_some() || self.state.can_go_on() || self.state.is_hung().is_some()
    }

    /// Runs due timers and whatever became ready, and arranges for a wake-up through `cx` (not for timers: see
    /// [`Isolate::next_timer`]).
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Pulse {
        if self.state.terminated.get() {
            return Pulse::Terminated;
        }
        self.signal.thread.register(cx.waker());
        if self.run_timers() == Pulse::Terminated || self.run_engine() == Pulse::Terminated {
            return Pulse::Terminated;
        }
        if self.evaluation.is_some() && self.advance_load() == Pulse::Terminated {
            return Pulse::Terminated;
        }
        self.end_hung()
    }

    fn run_timers(&mut self) -> Pulse {
        let now = Instant::now();
        for _ in 0..TIMERS_PER_POLL_MAX {
            let Some((id, stream)) = self.state.timers.borrow_mut().due(now) else { break };
            let pulse = self.turn(stream, |scope, state| {
                let id = v8::Integer::new_from_unsigned(scope, id);
                state.call(scope, Hook::Fire, &[id.into()]);
            });
            if pulse == Pulse::Terminated {
                return pulse;
            }
        }
        Pulse::Alive
    }

    /// Lets the engine's own asynchronous operations complete. Pending where some have not.
    fn poll_engine(&mut self) -> Poll<Pulse> {
        self.state.tick();
        self.state.surroundings().before_js(0);
        let waker = Waker::from(self.signal.clone());
        let mut cx = Context::from_waker(&waker);
        let result = self.engine.enter().poll_event_loop(&mut cx, PollEventLoopOptions::default());
        self.state.surroundings().after_js(0);
        if let Poll::Ready(Err(_)) = result
            && self.is_terminating()
        {
            return Poll::Ready(Pulse::Terminated);
        }
        // Continuations may have run in there: what they left is taken up in a turn.
        if self.state.has_leftovers() && self.turn(0, |_, _| {}) == Pulse::Terminated {
            return Poll::Ready(Pulse::Terminated);
        }
        result.map(|_| Pulse::Alive)
    }

    /// The same, and gives each that has completed a turn of its invocation.
    fn run_engine(&mut self) -> Pulse {
        if (self.signal.woken.swap(false, Ordering::AcqRel) || self.state.expects_async.get())
            && self.poll_engine() == Poll::Ready(Pulse::Terminated)
        {
            return Pulse::Terminated;
        }
        for _ in 0..READY_PER_POLL_MAX {
            let Some(stream) = self.state.ready.borrow_mut().pop_front() else { return Pulse::Alive };
            let stream = if self.state.is_live(stream) { stream } else { 0 };
            let pulse = self.turn(stream, |scope, state| {
                state.call(scope, Hook::SettleNext, &[]);
            });
            if pulse == Pulse::Terminated {
                return pulse;
            }
        }
        // More is ready than one poll takes: come again.
        self.signal.wake_by_ref();
        Pulse::Alive
    }

    fn is_terminating(&mut self) -> bool {
        self.engine.enter().v8_isolate().is_execution_terminating()
    }

    /// Ends an invocation that nothing can ever wake again, instead of letting it wait for its wall limit.
    fn end_hung(&mut self) -> Pulse {
        if self.signal.woken.load(Ordering::Acquire) {
            return Pulse::Alive;
        }
        let Some(stream) = self.state.is_hung() else { return Pulse::Alive };
        if self.state.expects_async.get() {
            let Poll::Ready(pulse) = self.poll_engine() else { return Pulse::Alive };
            if pulse == Pulse::Terminated {
                return pulse;
            }
            // It had something to tell: see what comes of that.
            if self.signal.woken.load(Ordering::Acquire) || self.state.is_hung() != Some(stream) {
                self.signal.wake_by_ref();
                return Pulse::Alive;
            }
        }
        self.state.fail(stream, "the handler's promise can never resolve: the script will never generate a response".to_owned());
        self.cancel(stream, Outcome::Exception)
    }
}
