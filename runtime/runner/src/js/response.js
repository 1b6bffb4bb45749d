// Response (https://fetch.spec.whatwg.org/#response-class).

import { core, primordials } from "ext:core/mod.js";
import { extractBody, mixBody } from "ext:selvedge/body.js";
import { inspectable } from "ext:selvedge/console.js";
import { Headers, adoptHeaders, freezeHeaders, headerList } from "ext:selvedge/headers.js";

const { URL } = core.loadExtScript("ext:deno_web/00_url.js");

const { JSONStringify, MathTrunc, Number, RangeError, RegExpPrototypeExec, SafeSet, TypeError } = primordials;

const REASON = /^[\t \x21-\x7e\x80-\xff]*$/;
const NULL_BODY = new SafeSet([101, 204, 205, 304]);
const REDIRECT = new SafeSet([301, 302, 303, 307, 308]);

const internal = Symbol();

export class Response {
  #status = 200;
  #statusText = "";
  #headers = null;
  #body = null;
  #url = "";
  #redirected = false;
  #type = "default";

  constructor(body = null, init = undefined) {
    if (body === internal) return;
    if (init !== undefined && init !== null) this.#init(init);
    this.#headers ??= new Headers();
    if (body !== null && body !== undefined) {
      if (NULL_BODY.has(this.#status)) {
        throw new TypeError(`Response with null body status (101, 204, 205, or 304) cannot have a body.`);
      }
      const { body: extracted, type } = extractBody(body);
      this.#body = extracted;
      if (type !== null) this.#setType(type);
    }
  }

  #setType(type) {
    const list = headerList(this.#headers);
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] === "content-type") return;
    }
    list[list.length] = "content-type";
    list[list.length] = type;
  }

  #init(init) {
    if (typeof init !== "object" && typeof init !== "function") {
      throw new TypeError("Failed to construct 'Response': init is not an object");
    }
    if (init.status !== undefined) {
      const status = MathTrunc(Number(init.status));
      if (!(status >= 200 && status <= 599)) {
        throw new RangeError(`Responses may only be constructed with status codes in the range 200 to 599, inclusive; not ${init.status}.`);
      }
      this.#status = status;
    }
    if (init.statusText !== undefined) {
      const text = `${init.statusText}`;
      if (RegExpPrototypeExec(REASON, text) === null) throw new TypeError("Invalid statusText.");
      this.#statusText = text;
    }
    if (init.headers !== undefined) this.#headers = new Headers(init.headers);
  }

  static json(data, init = undefined) {
    const text = JSONStringify(data);
    if (text === undefined) throw new TypeError("Response.json: the value has no JSON.");
    const response = new Response(null, init);
    if (NULL_BODY.has(response.#status)) {
      throw new TypeError("Response with null body status (101, 204, 205, or 304) cannot have a body.");
    }
    response.#body = extractBody(text).body;
    response.#setType("application/json");
    return response;
  }

  static redirect(url, status = 302) {
    let location;
    try {
      location = new URL(String(url)).href;
    } catch {
      throw new TypeError("Response.redirect: unable to parse URL.");
    }
    if (!REDIRECT.has(Number(status))) throw new RangeError(`Response.redirect: ${status} is not a redirect status.`);
    const response = new Response(null, { status, headers: { location } });
    freezeHeaders(response.#headers);
    return response;
  }

  static error() {
    const response = new Response(internal);
    response.#type = "error";
    response.#status = 0;
    response.#headers = freezeHeaders(new Headers());
    return response;
  }

  // For our own code, not reachable from a worker.
  static fetched;
  static list;
  static status;
  static is;
  static body;
  static {
    Response.fetched = (status, list, body, url, redirected) => {
      const response = new Response(internal);
      response.#status = status;
      response.#headers = freezeHeaders(adoptHeaders(list));
      response.#body = body;
      response.#url = url;
      response.#redirected = redirected;
      return response;
    };
    Response.is = (value) => typeof value === "object" && value !== null && #statusText in value;
    Response.body = (response) => response.#body;
    Response.list = (response) => headerList(response.#headers);
    Response.status = (response) => response.#status;
  }

  get status() {
    return this.#status;
  }

  get statusText() {
    return this.#statusText;
  }

  get ok() {
    return this.#status >= 200 && this.#status <= 299;
  }

  get headers() {
    return this.#headers;
  }

  get url() {
    return this.#url;
  }

  get redirected() {
    return this.#redirected;
  }

  get type() {
    return this.#type;
  }

  clone() {
    if (this.#body?.unusable) throw new TypeError("Cannot clone a Response whose body has been used.");
    const copy = new Response(internal);
    copy.#status = this.#status;
    copy.#statusText = this.#statusText;
    copy.#headers = new Headers(this.#headers);
    copy.#body = this.#body === null ? null : this.#body.clone();
    copy.#url = this.#url;
    copy.#redirected = this.#redirected;
    copy.#type = this.#type;
    return copy;
  }
}

export const {
  fetched: fetchedResponse,
  is: isResponse,
  body: responseBody,
  list: responseHeaderList,
  status: responseStatus,
} = Response;
for (const name of ["fetched", "is", "body", "list", "status"]) delete Response[name];

mixBody(Response, responseBody, (response) => response.headers.get("content-type"));
inspectable(Response, ["status", "statusText", "headers", "url", "redirected", "bodyUsed"]);
