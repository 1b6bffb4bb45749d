// setTimeout and setInterval. Rust keeps the deadlines and gives each timer that is due a turn of its own, so that its CPU
// time, its log lines and its fetches belong to the invocation that set it. Timers end with their invocation.

import { core, primordials } from "ext:core/mod.js";
import { op_timer_clear, op_timer_start } from "ext:core/ops";
import { reportError } from "ext:selvedge/events.js";

const { getAsyncContext } = core;
const { Error, Number, RangeError, ReflectApply, SafeMap, TypeError } = primordials;

// id -> { callback, args, repeat }
const timers = new SafeMap();

export function startTimer(callback, milliseconds, args, repeat) {
  const delay = Number(milliseconds);
  const stream = getAsyncContext();
  if (stream === undefined) {
    throw new Error("Disallowed operation called within global scope: a timer needs a request to belong to.");
  }
  const id = op_timer_start(stream, delay > 0 ? delay : 0, repeat);
  if (id === 0) {
    throw new RangeError("too many timers, or the request that they belong to has ended");
  }
  timers.set(id, { callback, args, repeat });
  return id;
}

export function clearTimer(id) {
  if (timers.delete(id)) {
    op_timer_clear(id);
  }
}

function callable(callback) {
  if (typeof callback !== "function") {
    throw new TypeError("the callback of a timer must be a function");
  }
  return callback;
}

export function setTimeout(callback, milliseconds = 0, ...args) {
  return startTimer(callable(callback), milliseconds, args, false);
}

export function setInterval(callback, milliseconds = 0, ...args) {
  return startTimer(callable(callback), milliseconds, args, true);
}

export function clearTimeout(id) {
  clearTimer(Number(id));
}

export function clearInterval(id) {
  clearTimer(Number(id));
}

// Called by Rust when a timer is due.
export function fire(id) {
  const timer = timers.get(id);
  if (timer === undefined) return;
  if (!timer.repeat) timers.delete(id);
  try {
    ReflectApply(timer.callback, globalThis, timer.args);
  } catch (exception) {
    reportError(exception);
  }
}

// Called by Rust for the timers that ended with their invocation.
export function drop(id) {
  timers.delete(id);
}
