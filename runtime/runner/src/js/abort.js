// AbortSignal.timeout on our own timers: deno's uses timers that are not ours to attribute or to stop.

import { core, primordials } from "ext:core/mod.js";
import { clearTimer, startTimer } from "ext:selvedge/timers.js";

const { AbortController, AbortSignal } = core.loadExtScript("ext:deno_web/03_abort_signal.js");
const { DOMException } = core.loadExtScript("ext:deno_web/01_dom_exception.js");

Object.defineProperty(AbortSignal, "timeout", {
  value: {
    timeout(milliseconds) {
      const controller = new AbortController();
      startTimer(
        () => controller.abort(new DOMException("The operation was aborted due to timeout", "TimeoutError")),
        milliseconds,
        [],
        false,
      );
      return controller.signal;
    },
  }.timeout,
  writable: true,
  enumerable: true,
  configurable: true,
});

const { Promise } = primordials;

// scheduler.wait: a timer as a promise.
export class Scheduler {
  wait(milliseconds, options = undefined) {
    const signal = options?.signal;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const id = startTimer(resolve, milliseconds, [], false);
      signal?.addEventListener("abort", () => {
        clearTimer(id);
        reject(signal.reason);
      }, { once: true });
    });
  }
}

export { AbortController, AbortSignal, DOMException };
