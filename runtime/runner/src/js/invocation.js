// JavaScript's half of the running invocations: what each waits for, and what ends with it.

import { core } from "ext:core/mod.js";
import { op_ended, op_failed, op_report, op_respond } from "ext:core/ops";
import { AbortController, DOMException } from "ext:selvedge/abort.js";
import { headingOf } from "ext:selvedge/events.js";
import { Incoming } from "ext:selvedge/incoming.js";
import { credited } from "ext:selvedge/outgoing.js";
import { isResponse, responseBody, responseHeaderList, responseStatus } from "ext:selvedge/response.js";

const { getAsyncContext } = core;

const live = new Map();

export class Invocation {
  stream;
  // Things that keep it alive: the handler and its response, each waitUntil.
  #pending = 1;
  #controller = null;
  // Bodies on their way in, by part.
  #incoming = null;
  // Subrequests without an answer, by part.
  #fetches = null;

  constructor(stream) {
    this.stream = stream;
    live.set(stream, this);
  }

  signal() {
    this.#controller ??= new AbortController();
    return this.#controller.signal;
  }

  get fetches() {
    return (this.#fetches ??= new Map());
  }

  incoming(part, length) {
    const body = new Incoming(this.stream, part, length);
    this.#incoming ??= new Map();
    this.#incoming.set(part, body);
    return body;
  }

  incomingOf(part) {
    return this.#incoming?.get(part);
  }

  hold() {
    this.#pending += 1;
  }

  release() {
    this.#pending -= 1;
    if (this.#pending === 0 && live.delete(this.stream)) op_ended(this.stream);
  }

  waitUntil(promise) {
    this.hold();
    Promise.resolve(promise).then(
      () => this.release(),
      (error) => {
        op_report(this.stream, error, headingOf(error), true);
        this.release();
      },
    );
  }

  fail(exception) {
    op_failed(this.stream, exception, headingOf(exception));
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
      if (last) live.delete(this.stream);
      op_respond(this.stream, status, list, given, last);
      if (!last) this.release();
      return;
    }
    op_respond(this.stream, status, list, given, false);
    body.pump(this.stream, 0).then(
      () => this.release(),
      (error) => {
        this.fail(error);
        this.release();
      },
    );
  }

  cancel(message) {
    const reason = new DOMException(message, "AbortError");
    this.#controller?.abort(reason);
    for (const body of this.#incoming?.values() ?? []) body.end(reason);
    credited(this.stream, 0);
    for (const [part, pending] of this.fetches) {
      pending.reject(reason);
      credited(this.stream, part);
    }
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

export function cancel(stream, message) {
  const invocation = live.get(stream);
  if (live.delete(stream)) invocation.cancel(message);
}
