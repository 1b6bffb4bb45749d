// Headers (https://fetch.spec.whatwg.org/#headers-class), kept as one flat list [name, value, ...] with names in lower case.
// The list of an incoming request is read from Rust when it is first asked for.

import { primordials } from "ext:core/mod.js";

// What a worker changes of globals and prototypes changes nothing here.
const {
  ArrayFrom,
  ArrayPrototypeSlice,
  ArrayPrototypeSort,
  JSONStringify,
  ReflectApply,
  ReflectGetOwnPropertyDescriptor,
  ReflectOwnKeys,
  RegExpPrototypeExec,
  SafeMap,
  StringPrototypeSlice,
  StringPrototypeToLowerCase,
  SymbolIterator,
  TypeError,
} = primordials;

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
// What Rust's `HeaderValue` refuses: controls but the tab, and what is not a byte.
const FORBIDDEN = /[^\t\x20-\x7e\x80-\xff]/;

// Names as a worker writes them, and their normal form: it writes few, again and again.
const known = new SafeMap();
const KNOWN_MAX = 256;
const KNOWN_UNITS_MAX = 64;

export function normalName(name) {
  name = `${name}`;
  return known.get(name) ?? checkedName(name);
}

function checkedName(name) {
  if (RegExpPrototypeExec(TOKEN, name) === null) {
    throw new TypeError(`Invalid header name: ${JSONStringify(StringPrototypeSlice(name, 0, 64))}`);
  }
  const normal = StringPrototypeToLowerCase(name);
  if (known.size < KNOWN_MAX && name.length <= KNOWN_UNITS_MAX) known.set(name, normal);
  return normal;
}

export function normalValue(value) {
  value = trimmed(`${value}`);
  if (RegExpPrototypeExec(FORBIDDEN, value) !== null) {
    throw new TypeError("Invalid header value: it has a control character or one beyond U+00FF");
  }
  return value;
}

const isSpace = (unit) => unit === " " || unit === "\t" || unit === "\n" || unit === "\r";

// From both ends: a regular expression for that looks at each run of spaces inside once for each space of it.
function trimmed(value) {
  let start = 0;
  let end = value.length;
  while (start < end && isSpace(value[start])) start++;
  while (end > start && isSpace(value[end - 1])) end--;
  return start === 0 && end === value.length ? value : StringPrototypeSlice(value, start, end);
}

export class Headers {
  // Null while the list is still in Rust.
  #list = [];
  #load = null;
  #immutable = false;
  // Its Accept-Encoding is what a client can decode, not what the worker wants.
  #clients = false;

  constructor(init = undefined) {
    if (init !== undefined && init !== null) this.#fill(init);
    else if (init === null) throw new TypeError("Failed to construct 'Headers': the argument is not an object");
  }

  // For our own classes, not reachable from a worker.
  static list;
  static adopt;
  static lazy;
  static freeze;
  static ofClient;
  static {
    Headers.list = (headers) => headers.#entries();
    Headers.adopt = (list) => {
      const headers = new Headers();
      headers.#list = list;
      return headers;
    };
    Headers.lazy = (load) => {
      const headers = new Headers();
      headers.#list = null;
      headers.#load = load;
      headers.#immutable = true;
      headers.#clients = true;
      return headers;
    };
    Headers.ofClient = (headers) => headers.#clients;
    Headers.freeze = (headers) => {
      headers.#immutable = true;
      return headers;
    };
  }

