// crypto, loaded when it is first used: its objects live in V8's C++ heap, which a snapshot cannot hold.

import { core } from "ext:core/mod.js";
import { attributeMethods } from "ext:selvedge/attributed.js";

const { DOMException } = core.loadExtScript("ext:deno_web/01_dom_exception.js");

const SUBTLE = [
  "decrypt",
  "deriveBits",
  "deriveKey",
  "digest",
  "encrypt",
  "exportKey",
  "generateKey",
  "importKey",
  "sign",
  "unwrapKey",
  "verify",
  "wrapKey",
];

function timingSafeEqual(a, b) {
  const view = (value) => {
    if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    if (value instanceof ArrayBuffer) return new Uint8Array(value);
    throw new TypeError("timingSafeEqual takes ArrayBuffers and ArrayBufferViews");
  };
  const left = view(a);
  const right = view(b);
  if (left.byteLength !== right.byteLength) throw new TypeError("Input buffers must have the same byte length");
  let difference = 0;
  for (let i = 0; i < left.length; i++) difference |= left[i] ^ right[i];
  return difference === 0;
}

const HEAVY = ["deriveBits", "deriveKey", "generateKey"];

// Work that a worker could push into helper threads, where no limit of its own finds it, is bounded here as in Workers.
const PBKDF2_ITERATIONS_MAX = 100_000;
const RSA_BITS_MAX = 4096;

function boundedAlgorithm(algorithm) {
  if (typeof algorithm !== "object" || algorithm === null) return algorithm;
  // Read once: a getter must not answer differently later.
  const copy = { ...algorithm };
  if (Number(copy.iterations) > PBKDF2_ITERATIONS_MAX) {
    throw new DOMException(`PBKDF2 with more than ${PBKDF2_ITERATIONS_MAX} iterations is not supported`, "NotSupportedError");
  }
  if (Number(copy.modulusLength) > RSA_BITS_MAX) {
    throw new DOMException(`RSA keys of more than ${RSA_BITS_MAX} bits are not supported`, "NotSupportedError");
  }
  return copy;
}

// Operations that an isolate may have under way at one time, by what they cost: two helper threads do them for all isolates of a
// thread, in turn. A pair of RSA keys takes a second, a derivation tens of milliseconds.
class Places {
  #free;
  #what;

  constructor(count, what) {
    this.#free = count;
    this.#what = `more than ${count} ${what} are under way`;
  }

  async hold(operation) {
    if (this.#free === 0) throw new DOMException(this.#what, "OperationError");
    this.#free -= 1;
    try {
      return await operation();
    } finally {
      this.#free += 1;
    }
  }
}

const RSA_PAIRS = new Places(2, "pairs of RSA keys");
const DERIVATIONS = new Places(32, "derivations");
const OTHERS = new Places(1024, "operations of crypto.subtle");

function placesFor(name, algorithm) {
  if (name === "deriveBits" || name === "deriveKey") return DERIVATIONS;
  return name === "generateKey" && algorithm?.modulusLength !== undefined ? RSA_PAIRS : OTHERS;
}

function boundMethods(prototype, names) {
  for (const name of names) {
    const method = prototype[name];
    if (typeof method !== "function") continue;
    const bounded = {
      async [name](...args) {
        if (HEAVY.includes(name)) args = args.map(boundedAt(name));
        return await placesFor(name, args[0]).hold(() => Reflect.apply(method, this, args));
      },
    }[name];
    Object.defineProperty(bounded, "length", { value: method.length, configurable: true });
    Object.defineProperty(prototype, name, { value: bounded, writable: true, enumerable: true, configurable: true });
  }
}

// Which arguments of which method are algorithms: the first; of deriveKey also the third (the key that is derived).
function boundedAt(name) {
  return (argument, index) => (index === 0 || (name === "deriveKey" && index === 2) ? boundedAlgorithm(argument) : argument);
}

let loaded = null;
// As it was before any worker could change it.
let randomUUID = null;

function load() {
  if (loaded === null) {
    loaded = core.loadExtScript("ext:deno_crypto/00_crypto.js");
    randomUUID = loaded.crypto.randomUUID;
    const { prototype } = loaded.SubtleCrypto;
    boundMethods(prototype, SUBTLE);
    attributeMethods(prototype, SUBTLE);
    Object.defineProperty(prototype, "timingSafeEqual", {
      value: timingSafeEqual,
      writable: true,
      enumerable: true,
      configurable: true,
    });
  }
  return loaded;
}

// 122 random bits that nobody guesses.
export function unguessable() {
  const { crypto } = load();
  return Reflect.apply(randomUUID, crypto, []);
}

export function installCrypto(global) {
  for (const name of ["crypto", "Crypto", "CryptoKey", "SubtleCrypto"]) {
    Object.defineProperty(global, name, {
      get: () => load()[name],
      set(value) {
        Object.defineProperty(global, name, { value, writable: true, enumerable: name === "crypto", configurable: true });
      },
      enumerable: name === "crypto",
      configurable: true,
    });
  }
}
