//! Ops of timers and of the clock that stands still while JavaScript runs.

use deno_core::{OpState, op2};

use super::host;

/// The timer's id; 0 where there are too many, or no invocation.
#[op2(fast)]
pub fn op_timer_start(state: &OpState, stream: u32, delay_ms: f64, repeat: bool) -> u32 {
    host(state).timer_start(stream, delay_ms, repeat).unwrap_or(0)
}

#[op2(fast)]
pub fn op_timer_clear(state: &OpState, id: u32) {
    host(state).timer_clear(id);
}

#[op2(fast)]
pub fn op_now_ms(state: &OpState) -> f64 {
    host(state).now_ms()
}
