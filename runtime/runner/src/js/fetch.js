// fetch(): Rust hands the subrequest to the edge, which does everything else (cache, addresses, redirects, limits). And what comes
// back of every call to the edge.

import { op_abandon, op_body_end, op_fetch } from "ext:core/ops";
import { Body } from "ext:selvedge/body.js";
import { currentInvocation } from "ext:selvedge/invocation.js";
import { wishesOf } from "ext:selvedge/wishes.js";
import { Request, isRequest, requestBody, requestHeaderList, requestOptions, requestSignal } from "ext:selvedge/request.js";
import { fetchedResponse } from "ext:selvedge/response.js";

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
    const wishes = wishesOf(requestOptions(request));
    const body = requestBody(request);
    const given = body === null ? null : body.describe();
    const { stream, fetches } = invocation;
    const url = request.url;
    const hash = url.indexOf("#");
    const part = op_fetch(
      stream,
      request.method,
      hash < 0 ? url : url.slice(0, hash),
      requestHeaderList(request),
      REDIRECT[request.redirect],
      wishes,
      given,
    );
    const pending = { resolve, reject, invocation, signal };
    fetches.set(part, pending);
    signal?.addEventListener("abort", () => abort(pending, part));
    if (typeof given === "number") {
      body.pump(stream, part).catch((error) => op_body_end(stream, part, messageOf(error)));
    }
  });
}

export function messageOf(error) {
  try {
    return String(error?.message ?? error).slice(0, 512);
  } catch {
    return "the body failed";
  }
}

function abort({ reject, invocation, signal }, part) {
  const answered = !invocation.fetches.delete(part);
  const incoming = invocation.incomingOf(part);
  if (answered && incoming === undefined) return;
  op_abandon(invocation.stream, part);
  incoming?.end(signal.reason);
  reject(signal.reason);
}

// Called by Rust.
export function fetched(invocation, part, status, list, kind, given, url, redirects) {
  const pending = invocation.fetches.get(part);
  if (pending === undefined) return;
  invocation.fetches.delete(part);
  let body = null;
  if (kind === WHOLE) body = new Body(given);
  else if (kind === STREAM) body = new Body(invocation.incoming(part, given));
  pending.resolve(fetchedResponse(status, list, body, url, redirects > 0));
}

export function fetchFailed(invocation, part, message) {
  const pending = invocation.fetches.get(part);
  invocation.fetches.delete(part);
  pending?.reject(new TypeError(message));
}

// The answer to a call that has no response to give.
export function settled(invocation, part, yes, note) {
  const pending = invocation.fetches.get(part);
  invocation.fetches.delete(part);
  pending?.settle?.(yes, note);
}
