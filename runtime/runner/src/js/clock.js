// The clock: it stands still while JavaScript runs and moves when something is delivered, so that no worker can time its own
// code (a mitigation against Spectre; the cordon is the boundary). V8 has no hook for Date's clock, so Date is wrapped.

import { op_now_ms } from "ext:core/ops";

const NativeDate = globalThis.Date;
const { construct } = Reflect;

// The clock does not run while the snapshot is made.
let running = false;

export function startClock() {
  running = true;
}

export function now() {
  return running ? op_now_ms() : 0;
}

function DateOfClock(...args) {
  const frozen = running;
  if (new.target === undefined) {
    return frozen ? new NativeDate(op_now_ms()).toString() : NativeDate();
  }
  const target = new.target === DateOfClock ? NativeDate : new.target;
  return construct(NativeDate, args.length === 0 && frozen ? [op_now_ms()] : args, target);
}

export function installDate(global) {
  Object.defineProperties(DateOfClock, {
    name: { value: "Date", configurable: true },
    length: { value: 7, configurable: true },
    prototype: { value: NativeDate.prototype, writable: false },
    now: {
      value: { now() { return Math.trunc(now()); } }.now,
      writable: true,
      configurable: true,
    },
    parse: { value: NativeDate.parse, writable: true, configurable: true },
    UTC: { value: NativeDate.UTC, writable: true, configurable: true },
  });
  Object.defineProperty(NativeDate.prototype, "constructor", {
    value: DateOfClock,
    writable: true,
    configurable: true,
  });
  Object.defineProperty(global, "Date", { value: DateOfClock, writable: true, configurable: true });
}

export class Performance {
  // As in Workers: the origin is the epoch, so that now() is comparable between invocations.
  get timeOrigin() {
    return 0;
  }

  now() {
    return now();
  }

  toJSON() {
    return { timeOrigin: 0 };
  }
}
