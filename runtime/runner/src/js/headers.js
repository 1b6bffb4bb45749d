// Headers (https://fetch.spec.whatwg.org/#headers-class), kept as one flat list [name, value, ...] with names in lower case.
// The list of an incoming request is read from Rust when it is first asked for.


const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
// Anything that RFC 9110 forbids in a value, or that is not a byte.
const FORBIDDEN = /[\0\r\n]|[^\0-\xff]/;
const EDGES = /^[\t\n\r ]+|[\t\n\r ]+$/g;

export function normalName(name) {
  name = String(name);
  if (!TOKEN.test(name)) {
    throw new TypeError(`Invalid header name: ${JSON.stringify(name.slice(0, 64))}`);
  }
  return name.toLowerCase();
}

export function normalValue(value) {
  value = String(value).replace(EDGES, "");
  if (FORBIDDEN.test(value)) {
    throw new TypeError("Invalid header value: it has a line break, a NUL or a character beyond U+00FF");
  }
  return value;
}

export class Headers {
  // Null while the list is still in Rust.
  #list = [];
  #load = null;
  #immutable = false;

  constructor(init = undefined) {
    if (init !== undefined && init !== null) this.#fill(init);
    else if (init === null) throw new TypeError("Failed to construct 'Headers': the argument is not an object");
  }

  // For our own classes, not reachable from a worker.
  static list;
  static adopt;
  static lazy;
  static freeze;
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
      return headers;
    };
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
    if (#list in init && init[Symbol.iterator] === Headers.prototype[Symbol.iterator]) {
      this.#list = init.#entries().slice();
      return;
    }
    const iterator = init[Symbol.iterator];
    if (iterator !== undefined && iterator !== null) {
      for (const pair of init) {
        const entry = typeof pair === "object" && pair !== null ? Array.from(pair) : [];
        if (entry.length !== 2) {
          throw new TypeError("Failed to construct 'Headers': a pair of a name and a value is expected");
        }
        this.#append(entry[0], entry[1]);
      }
      return;
    }
    for (const name of Reflect.ownKeys(init)) {
      if (Reflect.getOwnPropertyDescriptor(init, name)?.enumerable) {
        if (typeof name === "symbol") throw new TypeError("Invalid header name: a symbol");
        this.#append(name, init[name]);
      }
    }
  }

  #append(name, value) {
    name = normalName(name);
    value = normalValue(value);
    this.#entries().push(name, value);
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

  #remove(name) {
    const list = this.#entries();
    let kept = 0;
    for (let i = 0; i < list.length; i += 2) {
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
      if (list[i] === "set-cookie") cookies.push(list[i + 1]);
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
      const rest = list.splice(i + 2);
      for (let j = 0; j < rest.length; j += 2) {
        if (rest[j] !== name) list.push(rest[j], rest[j + 1]);
      }
      return;
    }
    list.push(name, value);
  }

  // Sorted by name, values of one name joined, but Set-Cookie kept apart.
  #sorted() {
    const list = this.#entries();
    const joined = new Map();
    const cookies = [];
    for (let i = 0; i < list.length; i += 2) {
      const name = list[i];
      if (name === "set-cookie") cookies.push([name, list[i + 1]]);
      else joined.set(name, joined.has(name) ? `${joined.get(name)}, ${list[i + 1]}` : list[i + 1]);
    }
    const pairs = [...joined, ...cookies];
    return pairs.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
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
    for (const [name, value] of this.#sorted()) Reflect.apply(callback, thisArg, [value, name, this]);
  }
}

export const { list: headerList, adopt: adoptHeaders, lazy: lazyHeaders, freeze: freezeHeaders } = Headers;
for (const name of ["list", "adopt", "lazy", "freeze"]) delete Headers[name];

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
