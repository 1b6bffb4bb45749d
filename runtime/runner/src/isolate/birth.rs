//! How an isolate is born: from the snapshot, with our callbacks in place of deno_core's, and without what workers must not see.

use std::rc::Rc;
use std::sync::Arc;

use deno_core::v8;

use super::memory::External;
use super::polling::Signal;
use super::{Isolate, IsolateSetup, LoadState};
use crate::blobs::CountingBlobs;
use crate::engine::Engine;
use crate::exception;
use crate::hooks::Hooks;
use crate::invocations::{Invocations, promise_rejected};
use crate::modules;
use crate::snapshot;

impl Isolate {
    /// Makes a blank isolate from the snapshot (3 ms). Must be called inside an entered tokio current-thread runtime, after
    /// [`crate::snapshot::init_platform`].
    pub fn blank(setup: IsolateSetup) -> Self {
        let state = Rc::new(Invocations::new(setup.surroundings));
        let blobs = Arc::new(CountingBlobs::default());
        let mut engine = Engine::new(snapshot::options(setup.heap_bytes_max, setup.allocator, blobs.clone(), state.clone()));
        let signal = Arc::new(Signal::default());
        let (context, external_at_birth) = {
            let mut entered = engine.enter();
            furnish(entered.v8_isolate(), &state);
            deno_core::scope!(scope, entered);
            scope.get_current_context().set_allow_generation_from_strings(false);
            let (getter, to_string) = stack_functions(scope);
            *state.stack_getter.borrow_mut() = getter;
            *state.site_to_string.borrow_mut() = to_string;
            *state.hooks.borrow_mut() = Hooks::take(scope);
            let context = v8::Global::new(scope, scope.get_current_context());
            let statistics = scope.get_heap_statistics();
            (context, External::of(scope, &statistics))
        };
        assert!(state.hooks.borrow().is_some(), "the snapshot has our functions: the build script made it from the same sources");
        Self {
            engine,
            context: Some(context),
            state,
            load: LoadState::Blank,
            evaluation: None,
            signal,
            blobs,
            external_at_birth,
            near_heap_limit: false,
            collected: None,
        }
    }
}

/// The callbacks that V8 has from us instead of from deno_core.
fn furnish(isolate: &mut v8::Isolate, state: &Rc<Invocations>) {
    isolate.set_slot(state.clone());
    isolate.set_promise_reject_callback(promise_rejected);
    isolate.set_prepare_stack_trace_callback(exception::prepare_stack_trace);
    isolate.set_host_import_module_dynamically_callback(modules::import_dynamically);
    isolate.set_host_import_module_with_phase_dynamically_callback(modules::import_dynamically_with_phase);
    isolate.set_host_initialize_import_meta_object_callback(modules::import_meta);
    isolate.set_allow_wasm_code_generation_callback(modules::wasm_allowed);
    isolate.set_allow_atomics_wait(false);
    isolate.set_oom_error_handler(crate::last_words::on_out_of_memory);
}

/// V8's own `stack` getter (none where it is plain data) and `CallSite.prototype.toString`, before any worker ran.
fn stack_functions(scope: &mut v8::PinScope<'_, '_>) -> (Option<v8::Global<v8::Value>>, Option<v8::Global<v8::Function>>) {
    let source = "(() => {
        const get = Object.getOwnPropertyDescriptor(new Error(''), 'stack')?.get;
        Error.prepareStackTrace = (_, sites) => sites;
        const sites = new Error('').stack;
        delete Error.prepareStackTrace;
        return [get, sites[0]?.toString];
    })()";
    let functions = v8::String::new(scope, source)
        .and_then(|source| v8::Script::compile(scope, source, None))
        .and_then(|script| script.run(scope))
        .and_then(|pair| v8::Local::<v8::Array>::try_from(pair).ok());
    let Some(functions) = functions else { return (None, None) };
    let getter = functions.get_index(scope, 0).filter(|getter| getter.is_function()).map(|getter| v8::Global::new(scope, getter));
    let to_string = functions
        .get_index(scope, 1)
        .and_then(|function| v8::Local::<v8::Function>::try_from(function).ok())
        .map(|function| v8::Global::new(scope, function));
    (getter, to_string)
}
