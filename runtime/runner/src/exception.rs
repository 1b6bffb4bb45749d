//! Turns an exception into text for the operator, without running the worker's code.
//!
//! deno_core's own conversion calls a worker's getters for `message`, `stack` and `cause`, and its `Error.prepareStackTrace`,
//! with termination switched off: a thrown object with looping getters then hangs the process. Here names and messages come
//! from V8's conversion without side effects, fields are read as plain data only, and the native `stack` is called with the
//! worker's `prepareStackTrace` out of the way. Everything is bounded.

use deno_core::v8;

use crate::invocations::Invocations;
use crate::limits::{CALLER_FRAMES_MAX, EXCEPTION_BYTES_MAX, EXCEPTION_CAUSES_MAX, EXCEPTION_FRAMES_MAX, PLACE_BYTES_MAX};

/// The text of an exception: name, message, mapped stack, causes. `heading` replaces name and message.
pub(crate) fn describe(
    scope: &mut v8::PinScope<'_, '_>,
    state: &Invocations,
    exception: v8::Local<'_, v8::Value>,
    heading: Option<String>,
) -> String {
    let mut text = heading.unwrap_or_else(|| headline(scope, exception));
    let mut current: v8::Local<v8::Value> = v8::Local::new(scope, exception);
    for depth in 0..=EXCEPTION_CAUSES_MAX {
        append_stack(scope, state, current, &mut text);
        let Some(cause) = data_property(scope, current, "cause") else { break };
        if depth == EXCEPTION_CAUSES_MAX || text.len() > EXCEPTION_BYTES_MAX {
            break;
        }
        text.push_str("\n  caused by: ");
        text.push_str(&headline(scope, cause));
        current = cause;
    }
    truncate(&mut text, EXCEPTION_BYTES_MAX);
    text
}

/// Name and message, by V8's conversion without side effects.
pub(crate) fn headline(scope: &mut v8::PinScope<'_, '_>, exception: v8::Local<'_, v8::Value>) -> String {
    let message = v8::Exception::create_message(scope, exception).get(scope);
    if message.length() > EXCEPTION_BYTES_MAX * 4 {
        return "an exception with a very long message".to_owned();
    }
    let text = message.to_rust_string_lossy(scope);
    let mut text = text.strip_prefix("Uncaught ").unwrap_or(&text).to_owned();
    truncate(&mut text, EXCEPTION_BYTES_MAX / 2);
    text
}

/// Cuts a text at a character boundary.
pub(crate) fn truncate(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let mut end = bytes_max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(" ...");
    }
}

fn append_stack(scope: &mut v8::PinScope<'_, '_>, state: &Invocations, exception: v8::Local<'_, v8::Value>, text: &mut String) {
    let Some(stack) = native_stack(scope, state, exception) else { return };
    for line in stack.lines().filter(|line| line.starts_with("    at ")).take(EXCEPTION_FRAMES_MAX) {
        if text.len() > EXCEPTION_BYTES_MAX {
            break;
        }
        text.push('\n');
        text.push_str(line);
    }
}

/// The `stack` of an error that V8 made: a plain string, or V8's own accessor. Nothing of the worker's runs.
fn native_stack(scope: &mut v8::PinScope<'_, '_>, state: &Invocations, exception: v8::Local<'_, v8::Value>) -> Option<String> {
    let stack = match property(scope, exception, "stack")? {
        Property::Data(value) => value,
        Property::Getter(getter) => {
            let native = v8::Local::new(scope, state.stack_getter.borrow().as_ref()?);
            if getter != native {
                return None;
            }
            state.formatting.set(true);
            let value = v8::Local::<v8::Function>::try_from(getter).ok().and_then(|getter| getter.call(scope, exception, &[]));
            state.formatting.set(false);
            value?
        }
    };
    let stack = v8::Local::<v8::String>::try_from(stack).ok()?;
    (stack.length() <= EXCEPTION_BYTES_MAX * 4).then(|| stack.to_rust_string_lossy(scope))
}

enum Property<'s> {
    Data(v8::Local<'s, v8::Value>),
    Getter(v8::Local<'s, v8::Value>),
}

/// An own property that is plain data.
fn data_property<'s>(scope: &mut v8::PinScope<'s, '_>, value: v8::Local<'_, v8::Value>, name: &str) -> Option<v8::Local<'s, v8::Value>> {
    match property(scope, value, name)? {
        Property::Data(value) => Some(value),
        Property::Getter(_) => None,
    }
}

fn property<'s>(scope: &mut v8::PinScope<'s, '_>, value: v8::Local<'_, v8::Value>, name: &str) -> Option<Property<'s>> {
    if value.is_proxy() || !value.is_object() {
        return None;
    }
    let object: v8::Local<v8::Object> = v8::Local::new(scope, value).try_into().ok()?;
    let key = v8::String::new(scope, name)?;
    // For an object that is not a proxy, this runs no JavaScript; the descriptor is a fresh ordinary object.
    let descriptor: v8::Local<v8::Object> = object.get_own_property_descriptor(scope, key.into())?.try_into().ok()?;
    let own = |scope: &mut v8::PinScope<'s, '_>, name: &str| -> Option<v8::Local<'s, v8::Value>> {
        let key = v8::String::new(scope, name)?;
        if descriptor.has_own_property(scope, key.into())? { descriptor.get(scope, key.into()) } else { None }
    };
    if let Some(value) = own(scope, "value") {
        return Some(Property::Data(value));
    }
    own(scope, "get").map(Property::Getter)
}

