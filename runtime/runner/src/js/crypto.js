// crypto, loaded when it is first used: its objects live in V8's C++ heap, which a snapshot cannot hold.

import { core } from "ext:core/mod.js";
import { attributeMethods } from "ext:selvedge/attributed.js";

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

let loaded = null;

function load() {
  if (loaded === null) {
    loaded = core.loadExtScript("ext:deno_crypto/00_crypto.js");
    const { prototype } = loaded.SubtleCrypto;
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