  #entries() {
    if (this.#list === null) {
      this.#list = this.#load();
      this.#load = null;
    }
    return this.#list;
  }

  #fill(init) {
    if (typeof init !== "object" && typeof init !== "function") {
      throw new TypeError("Failed to construct 'Headers': the argument is not an object");
    }
    if (#list in init && init[SymbolIterator] === Headers.prototype[SymbolIterator]) {
      this.#list = ArrayPrototypeSlice(init.#entries());
      this.#clients = init.#clients;
      return;
    }
    const iterator = init[SymbolIterator];
    if (iterator !== undefined && iterator !== null) {
      for (const pair of init) {
        const entry = typeof pair === "object" && pair !== null ? ArrayFrom(pair) : [];
        if (entry.length !== 2) {
          throw new TypeError("Failed to construct 'Headers': a pair of a name and a value is expected");
        }
        this.#append(entry[0], entry[1]);
      }
      return;
    }
    const names = ReflectOwnKeys(init);
    for (let i = 0; i < names.length; i++) {
      const name = names[i];
      if (ReflectGetOwnPropertyDescriptor(init, name)?.enumerable) {
        if (typeof name === "symbol") throw new TypeError("Invalid header name: a symbol");
        this.#append(name, init[name]);
      }
    }
  }

  #append(name, value) {
    name = normalName(name);
    value = normalValue(value);
    this.#add(name, value);
  }

  #add(name, value) {
    const list = this.#entries();
    list[list.length] = name;
    list[list.length] = value;
    if (name === "accept-encoding") this.#clients = false;
  }

  #check() {
    if (this.#immutable) {
      throw new TypeError("Can't modify immutable headers.");
    }
  }

  append(name, value) {
    if (arguments.length < 2) throw new TypeError("Headers.append needs 2 arguments");
    this.#check();
    this.#append(name, value);
  }

  delete(name) {
    name = normalName(name);
    this.#check();
    this.#remove(name);
  }

  #remove(name, from = 0) {
    const list = this.#entries();
    let kept = from;
    for (let i = from; i < list.length; i += 2) {
      if (list[i] === name) continue;
      list[kept] = list[i];
      list[kept + 1] = list[i + 1];
      kept += 2;
    }
    list.length = kept;
  }

  get(name) {
    name = normalName(name);
    const list = this.#entries();
    let found = null;
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] === name) found = found === null ? list[i + 1] : `${found}, ${list[i + 1]}`;
    }
    return found;
  }

  getSetCookie() {
    const list = this.#entries();
    const cookies = [];
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] === "set-cookie") cookies[cookies.length] = list[i + 1];
    }
    return cookies;
  }

  // As in Workers, where it is older than getSetCookie.
  getAll(name) {
    if (normalName(name) !== "set-cookie") {
      throw new TypeError('getAll() can only be used with the header name "Set-Cookie".');
    }
    return this.getSetCookie();
  }

  has(name) {
    name = normalName(name);
    const list = this.#entries();
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] === name) return true;
    }
    return false;
  }

  set(name, value) {
    if (arguments.length < 2) throw new TypeError("Headers.set needs 2 arguments");
    name = normalName(name);
    value = normalValue(value);
    this.#check();
    const list = this.#entries();
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] !== name) continue;
      list[i + 1] = value;
      this.#remove(name, i + 2);
      if (name === "accept-encoding") this.#clients = false;
      return;
    }
    this.#add(name, value);
  }

  // Sorted by name, values of one name joined, but Set-Cookie kept apart.
  #sorted() {
    const list = this.#entries();
    const pairs = [];
    const byName = new SafeMap();
    for (let i = 0; i < list.length; i += 2) {
      const name = list[i];
      const pair = byName.get(name);
      if (pair !== undefined) {
        pair[1] = `${pair[1]}, ${list[i + 1]}`;
        continue;
      }
      const added = [name, list[i + 1]];
      pairs[pairs.length] = added;
      if (name !== "set-cookie") byName.set(name, added);
    }
    return ArrayPrototypeSort(pairs, (a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
  }

  *entries() {
    yield* this.#sorted();
  }

  *keys() {
    for (const pair of this.#sorted()) yield pair[0];
  }

  *values() {
    for (const pair of this.#sorted()) yield pair[1];
  }

  forEach(callback, thisArg = undefined) {
    if (typeof callback !== "function") throw new TypeError("Headers.forEach needs a function");
    const pairs = this.#sorted();
    for (let i = 0; i < pairs.length; i++) ReflectApply(callback, thisArg, [pairs[i][1], pairs[i][0], this]);
  }
}

export const { list: headerList, adopt: adoptHeaders, lazy: lazyHeaders, freeze: freezeHeaders, ofClient: headersOfClient } = Headers;
for (const name of ["list", "adopt", "lazy", "freeze", "ofClient"]) delete Headers[name];

Object.defineProperty(Headers.prototype, Symbol.iterator, {
  value: Headers.prototype.entries,
  writable: true,
  configurable: true,
});
Object.defineProperty(Headers.prototype, Symbol.for("Deno.privateCustomInspect"), {
  value(inspect, options) {
    return `Headers ${inspect(Object.fromEntries(this), options)}`;
  },
  configurable: true,
});
Object.defineProperty(Headers.prototype, Symbol.toStringTag, { value: "Headers", configurable: true });
