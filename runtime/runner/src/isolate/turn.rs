//! One entry into JavaScript, for one invocation, with all microtasks that follow from it.

use deno_core::v8;
use selvedge_runtime::protocol::StreamId;

use super::{Isolate, Pulse};
use crate::hooks::Hook;
use crate::invocations::Invocations;
use crate::limits::REJECTION_ROUNDS_MAX;

impl Isolate {
    /// One entry into JavaScript: runs `run` and then all microtasks in the context of an invocation, and reports both.
    pub(super) fn turn(&mut self, stream: StreamId, run: impl FnOnce(&mut v8::PinScope<'_, '_>, &Invocations)) -> Pulse {
        if self.state.terminated.get() {
            return Pulse::Terminated;
        }
        let state = self.state.clone();
        state.tick();
        state.surroundings().before_js(stream);
        {
            let mut entered = self.engine.enter();
            v8::scope!(let scope, entered.v8_isolate());
            let Some(context) = self.context.as_ref().map(|context| v8::Local::new(scope, context)) else { return Pulse::Terminated };
            let scope = &mut v8::ContextScope::new(scope, context);
            v8::tc_scope!(let scope, scope);
            enter_context(scope, stream);
            run(scope, &state);
            settle(scope, &state);
            state.quiet.set(false);
            state.forget_timers(scope);
            enter_context(scope, 0);
            if scope.has_terminated() || scope.is_execution_terminating() {
                state.terminated.set(true);
            }
        }
        state.surroundings().after_js(stream);
        state.announce_ended();
        if state.terminated.get() { Pulse::Terminated } else { Pulse::Alive }
    }
}

/// Says whose JavaScript runs: V8 carries it along with every promise.
fn enter_context(scope: &mut v8::PinScope<'_, '_>, stream: StreamId) {
    let context: v8::Local<v8::Value> =
        if stream == 0 { v8::undefined(scope).into() } else { v8::Number::new(scope, stream.into()).into() };
    scope.set_continuation_preserved_embedder_data(context);
}

/// Runs the microtasks, then hands over promises that no one handled, until there are no more.
fn settle(scope: &mut v8::PinScope<'_, '_>, state: &Invocations) {
    scope.perform_microtask_checkpoint();
    for _ in 0..REJECTION_ROUNDS_MAX {
        if state.terminated.get() || scope.is_execution_terminating() {
            return;
        }
        let rejections = state.take_rejections();
        if rejections.is_empty() {
            return;
        }
        for rejection in rejections.into_iter().filter(|_| !state.quiet.get()) {
            enter_context(scope, rejection.stream);
            let promise = v8::Local::new(scope, rejection.promise);
            let reason = v8::Local::new(scope, rejection.reason);
            state.call(scope, Hook::Unhandled, &[promise.into(), reason]);
        }
        scope.perform_microtask_checkpoint();
    }
}
