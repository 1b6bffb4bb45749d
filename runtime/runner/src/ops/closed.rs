//! What of the engine's own ops is closed, and how: in Rust, not by deleting names in JavaScript.
//!
//! Ops of the deno_* crates that no script of ours uses are not registered at all. Ops of deno_core itself cannot be left out,
//! so those that workers do not need are replaced by one that throws. Two are replaced by ours, because the originals run a
//! worker's getters inside of Rust, where a termination can get lost.

use std::cell::RefCell;
use std::rc::Rc;

use deno_core::{Extension, OpDecl, OpState, op2, v8};

use super::host;

/// What remains of deno_web's and deno_crypto's ops, by prefix.
const WEB_OPEN: &[&str] = &[
    "op_base64_",
    "op_base64url_",
    "op_blob_clone_part",
    "op_blob_create_part",
    "op_blob_read_part",
    "op_blob_remove_part",
    "op_blob_slice_part",
    "op_compression_",
    "op_console_",
    "op_crypto_",
    "op_encoding_",
    "op_message_port_",
    "op_preview_entries",
    "op_url_",
    "op_urlpattern_",
];

/// Classes of deno_web in Rust that no worker sees.
const WEB_OBJECTS_CLOSED: &[&str] = &["CSS", "DOM", "ImageData"];

/// Scripts of deno_web that no worker may load.
const WEB_SCRIPTS_CLOSED: &[&str] = &["locks.js", "webtransport.js"];

/// Leaves out what workers do not need of an extension.
pub(super) fn close(mut extension: Extension) -> Extension {
    extension.ops.to_mut().retain(|op| WEB_OPEN.iter().any(|open| op.name.starts_with(open)));
    extension.objects.to_mut().retain(|object| !WEB_OBJECTS_CLOSED.iter().any(|closed| object.name.0.starts_with(closed)));
    extension.lazy_loaded_esm_files.to_mut().retain(|file| !WEB_SCRIPTS_CLOSED.iter().any(|closed| file.specifier.ends_with(closed)));
    extension
}

/// Applied to every op of the isolate, deno_core's among them.
pub(super) fn middleware(op: OpDecl) -> OpDecl {
    match op.name {
        "op_destructure_error" => op.with_implementation_from(&op_safe_destructure_error()),
        "op_dispatch_exception" => op.with_implementation_from(&op_safe_dispatch_exception()),
        name if CORE_CLOSED.contains(&name) => op.disable(),
        _ => op,
    }
}

/// deno_core's ops that workers do not need.
const CORE_CLOSED: &[&str] = &[
    "op_abort_wasm_streaming",
    "op_add",
    "op_add_async",
    "op_cancel_handle",
    "op_cancel_read",
    "op_compile_function",
    "op_error_async",
    "op_error_async_deferred",
    "op_eval_context",
    "op_event_loop_has_more_work",
    "op_import_sync",
    "op_import_sync_with_source",
    "op_is_terminal",
    "op_leak_tracing_get",
    "op_leak_tracing_get_all",
    "op_memory_usage",
    "op_op_names",
    "op_panic",
    "op_pipe",
    "op_print",
    "op_read",
    "op_read_all",
    "op_read_sync",
    "op_ref_op",
    "op_resources",
    "op_set_format_exception_callback",
    "op_set_promise_hooks",
    "op_set_wasm_streaming_callback",
    "op_shutdown",
    "op_timer_now",
    "op_timer_schedule",
    "op_timer_track",
    "op_timer_untrack",
    "op_unref_op",
    "op_void_async",
    "op_void_sync",
    "op_wasm_streaming_feed",
    "op_wasm_streaming_set_url",
    "op_wasm_streaming_stream_feed",
    "op_write",
    "op_write_all",
    "op_write_sync",
    "op_write_type_error",
];

/// In place of deno_core's: the text of an exception, without running any of its code.
#[op2(reentrant)]
pub fn op_safe_destructure_error<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: Rc<RefCell<OpState>>,
    error: v8::Local<'s, v8::Value>,
) -> v8::Local<'s, v8::Value> {
    let host = host(&state.borrow());
    let text = host.describe(scope, error);
    let object = v8::Object::new(scope);
    let frames = v8::Array::new(scope, 0);
    let fields: [(&str, v8::Local<'s, v8::Value>); 2] = [
        ("exceptionMessage", v8::String::new(scope, &text).map_or_else(|| v8::undefined(scope).into(), Into::into)),
        ("frames", frames.into()),
    ];
    for (name, value) in fields {
        if let Some(name) = v8::String::new(scope, name) {
            object.create_data_property(scope, name.into(), value);
        }
    }
    object.into()
}

/// In place of deno_core's: an uncaught exception of an event listener goes to the log.
#[op2(nofast, reentrant)]
pub fn op_safe_dispatch_exception(
    scope: &mut v8::PinScope<'_, '_>,
    state: Rc<RefCell<OpState>>,
    exception: v8::Local<'_, v8::Value>,
    _promise: bool,
) {
    let stream = scope.get_continuation_preserved_embedder_data().number_value(scope).unwrap_or(0.0);
    let host = host(&state.borrow());
    host.report(scope, stream as u32, exception, None, false);
}
