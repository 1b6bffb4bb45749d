// Request (https://fetch.spec.whatwg.org/#request-class). One that came from a client reads its fields and `cf` from Rust
// when it is asked for them: most handlers look at little.

import { core, primordials } from "ext:core/mod.js";
import { op_request_client, op_request_headers } from "ext:core/ops";
import { AbortController, AbortSignal } from "ext:selvedge/abort.js";
import { extractBody, mixBody } from "ext:selvedge/body.js";
import { inspectable } from "ext:selvedge/console.js";
import { Headers, freezeHeaders, headerList, headersOfClient, lazyHeaders } from "ext:selvedge/headers.js";

const { URL } = core.loadExtScript("ext:deno_web/00_url.js");

const { JSONStringify, RegExpPrototypeExec, SafeSet, SafeWeakSet, StringPrototypeSlice, StringPrototypeToUpperCase, TypeError } = primordials;

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const NORMALISED = new SafeSet(["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"]);
const FORBIDDEN = new SafeSet(["CONNECT", "TRACE", "TRACK"]);
const REDIRECTS = new SafeSet(["follow", "manual", "error"]);
// What requests of clients have as their `cf`: facts, not wishes.
const facts = new SafeWeakSet();

function methodOf(method) {
  method = `${method}`;
  if (RegExpPrototypeExec(TOKEN, method) === null) {
    throw new TypeError(`Invalid HTTP method: ${JSONStringify(StringPrototypeSlice(method, 0, 32))}`);
  }
  const upper = StringPrototypeToUpperCase(method);
  if (FORBIDDEN.has(upper)) throw new TypeError(`Method is forbidden: ${upper}`);
  return NORMALISED.has(upper) ? upper : method;
}

function urlOf(input) {
  let url;
  try {
    url = new URL(`${input}`);
  } catch {
    throw new TypeError(`Invalid URL: ${StringPrototypeSlice(`${input}`, 0, 256)}`);
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new TypeError(`Fetch API cannot load: ${StringPrototypeSlice(url.href, 0, 256)} (only http and https)`);
  }
  if (url.username !== "" || url.password !== "") {
    throw new TypeError("A request's URL must not have credentials.");
  }
  return url.href;
}

const incoming = Symbol();

export class Request {
  #method = "GET";
  #url = "";
  #headers = null;
  #body = null;
  #redirect = "follow";
  #signal = null;
  #cf = undefined;
  // What the worker wishes of a fetch(): never what came with a request of a client.
  #wishes = undefined;
  // The invocation that it came with, for what is read lazily.
  #invocation = null;

  constructor(input, init = undefined) {
    if (input === incoming) return;
    if (init !== undefined && init !== null && typeof init !== "object" && typeof init !== "function") {
      throw new TypeError("Failed to construct 'Request': init is not an object");
    }
    init ??= {};
    let inherited = null;
    let signal = null;
    if (typeof input === "object" && input !== null && #method in input) {
      this.#method = input.#method;
      this.#url = input.#url;
      this.#redirect = input.#redirect;
      this.#cf = input.#cf ?? input.cf;
      this.#wishes = input.#wishes;
      signal = input.#invocation === null ? input.#signal : input.signal;
      this.#headers = new Headers(input.headers);
      inherited = input.#body;
    } else {
      this.#url = urlOf(input);
    }
    if (init.method !== undefined) this.#method = methodOf(init.method);
    if (init.headers !== undefined) this.#headers = new Headers(init.headers);
    this.#headers ??= new Headers();
    if (init.cache !== undefined) this.#setCache(`${init.cache}`);
    if (init.redirect !== undefined) {
      const redirect = `${init.redirect}`;
      if (!REDIRECTS.has(redirect)) throw new TypeError(`Invalid redirect mode: ${StringPrototypeSlice(redirect, 0, 32)}`);
      this.#redirect = redirect;
    }
    const cf = init.cf;
    if (cf !== undefined) {
      this.#cf = cf;
      this.#wishes = facts.has(cf) ? undefined : cf;
    }
    if (init.signal !== undefined) signal = init.signal;
    if (signal !== null) {
      if (!(signal instanceof AbortSignal)) throw new TypeError("Failed to construct 'Request': signal is not an AbortSignal");
      this.#signal = AbortSignal.any([signal]);
    }
    this.#adoptBody(init, inherited, input);
  }

