// console: formatted by deno's inspector, one line of the log for each call.

import { core } from "ext:core/mod.js";
import { op_log } from "ext:core/ops";

const { Console, createFilteredInspectProxy, inspectArgs, setNoColorFns } = core.loadExtScript("ext:deno_web/01_console.js");
const { getAsyncContext } = core;

setNoColorFns(() => true, () => true);

// deno's printer says 0 debug, 1 log, 2 warn, 3 error, 4 trace; the log 0 debug, 1 log, 2 info, 3 warn, 4 error.
const LEVELS = [0, 1, 3, 4, 1];
const INFO = 2;

function print(text, level) {
  if (text === "\n") return;
  const end = text.endsWith("\n") ? text.length - 1 : text.length;
  op_log(getAsyncContext() ?? 0, LEVELS[level] ?? 1, text.slice(0, end));
}

export const console = new Console(print);

console.info = (...args) => {
  op_log(getAsyncContext() ?? 0, INFO, inspectArgs(args, { colors: false, indentLevel: console.indentLevel }));
};
console.clear = () => {};

// Makes console show a class of ours with its accessors.
export function inspectable(constructor, keys) {
  Object.defineProperty(constructor.prototype, Symbol.for("Deno.privateCustomInspect"), {
    value(inspect, options) {
      return inspect(createFilteredInspectProxy({ object: this, evaluate: true, keys }), options);
    },
    configurable: true,
  });
  Object.defineProperty(constructor.prototype, Symbol.toStringTag, { value: constructor.name, configurable: true });
}
