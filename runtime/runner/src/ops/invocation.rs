//! Ops about one invocation: its request, its response, its subrequests, its log.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use deno_core::{OpState, op2, v8};
use deno_error::JsErrorBox;

use super::{FieldList, Given, Redirects, host};

/// A body that JavaScript gives at once is at most this long; longer ones are written in pieces. Equals
/// `selvedge_runtime::protocol::CHUNK_BYTES_MAX` (checked where both are known).
pub const WHOLE_BYTES_MAX: usize = 64 << 10;

#[op2]
pub fn op_request_headers<'s>(scope: &mut v8::PinScope<'s, '_>, state: Rc<RefCell<OpState>>, stream: u32) -> v8::Local<'s, v8::Value> {
    let host = host(&state.borrow());
    host.request_headers(scope, stream)
}

#[op2]
pub fn op_request_client<'s>(scope: &mut v8::PinScope<'s, '_>, state: Rc<RefCell<OpState>>, stream: u32) -> v8::Local<'s, v8::Value> {
    let host = host(&state.borrow());
    host.request_client(scope, stream)
}

/// `body` is null, a string, a view of at most [`WHOLE_BYTES_MAX`] bytes, or a number: the length of a body that will be
/// written in pieces, negative if it is not known. `last`: nothing else of the invocation is running. Whether to write those pieces.
#[op2(nofast, reentrant)]
pub fn op_respond(
    scope: &mut v8::PinScope<'_, '_>,
    state: Rc<RefCell<OpState>>,
    stream: u32,
    status: u32,
    headers: v8::Local<'_, v8::Value>,
    body: v8::Local<'_, v8::Value>,
    last: bool,
) -> Result<bool, JsErrorBox> {
    let status = u16::try_from(status)
        .ok()
        .filter(|status| (100..=999).contains(status))
        .ok_or_else(|| JsErrorBox::range_error("invalid status"))?;
    let fields = FieldList::read(scope, headers)?;
    let body = given(scope, body)?;
    let host = host(&state.borrow());
    let wanted = host.respond(stream, status, fields, body);
    if last {
        host.ended(stream);
    }
    Ok(wanted)
}

#[op2(reentrant)]
pub fn op_failed(
    scope: &mut v8::PinScope<'_, '_>,
    state: Rc<RefCell<OpState>>,
    stream: u32,
    exception: v8::Local<'_, v8::Value>,
    #[string] heading: Option<String>,
) {
    let host = host(&state.borrow());
    host.failed(scope, stream, exception, heading);
}

#[op2(fast)]
pub fn op_ended(state: &OpState, stream: u32) {
    host(state).ended(stream);
}

/// The number of the subrequest. `redirect`: 0 follow, 1 manual, 2 error. `wishes`: none, or JSON of what is wished of the cache.
#[op2(reentrant)]
#[allow(clippy::too_many_arguments, reason = "an op takes what JavaScript has")]
pub fn op_fetch(
    scope: &mut v8::PinScope<'_, '_>,
    state: Rc<RefCell<OpState>>,
    stream: u32,
    #[string] method: String,
    #[string] url: String,
    headers: v8::Local<'_, v8::Value>,
    redirect: u8,
    #[string] wishes: Option<String>,
    body: v8::Local<'_, v8::Value>,
) -> Result<u32, JsErrorBox> {
    let method = http::Method::from_bytes(method.as_bytes()).map_err(|_| JsErrorBox::type_error("invalid method"))?;
    let headers = FieldList::read(scope, headers)?.into_map()?;
    let redirects = match redirect {
        0 => Redirects::Follow,
        1 => Redirects::Manual,
        _ => Redirects::Error,
    };
    let body = given(scope, body)?;
    let host = host(&state.borrow());
    host.fetch(stream, method, url, headers, redirects, wishes, body).map_err(JsErrorBox::generic)
}

/// Level: 0 debug, 1 log, 2 info, 3 warn, 4 error.
#[op2(fast, reentrant)]
pub fn op_log(scope: &mut v8::PinScope<'_, '_>, state: Rc<RefCell<OpState>>, stream: u32, level: u8, #[string] message: String) {
    let host = host(&state.borrow());
    host.log(scope, stream, level, message);
}

#[op2(reentrant)]
pub fn op_report(
    scope: &mut v8::PinScope<'_, '_>,
    state: Rc<RefCell<OpState>>,
    stream: u32,
    exception: v8::Local<'_, v8::Value>,
    #[string] heading: Option<String>,
    counts: bool,
) {
    let host = host(&state.borrow());
    host.report(scope, stream, exception, heading, counts);
}

#[op2(fast)]
pub fn op_ready(state: &OpState, stream: u32) {
    host(state).ready(stream);
}

#[op2(fast)]
pub fn op_expect_async(state: &OpState) {
    host(state).expect_async();
}

#[op2(fast)]
pub fn op_expect_messages(state: &OpState) {
    host(state).expect_messages();
}

pub(super) fn given(scope: &mut v8::PinScope<'_, '_>, body: v8::Local<'_, v8::Value>) -> Result<Given, JsErrorBox> {
    if body.is_null_or_undefined() {
        return Ok(Given::Empty);
    }
    if let Ok(text) = v8::Local::<v8::String>::try_from(body) {
        // Three bytes of UTF-8 for a UTF-16 unit at most; JavaScript sends longer strings in pieces.
        return bounded(text.to_rust_string_lossy(scope).into_bytes());
    }
    if let Ok(view) = v8::Local::<v8::ArrayBufferView>::try_from(body) {
        if view.byte_length() > WHOLE_BYTES_MAX {
            return bounded(vec![0; WHOLE_BYTES_MAX + 1]);
        }
        let mut bytes = vec![0; view.byte_length()];
        let copied = view.copy_contents(&mut bytes);
        bytes.truncate(copied);
        return bounded(bytes);
    }
    let length = body.number_value(scope).unwrap_or(-1.0);
    Ok(Given::Stream((length >= 0.0).then_some(length as u64)))
}

fn bounded(bytes: Vec<u8>) -> Result<Given, JsErrorBox> {
    match bytes.len() {
        0 => Ok(Given::Empty),
        length if length > WHOLE_BYTES_MAX => Err(JsErrorBox::type_error("body is too long to be given at once")),
        _ => Ok(Given::Whole(Bytes::from(bytes))),
    }
}
