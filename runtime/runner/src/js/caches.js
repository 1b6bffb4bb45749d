// caches.default and caches.open(name): the worker's own caches (https://developers.cloudflare.com/workers/runtime-apis/cache/).
// What is checked here is for a clear message; the edge checks again.

import { op_cache, op_cache_put } from "ext:core/ops";
import { console } from "ext:selvedge/console.js";
import { pumpCall } from "ext:selvedge/fetch.js";
import { headerList } from "ext:selvedge/headers.js";
import { currentInvocation } from "ext:selvedge/invocation.js";
import { Request, isRequest } from "ext:selvedge/request.js";
import { isResponse, responseBody, responseHeaderList, responseStatus } from "ext:selvedge/response.js";

const internal = Symbol();
// Why something was not kept: said once for each reason.
const warned = new Set();

function invocationFor(what) {
  const invocation = currentInvocation();
  if (invocation === undefined) {
    throw new Error(`Disallowed operation called within global scope: ${what} needs a request to belong to.`);
  }
  return invocation;
}

const requestOf = (input) => (isRequest(input) ? input : new Request(input));

function urlOf(request) {
  const url = request.url;
  const hash = url.indexOf("#");
  return hash < 0 ? url : url.slice(0, hash);
}

function missing(name) {
  return {
    [name]() {
      return Promise.reject(new TypeError(`${name}() of a cache is not implemented: match, put and delete are`));
    },
  }[name];
}

export class Cache {
  // Undefined is the default cache.
  #name;

  constructor(token, name) {
    if (token !== internal) throw new TypeError("Illegal constructor");
    this.#name = name;
  }

  match(input, options = undefined) {
    return this.#ask("cache.match()", input, options, false).then((answer) => (answer === false ? undefined : answer));
  }

  delete(input, options = undefined) {
    return this.#ask("cache.delete()", input, options, true);
  }

  #ask(what, input, options, forget) {
    return new Promise((resolve, reject) => {
      const invocation = invocationFor(what);
      const request = requestOf(input);
      // Only answers to GET are kept.
      if (request.method !== "GET" && !options?.ignoreMethod) {
        resolve(false);
        return;
      }
      const part = op_cache(invocation.stream, this.#name, urlOf(request), headerList(request.headers), forget);
      invocation.fetches.set(part, { resolve, reject, invocation, settle: resolve });
    });
  }

  put(input, response) {
    return new Promise((resolve, reject) => {
      const invocation = invocationFor("cache.put()");
      const request = requestOf(input);
      if (request.method !== "GET") throw new TypeError("Cannot cache response to non-GET request.");
      if (!isResponse(response)) throw new TypeError("cache.put() takes a Response as its second argument.");
      const status = responseStatus(response);
      if (status === 206) throw new TypeError("Cannot cache response to a range request (206 Partial Content).");
      const vary = response.headers.get("vary");
      if (vary !== null && vary.split(",").some((name) => name.trim() === "*")) {
        throw new TypeError("Cannot cache response with 'Vary: *' header.");
      }
      const body = responseBody(response);
      const given = body === null ? null : body.describe();
      const { stream } = invocation;
      const part = op_cache_put(
        stream,
        this.#name,
        urlOf(request),
        headerList(request.headers),
        status,
        responseHeaderList(response),
        given,
      );
      const settle = (kept, note) => {
        if (!kept && !warned.has(note)) {
          warned.add(note);
          console.warn(`cache.put(): the response was not kept: ${note}`);
        }
        resolve(undefined);
      };
      invocation.fetches.set(part, { resolve, reject, invocation, settle });
      if (typeof given === "number") pumpCall(invocation, part, body);
    });
  }
}

for (const name of ["add", "addAll", "keys", "matchAll"]) {
  Object.defineProperty(Cache.prototype, name, { value: missing(name), writable: true, configurable: true });
}
Object.defineProperty(Cache.prototype, Symbol.toStringTag, { value: "Cache", configurable: true });

export class CacheStorage {
  #default = new Cache(internal, undefined);

  constructor(token) {
    if (token !== internal) throw new TypeError("Illegal constructor");
  }

  get default() {
    return this.#default;
  }

  async open(name) {
    if (arguments.length === 0) throw new TypeError("caches.open() needs a name.");
    return new Cache(internal, String(name));
  }
}

for (const name of ["delete", "has", "keys", "match"]) {
  const refuse = {
    [name]() {
      return Promise.reject(new TypeError(`caches.${name}() is not implemented: caches.default and caches.open() are`));
    },
  }[name];
  Object.defineProperty(CacheStorage.prototype, name, { value: refuse, writable: true, configurable: true });
}
Object.defineProperty(CacheStorage.prototype, Symbol.toStringTag, { value: "CacheStorage", configurable: true });

export const caches = new CacheStorage(internal);
