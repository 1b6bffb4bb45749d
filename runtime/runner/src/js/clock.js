// The clock: it stands still while JavaScript runs and moves when something is delivered, so that no worker can time its own
// code (a mitigation against Spectre; the cordon is the boundary). V8 has no hook for Date's clock, so Date is wrapped, and so is what
// formats the time where no date is given.

import { primordials } from "ext:core/mod.js";
import { op_now_ms } from "ext:core/ops";

const NativeDate = globalThis.Date;
const { ObjectDefineProperty, ObjectGetOwnPropertyDescriptor, SafeWeakMap, uncurryThis } = primordials;
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

export function installDateTimeFormat({ prototype }) {
  const formatOf = uncurryThis(ObjectGetOwnPropertyDescriptor(prototype, "format").get);
  const formatToParts = uncurryThis(prototype.formatToParts);
  const dated = (date) => (date === undefined ? now() : date);
  // One for each formatter, as V8's own.
  const formats = new SafeWeakMap();
  const methods = {
    get format() {
      const format = formatOf(this);
      const known = formats.get(this);
      if (known !== undefined) return known;
      const wrapped = (date) => format(dated(date));
      formats.set(this, wrapped);
      return wrapped;
    },
    formatToParts(date) {
      return formatToParts(this, dated(date));
    },
  };
  for (const name of ["format", "formatToParts"]) {
    ObjectDefineProperty(prototype, name, { ...ObjectGetOwnPropertyDescriptor(methods, name), enumerable: false });
  }
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
