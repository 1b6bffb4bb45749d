// JavaScript's half of the running invocations: what each waits for, and what ends with it.

import { core, primordials } from "ext:core/mod.js";
import { op_ended, op_failed, op_report, op_respond } from "ext:core/ops";
import { AbortController, DOMException } from "ext:selvedge/abort.js";
import { headingOf } from "ext:selvedge/events.js";
import { Incoming } from "ext:selvedge/incoming.js";
import { isResponse, responseBody, responseHeaderList, responseStatus } from "ext:selvedge/response.js";

const { getAsyncContext } = core;
const { Promise, SafeMap, TypeError } = primordials;

const live = new SafeMap();

export class Invocation {
  stream;
  // Things that keep it alive: the handler and its response, each waitUntil.
  #pending = 1;
  // How many of them are waitUntils.
  #promised = 0;
  // Its client has gone: nobody waits for the handler and its response any more.
  #left = false;
  #controller = null;
  // Bodies on their way in, by part.
  #incoming = null;
  // Subrequests without an answer, by part.
  #fetches = null;
  // Writers that wait for credit, one for each body, by part. They go with the invocation.
  #writers = null;

  constructor(stream) {
    this.stream = stream;
    live.set(stream, this);
  }

  signal() {
    this.#controller ??= new AbortController();
    return this.#controller.signal;
  }

  get fetches() {
    return (this.#fetches ??= new SafeMap());
  }

  incoming(part, length) {
    const body = new Incoming(this.stream, part, length);
    this.#incoming ??= new SafeMap();
    this.#incoming.set(part, body);
    return body;
  }

  incomingOf(part) {
    return this.#incoming?.get(part);
  }

  // Ends when credit has come for a body that had none left, or when nobody wants it any more.
  credit(part) {
    return new Promise((resolve) => {
      this.#writers ??= new SafeMap();
      this.#writers.set(part, resolve);
    });
  }

  credited(part) {
    const wake = this.#writers?.get(part);
    if (wake === undefined) return;
    this.#writers.delete(part);
    wake();
  }

  release() {
    this.#pending -= 1;
    if (this.#pending === 0 && live.delete(this.stream)) op_ended(this.stream);
  }

  // `await` needs nothing that a worker can change.
  async waitUntil(promise) {
    this.#pending += 1;
    this.#promised += 1;
    try {
      await promise;
    } catch (error) {
      op_report(this.stream, error, headingOf(error), true);
    } finally {
      this.#promised -= 1;
      if (this.#left && this.#promised === 0) this.#pending = 1;
      this.release();
    }
  }

  // The handler has failed, or the stream that it responded with.
  fail(exception) {
    if (!this.#left) op_failed(this.stream, exception, headingOf(exception));
    this.release();
  }

  respond(response) {
    if (!isResponse(response)) {
      throw new TypeError("Incorrect type for Promise: the Promise did not resolve to 'Response'.");
    }
    const status = responseStatus(response);
    if (status < 200) throw new TypeError("Response.error() is not a response that a client can get.");
    const body = responseBody(response);
    const given = body === null ? null : body.describe();
    const list = responseHeaderList(response);
    if (typeof given !== "number") {
      const last = this.#pending === 1;
      // What Rust refuses of it is an exception: the invocation is still there to fail.
      op_respond(this.stream, status, list, given, last);
      if (last) live.delete(this.stream);
      else this.release();
      return;
    }
    this.#pump(body, op_respond(this.stream, status, list, given, false));
  }

  async #pump(body, wanted) {
    try {
      if (wanted) await body.pump(this, 0);
      else body.cancel();
    } catch (exception) {
      this.fail(exception);
      return;
    }
    this.release();
  }

  // The client has gone. False where nothing was promised.
  leave() {
    this.#left = this.#promised > 0;
    return this.#left;
  }

  // What was promised goes on where it `stays`: only its request and its response end.
  cancel(message, stays) {
    const reason = new DOMException(message, "AbortError");
    this.#controller?.abort(reason);
    if (stays) {
      this.incomingOf(0)?.end(reason);
      this.credited(0);
      return;
    }
    this.#incoming?.forEach((body) => body.end(reason));
    this.#writers?.forEach((wake) => wake());
    this.#fetches?.forEach((pending) => pending.reject(reason));
  }
}

export function currentInvocation() {
  return live.get(getAsyncContext());
}

export function liveInvocation(stream) {
  return live.get(stream);
}

// The rest is called by Rust.

export function bodyData(stream, part, bytes) {
  live.get(stream)?.incomingOf(part)?.push(bytes);
}

export function bodyEnd(stream, part, error) {
  live.get(stream)?.incomingOf(part)?.end(error === undefined ? undefined : new TypeError(`the body was cut short: ${error}`));
}

export function credited(stream, part) {
  live.get(stream)?.credited(part);
}

export function leave(stream) {
  return live.get(stream)?.leave() === true;
}

export function cancel(stream, message, stays) {
  const invocation = live.get(stream);
  if (!stays) live.delete(stream);
  invocation?.cancel(message, stays);
}
