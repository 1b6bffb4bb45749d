// Gives what follows an operation of the engine (crypto, blobs, message ports) a turn of its own. Without it, all operations
// that complete together would run their continuations in one turn, and the CPU time of one invocation could be another's.

import { core, primordials } from "ext:core/mod.js";
import { op_expect_async, op_ready } from "ext:core/ops";

const { getAsyncContext } = core;
const { Promise, PromisePrototypeThen, ReflectApply } = primordials;

// Settlers and their values, in turn; those from `next` on wait.
const settled = [];
let next = 0;

export function attributed(promise) {
  op_expect_async();
  const stream = getAsyncContext() ?? 0;
  return new Promise((resolve, reject) => {
    const later = (settle) => (value) => {
      settled[settled.length] = { settle, value };
      op_ready(stream);
    };
    PromisePrototypeThen(promise, later(resolve), later(reject));
  });
}

// Called by Rust once for each op_ready.
export function settleNext() {
  if (next === settled.length) return;
  const { settle, value } = settled[next];
  settled[next++] = undefined;
  if (next === settled.length) settled.length = next = 0;
  settle(value);
}

// Replaces methods that return promises of the engine.
export function attributeMethods(prototype, names) {
  for (const name of names) {
    const method = prototype[name];
    if (typeof method !== "function") continue;
    const wrapped = {
      [name](...args) {
        return attributed(ReflectApply(method, this, args));
      },
    }[name];
    Object.defineProperty(wrapped, "length", { value: method.length, configurable: true });
    Object.defineProperty(prototype, name, { value: wrapped, writable: true, enumerable: true, configurable: true });
  }
}
