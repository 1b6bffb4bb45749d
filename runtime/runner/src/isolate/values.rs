//! Rust's values as JavaScript gets them.

use deno_core::v8;
use selvedge_runtime::protocol::BodyKind;

use crate::modules;

pub(super) fn text<'s>(scope: &mut v8::PinScope<'s, '_>, text: &str) -> v8::Local<'s, v8::Value> {
    v8::String::new(scope, text).map_or_else(|| v8::undefined(scope).into(), Into::into)
}

pub(super) fn numbers<'s, const N: usize>(scope: &mut v8::PinScope<'s, '_>, numbers: [u32; N]) -> [v8::Local<'s, v8::Value>; N] {
    numbers.map(|number| v8::Integer::new_from_unsigned(scope, number).into())
}

pub(super) fn byte_view<'s>(scope: &mut v8::PinScope<'s, '_>, bytes: &[u8]) -> v8::Local<'s, v8::Value> {
    let buffer = modules::array_buffer(scope, bytes);
    v8::Uint8Array::new(scope, buffer, 0, bytes.len()).map_or_else(|| v8::undefined(scope).into(), Into::into)
}

/// How a body is given to JavaScript: its kind (0 none, 1 whole, 2 stream), then the bytes or the length (-1 unknown).
pub(super) fn body_argument<'s>(scope: &mut v8::PinScope<'s, '_>, body: &BodyKind) -> (v8::Local<'s, v8::Value>, v8::Local<'s, v8::Value>) {
    let (kind, given) = match body {
        BodyKind::Empty => (0, v8::undefined(scope).into()),
        BodyKind::Whole(bytes) => (1, byte_view(scope, bytes)),
        BodyKind::Stream(length) => (2, v8::Number::new(scope, length.map_or(-1.0, |length| length as f64)).into()),
    };
    (v8::Integer::new(scope, kind).into(), given)
}
