//! Ops of a worker's own caches, of its purges, and of what it says about its failure.

use std::cell::RefCell;
use std::rc::Rc;

use deno_core::{OpState, op2, v8};
use deno_error::JsErrorBox;

use super::invocation::given;
use super::{Asked, FieldList, host};

/// `match` or `delete` of a cache; the call's number. `name`: none is the default cache.
#[op2(reentrant)]
pub fn op_cache(
    scope: &mut v8::PinScope<'_, '_>,
    state: Rc<RefCell<OpState>>,
    stream: u32,
    #[string] name: Option<String>,
    #[string] url: String,
    headers: v8::Local<'_, v8::Value>,
    forget: bool,
) -> Result<u32, JsErrorBox> {
    let headers = FieldList::read(scope, headers)?.into_map()?;
    let host = host(&state.borrow());
    let asked = if forget { Asked::Delete } else { Asked::Match };
    host.cache(stream, name, url, headers, asked).map_err(JsErrorBox::type_error)
}

/// `put` into a cache; the call's number. `kept_headers` and `body` are the response's, as for `op_respond`.
#[op2(reentrant)]
#[allow(clippy::too_many_arguments, reason = "an op takes what JavaScript has")]
pub fn op_cache_put(
    scope: &mut v8::PinScope<'_, '_>,
    state: Rc<RefCell<OpState>>,
    stream: u32,
    #[string] name: Option<String>,
    #[string] url: String,
    headers: v8::Local<'_, v8::Value>,
    status: u32,
    kept_headers: v8::Local<'_, v8::Value>,
    body: v8::Local<'_, v8::Value>,
) -> Result<u32, JsErrorBox> {
    let headers = FieldList::read(scope, headers)?.into_map()?;
    let status = u16::try_from(status)
        .ok()
        .filter(|status| (200..=999).contains(status))
        .ok_or_else(|| JsErrorBox::range_error("invalid status"))?;
    let kept = FieldList::read(scope, kept_headers)?.into_map()?;
    let body = given(scope, body)?;
    let host = host(&state.borrow());
    host.cache(stream, name, url, headers, Asked::Put { status, headers: kept, body }).map_err(JsErrorBox::type_error)
}

/// `ctx.cache.purge()`; the call's number. `purge` is JSON.
#[op2(fast)]
pub fn op_cache_purge(state: &OpState, stream: u32, #[string] purge: String) -> Result<u32, JsErrorBox> {
    host(state).purge(stream, &purge).map_err(JsErrorBox::type_error)
}

#[op2(fast)]
pub fn op_pass_through(state: &OpState, stream: u32) {
    host(state).pass_through(stream);
}
