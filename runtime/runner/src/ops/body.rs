//! Ops that move bodies: bytes out against credit, credit back for bytes consumed.

use deno_core::{OpState, op2, v8};

use super::host;

/// Bytes taken by one write; JavaScript comes again with the rest. Bounds what is copied at a time.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// Takes bytes of a view from `offset`, as many as there is credit for. The number taken; -1 if nobody wants them any more.
#[op2(nofast)]
pub fn op_body_write(state: &OpState, stream: u32, part: u32, view: v8::Local<'_, v8::ArrayBufferView>, offset: u32) -> f64 {
    let offset = offset as usize;
    let length = view.byte_length().saturating_sub(offset).min(WRITE_BYTES_MAX);
    if length == 0 {
        return 0.0;
    }
    // SAFETY: V8 has one thread here and runs no JavaScript before this function returns, so the view keeps its memory and
    // its length. A view of a shared buffer cannot be written by another thread: isolates have none. `view.data()` points at
    // the view's first byte, and `offset + length` is within its length.
    let bytes = unsafe { std::slice::from_raw_parts(view.data().cast::<u8>().add(offset), length) };
    host(state).body_write(stream, part, bytes).map_or(-1.0, |taken| taken as f64)
}

#[op2]
pub fn op_body_end(state: &OpState, stream: u32, part: u32, #[string] error: Option<String>) {
    host(state).body_end(stream, part, error);
}

#[op2(fast)]
pub fn op_body_credit(state: &OpState, stream: u32, part: u32, bytes: u32) {
    host(state).body_credit(stream, part, bytes);
}

#[op2(fast)]
pub fn op_abandon(state: &OpState, stream: u32, part: u32) {
    host(state).abandon(stream, part);
}
