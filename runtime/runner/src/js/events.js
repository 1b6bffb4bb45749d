// Errors that no one caught: `error` and `unhandledrejection` events on the global object, then the log.

import { core } from "ext:core/mod.js";
import { op_report } from "ext:core/ops";

const webidl = core.loadExtScript("ext:deno_webidl/00_webidl.js");
const event = core.loadExtScript("ext:deno_web/02_event.js");
const { DOMException } = core.loadExtScript("ext:deno_web/01_dom_exception.js");
const { ErrorEvent, PromiseRejectionEvent, listenerCount } = event;
const { getAsyncContext } = core;

const nameOf = Object.getOwnPropertyDescriptor(DOMException.prototype, "name").get;
const messageOf = Object.getOwnPropertyDescriptor(DOMException.prototype, "message").get;
const apply = Reflect.apply;
const isPrototypeOf = Object.prototype.isPrototypeOf;

// The heading of an exception whose name and message Rust cannot read without running code: a DOMException's are getters.
export function headingOf(exception) {
  if (exception === null || typeof exception !== "object" || core.isProxy(exception)) return undefined;
  if (!apply(isPrototypeOf, DOMException.prototype, [exception])) return undefined;
  try {
    return `${apply(nameOf, exception, [])}: ${apply(messageOf, exception, [])}`;
  } catch {
    return undefined;
  }
}

export function report(exception) {
  op_report(getAsyncContext() ?? 0, exception, headingOf(exception), false);
}

let reporting = false;

// https://html.spec.whatwg.org/#report-the-exception
export function reportError(exception) {
  if (reporting || listenerCount(globalThis, "error") === 0) {
    report(exception);
    return;
  }
  reporting = true;
  try {
    const message = headingOf(exception) ?? core.destructureError(exception).exceptionMessage;
    if (globalThis.dispatchEvent(new ErrorEvent("error", { cancelable: true, message, error: exception }))) {
      report(exception);
    }
  } finally {
    reporting = false;
  }
}

// Called by Rust, once for each promise that is still unhandled after the microtasks have run.
export function unhandled(promise, reason) {
  if (listenerCount(globalThis, "unhandledrejection") > 0) {
    const rejection = new PromiseRejectionEvent("unhandledrejection", { cancelable: true, promise, reason });
    if (!globalThis.dispatchEvent(rejection)) return;
  }
  op_report(getAsyncContext() ?? 0, reason, headingOf(reason), false);
}

export class WorkerGlobalScope extends event.EventTarget {
  constructor() {
    throw new TypeError("Illegal constructor");
  }
}

export function installGlobalTarget(global) {
  event.saveGlobalThisReference(global);
  global[webidl.brand] = webidl.brand;
  event.setEventTargetData(global);
  event.defineEventHandler(WorkerGlobalScope.prototype, "error", undefined, true);
  event.defineEventHandler(WorkerGlobalScope.prototype, "unhandledrejection");
  event.defineEventHandler(WorkerGlobalScope.prototype, "rejectionhandled");
  Object.setPrototypeOf(global, WorkerGlobalScope.prototype);
}