/// V8's callback that makes `error.stack`: positions are mapped to the sources, frames of ours are left out. A worker's
/// `Error.prepareStackTrace` is called where the worker itself reads a stack.
pub(crate) fn prepare_stack_trace<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    error: v8::Local<'s, v8::Value>,
    sites: v8::Local<'s, v8::Array>,
) -> v8::Local<'s, v8::Value> {
    let Some(state) = Invocations::of(scope) else { return v8::undefined(scope).into() };
    if !state.formatting.get()
        && let Some(prepared) = prepared_by_worker(scope, &state, error, sites)
    {
        return prepared;
    }
    let mut text = headline(scope, error);
    let to_string = state.site_to_string.borrow().as_ref().map(|function| v8::Local::new(scope, function));
    for index in 0..sites.length() {
        let Some(site) = sites.get_index(scope, index) else { break };
        let Some(frame) = to_string.and_then(|function| function.call(scope, site, &[])) else { break };
        let Ok(frame) = v8::Local::<v8::String>::try_from(frame) else { break };
        if frame.length() > EXCEPTION_BYTES_MAX || text.len() > EXCEPTION_BYTES_MAX {
            break;
        }
        let frame = frame.to_rust_string_lossy(scope);
        if is_internal(&frame) {
            continue;
        }
        text.push_str("\n    at ");
        text.push_str(&state.modules.map_frame(&frame));
    }
    v8::String::new(scope, &text).map_or_else(|| v8::undefined(scope).into(), Into::into)
}

/// Where the worker called whatever runs now, by its sources; nothing where it is not among the innermost frames. Nothing of the worker's runs.
pub(crate) fn caller(scope: &mut v8::PinScope<'_, '_>, state: &Invocations) -> String {
    let place = || {
        let trace = v8::StackTrace::current_stack_trace(scope, CALLER_FRAMES_MAX)?;
        (0..trace.get_frame_count()).find_map(|index| {
            let frame = trace.get_frame(scope, index)?;
            let name = frame.get_script_name(scope).filter(|name| name.length() <= EXCEPTION_BYTES_MAX)?.to_rust_string_lossy(scope);
            (!name.is_empty() && !is_internal(&name))
                .then(|| state.modules.map_frame(&format!("{name}:{}:{}", frame.get_line_number(), frame.get_column())))
        })
    };
    let mut place = place().unwrap_or_default();
    truncate(&mut place, PLACE_BYTES_MAX);
    place
}

/// Whether a frame is of the scripts in the snapshot.
fn is_internal(frame: &str) -> bool {
    ["ext:selvedge/", "ext:core/", "ext:deno_"].iter().any(|internal| frame.contains(internal))
}

fn prepared_by_worker<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &Invocations,
    error: v8::Local<'s, v8::Value>,
    sites: v8::Local<'s, v8::Array>,
) -> Option<v8::Local<'s, v8::Value>> {
    let global = scope.get_current_context().global(scope);
    let name = v8::String::new(scope, "Error")?;
    let constructor: v8::Local<v8::Object> = global.get(scope, name.into())?.try_into().ok()?;
    let name = v8::String::new(scope, "prepareStackTrace")?;
    let prepare: v8::Local<v8::Function> = constructor.get(scope, name.into())?.try_into().ok()?;
    let sites = own_sites(scope, state, sites)?;
    v8::tc_scope!(let scope, scope);
    let prepared = prepare.call(scope, constructor.into(), &[error, sites.into()]);
    if scope.has_terminated() {
        // V8 wants a value from this callback, and would lose the termination over it.
        state.terminated.set(true);
        scope.terminate_execution();
    }
    prepared
}

/// The call sites without ours: they give access to the functions on the stack.
fn own_sites<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &Invocations,
    sites: v8::Local<'s, v8::Array>,
) -> Option<v8::Local<'s, v8::Array>> {
    let to_string = state.site_to_string.borrow().as_ref().map(|function| v8::Local::new(scope, function));
    // None only while the isolate is born, before any worker.
    let Some(to_string) = to_string else { return Some(sites) };
    let mut own = Vec::new();
    for index in 0..sites.length() {
        let site = sites.get_index(scope, index)?;
        let frame: v8::Local<v8::String> = to_string.call(scope, site, &[])?.try_into().ok()?;
        if frame.length() <= EXCEPTION_BYTES_MAX && !is_internal(&frame.to_rust_string_lossy(scope)) {
            own.push(site);
        }
    }
    Some(v8::Array::new_with_elements(scope, &own))
}
