// fetch(): Rust hands the subrequest to the edge, which does everything else (cache, addresses, redirects, limits). And what comes
// back of every call to the edge.

import { primordials } from "ext:core/mod.js";
import { op_abandon, op_body_end, op_fetch } from "ext:core/ops";
import { Body } from "ext:selvedge/body.js";
import { currentInvocation, liveInvocation } from "ext:selvedge/invocation.js";
import { wishesOf } from "ext:selvedge/wishes.js";
import { Request, isRequest, requestBody, requestHeaderList, requestSignal, requestWishes } from "ext:selvedge/request.js";
import { fetchedResponse } from "ext:selvedge/response.js";

const { Error, Promise, String, StringPrototypeIndexOf, StringPrototypeSlice, TypeError } = primordials;

const REDIRECT = { follow: 0, manual: 1, error: 2 };
// How Rust says what follows a head.
const WHOLE = 1;
const STREAM = 2;

export function fetch(input, init = undefined) {
  return new Promise((resolve, reject) => {
    const invocation = currentInvocation();
    if (invocation === undefined) {
      throw new Error("Disallowed operation called within global scope: fetch() needs a request to belong to.");
    }
    const request = isRequest(input) && init === undefined ? input : new Request(input, init);
    const signal = requestSignal(request);
    if (signal?.aborted) throw signal.reason;
    const wishes = wishesOf(requestWishes(request));
    const body = requestBody(request);
    const given = body === null ? null : body.describe();
    const { stream, fetches } = invocation;
    const url = request.url;
    const hash = StringPrototypeIndexOf(url, "#");
    const part = op_fetch(
      stream,
      request.method,
      hash < 0 ? url : StringPrototypeSlice(url, 0, hash),
      requestHeaderList(request),
      REDIRECT[request.redirect],
      wishes,
      given,
    );
    const pending = { resolve, reject, invocation, signal };
    fetches.set(part, pending);
    signal?.addEventListener("abort", () => abort(pending, part));
    if (typeof given === "number") pumpCall(invocation, part, body);
  });
}

// Writes the body of a call to the edge.
export async function pumpCall(invocation, part, body) {
  try {
    await body.pump(invocation, part);
  } catch (error) {
    op_body_end(invocation.stream, part, messageOf(error));
  }
}

function messageOf(error) {
  try {
    return StringPrototypeSlice(String(error?.message ?? error), 0, 512);
  } catch {
    return "the body failed";
  }
}

function abort({ reject, invocation, signal }, part) {
  const answered = !invocation.fetches.delete(part);
  const incoming = invocation.incomingOf(part);
  if (answered && incoming === undefined) return;
  op_abandon(invocation.stream, part);
  // What it still sends waits for credit that does not come.
  invocation.credited(part);
  incoming?.end(signal.reason);
  reject(signal.reason);
}

// What is pending of a call to the edge that has come to its end.
export function takeCall(stream, part) {
  const fetches = liveInvocation(stream)?.fetches;
  const pending = fetches?.get(part);
  fetches?.delete(part);
  return pending;
}

// Called by Rust.
export function fetched(stream, part, status, list, kind, given, url, redirects) {
  const pending = takeCall(stream, part);
  if (pending === undefined) return;
  let body = null;
  if (kind === WHOLE) body = new Body(given);
  else if (kind === STREAM) body = new Body(pending.invocation.incoming(part, given));
  pending.resolve(fetchedResponse(status, list, body, url, redirects > 0));
}

export function fetchFailed(stream, part, message) {
  takeCall(stream, part)?.reject(new TypeError(message));
}

// The answer to a call that has no response to give.
export function settled(stream, part, yes, note) {
  takeCall(stream, part)?.settle?.(yes, note);
}