  // https://fetch.spec.whatwg.org/#http-network-or-cache-fetch: the modes that a request tells others of.
  #setCache(mode) {
    if (mode === "no-store" || mode === "no-cache" || mode === "reload") {
      if (!this.#headers.has("cache-control")) this.#headers.append("cache-control", "no-cache");
    } else if (mode !== "default") {
      throw new TypeError(`Unsupported cache mode: ${StringPrototypeSlice(mode, 0, 32)}`);
    }
  }

  #adoptBody(init, inherited, input) {
    const given = init.body !== undefined && init.body !== null;
    const bodyless = this.#method === "GET" || this.#method === "HEAD";
    if (bodyless && (given || (inherited !== null && init.method === undefined))) {
      throw new TypeError("Request with a GET or HEAD method cannot have a body.");
    }
    if (given) {
      const { body, type } = extractBody(init.body);
      this.#body = body;
      if (type !== null && !this.#headers.has("content-type")) this.#headers.append("content-type", type);
    } else if (inherited !== null && init.body !== null && !bodyless) {
      if (inherited.unusable) {
        throw new TypeError("Cannot construct a Request with a Request object that has already been used.");
      }
      // The body moves over; what is left behind counts as used.
      this.#body = inherited;
      input.#body = inherited.moved();
    }
  }

  // For our own code, not reachable from a worker.
  static incoming;
  static body;
  static is;
  static signal;
  static wishes;
  static {
    Request.incoming = (invocation, method, url, body) => {
      const request = new Request(incoming);
      request.#invocation = invocation;
      request.#method = method;
      request.#url = url;
      request.#body = body;
      return request;
    };
    Request.body = (request) => request.#body;
    Request.is = (value) => typeof value === "object" && value !== null && #method in value;
    Request.signal = (request) => request.#signal;
    Request.wishes = (request) => request.#wishes;
  }

  get method() {
    return this.#method;
  }

  get url() {
    return this.#url;
  }

  get headers() {
    if (this.#headers === null) {
      const stream = this.#invocation.stream;
      this.#headers = lazyHeaders(() => op_request_headers(stream));
    }
    return this.#headers;
  }

  get redirect() {
    return this.#redirect;
  }

  get signal() {
    if (this.#signal === null) {
      this.#signal = this.#invocation === null ? new AbortController().signal : this.#invocation.signal();
    }
    return this.#signal;
  }

  get cf() {
    if (this.#cf === undefined && this.#invocation !== null) {
      const client = op_request_client(this.#invocation.stream);
      this.#cf = { httpProtocol: client[0], tlsVersion: client[1], colo: client[2] };
      facts.add(this.#cf);
    }
    return this.#cf;
  }

  get cache() {
    return "default";
  }

  get integrity() {
    return "";
  }

  get keepalive() {
    return false;
  }

  clone() {
    if (this.#body?.unusable) throw new TypeError("Cannot clone a Request whose body has been used.");
    const copy = new Request(incoming);
    copy.#method = this.#method;
    copy.#url = this.#url;
    copy.#headers = new Headers(this.headers);
    if (this.#invocation !== null) freezeHeaders(copy.#headers);
    copy.#body = this.#body === null ? null : this.#body.clone();
    copy.#redirect = this.#redirect;
    copy.#signal = AbortSignal.any([this.signal]);
    copy.#cf = this.cf;
    copy.#wishes = this.#wishes;
    return copy;
  }
}

export const {
  incoming: incomingRequest,
  body: requestBody,
  is: isRequest,
  signal: requestSignal,
  wishes: requestWishes,
} = Request;
for (const name of ["incoming", "body", "is", "signal", "wishes"]) delete Request[name];

mixBody(Request, requestBody, (request) => request.headers.get("content-type"));
inspectable(Request, ["method", "url", "headers", "redirect", "bodyUsed"]);

// The fields of a request as Rust takes them. What the client can decode does not go on with fields that are the client's: the
// answer is for the worker, which reads it as text more often than not.
export function requestHeaderList(request) {
  const headers = request.headers;
  const list = headerList(headers);
  if (!headersOfClient(headers)) return list;
  const kept = [];
  for (let i = 0; i < list.length; i += 2) {
    if (list[i] === "accept-encoding") continue;
    kept[kept.length] = list[i];
    kept[kept.length] = list[i + 1];
  }
  return kept;
}
