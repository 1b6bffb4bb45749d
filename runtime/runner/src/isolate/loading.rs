//! Loading a version: its modules are evaluated, which a top-level `await` can draw out, and its handler is taken.

use std::sync::atomic::Ordering;

use deno_core::v8;
use selvedge_runtime::protocol::{LoadHead, Slot};
use selvedge_runtime::{Module, Var};

use super::values::text;
use super::{Isolate, LoadState, Pulse};
use crate::exception;
use crate::hooks::Hook;
use crate::invocations::Invocations;

impl Isolate {
    /// Loads a version: at most once. See [`Isolate::load_state`] for what came of it, at once or after polls.
    pub fn load(&mut self, slot: Slot, head: LoadHead, modules: Vec<Module>) -> Pulse {
        if self.load != LoadState::Blank {
            return Pulse::Alive;
        }
        self.load = LoadState::Loading;
        self.state.slot.set(slot);
        self.state.modules.add(modules);
        let vars = vars_json(&head);
        let mut outcome = Err("the version could not be evaluated".to_owned());
        let pulse = self.turn(0, |scope, state| outcome = evaluate(scope, state, &head.entry, &vars));
        match outcome {
            Ok(evaluation) => self.evaluation = Some(evaluation),
            Err(message) => self.load = LoadState::Failed(message),
        }
        if pulse == Pulse::Terminated { pulse } else { self.advance_load() }
    }

    /// Looks whether the evaluation has ended, and takes the handler if it has.
    pub(super) fn advance_load(&mut self) -> Pulse {
        let Some((promise, module)) = self.evaluation.take() else { return Pulse::Alive };
        let mut result = None;
        let state = self.state.clone();
        let pulse = self.turn(0, |scope, _| {
            let promise = v8::Local::new(scope, &promise);
            match promise.state() {
                v8::PromiseState::Pending => {}
                v8::PromiseState::Fulfilled => result = Some(adopt(scope, &state, &module)),
                v8::PromiseState::Rejected => {
                    promise.mark_as_handled();
                    let exception = promise.result(scope);
                    result = Some(Err(exception::describe(scope, &state, exception, None)));
                }
            }
        });
        match result {
            Some(Ok(())) => self.load = LoadState::Ready,
            Some(Err(message)) => self.load = LoadState::Failed(message),
            None if self.state.expects_async.get() || self.signal.woken.load(Ordering::Acquire) => {
                self.evaluation = Some((promise, module))
            }
            None => self.load = LoadState::Failed("a top-level await waits for something that can never happen".to_owned()),
        }
        pulse
    }
}

/// Begins evaluating a version.
fn evaluate(
    scope: &mut v8::PinScope<'_, '_>,
    state: &Invocations,
    entry: &str,
    vars: &str,
) -> Result<(v8::Global<v8::Promise>, v8::Global<v8::Module>), String> {
    let vars = text(scope, vars);
    state.call(scope, Hook::Prepare, &[vars]);
    v8::tc_scope!(let scope, scope);
    match state.modules.evaluate(scope, state, entry) {
        Some((module, promise)) => Ok((v8::Global::new(scope, promise), v8::Global::new(scope, module))),
        None if scope.has_terminated() => {
            state.terminated.set(true);
            Err("terminated".to_owned())
        }
        None => match (scope.exception(), scope.message()) {
            (Some(exception), message) => {
                let mut text = exception::describe(scope, state, exception, None);
                if !text.contains("\n    at ")
                    && let Some(place) = message.and_then(|message| place(scope, state, message))
                {
                    text.push_str(&place);
                }
                Err(text)
            }
            (None, _) => Err("the version could not be evaluated".to_owned()),
        },
    }
}

/// Where a syntax error is: it has no stack.
fn place(scope: &mut v8::PinScope<'_, '_>, state: &Invocations, message: v8::Local<'_, v8::Message>) -> Option<String> {
    let file = message.get_script_resource_name(scope)?.to_rust_string_lossy(scope);
    let line = message.get_line_number(scope).filter(|line| *line > 0)?;
    let column = message.get_start_column().checked_add(1)?;
    let frame = state.modules.map_frame(&format!("{file}:{line}:{column}"));
    Some(format!("\n    at {frame}"))
}

/// Takes the handler from an evaluated version.
fn adopt(scope: &mut v8::PinScope<'_, '_>, state: &Invocations, module: &v8::Global<v8::Module>) -> Result<(), String> {
    let module = v8::Local::new(scope, module);
    let exported = v8::Local::<v8::Object>::try_from(module.get_module_namespace())
        .ok()
        .and_then(|namespace| v8::String::new(scope, "default").and_then(|key| namespace.get(scope, key.into())))
        .unwrap_or_else(|| v8::undefined(scope).into());
    match state.call(scope, Hook::Adopt, &[exported]) {
        Some(wrong) if wrong.is_undefined() => Ok(()),
        Some(wrong) => Err(wrong.to_rust_string_lossy(scope)),
        None => Err("its default export could not be read".to_owned()),
    }
}

/// `env` as JSON.
fn vars_json(head: &LoadHead) -> String {
    let vars: serde_json::Map<String, serde_json::Value> = head
        .vars
        .iter()
        .map(|(name, var)| {
            let value = match var {
                Var::Text(text) => serde_json::Value::String(text.clone()),
                Var::Json(value) => value.clone(),
            };
            (name.clone(), value)
        })
        .collect();
    serde_json::Value::Object(vars).to_string()
}
