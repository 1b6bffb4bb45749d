// ctx.cache, and `cache` of `cloudflare:workers`: purges of what is the worker's own (https://developers.cloudflare.com/workers/cache/purge/).
// What is checked here is for a clear message; the edge and the registry check again.

import { op_cache_purge } from "ext:core/ops";
import { takeCall } from "ext:selvedge/fetch.js";
import { currentInvocation } from "ext:selvedge/invocation.js";

const LISTS = { tags: "tags", pathPrefixes: "path_prefixes", urls: "urls", files: "urls", prefixes: "prefixes", hosts: "hosts" };
const FLAGS = { purgeEverything: "everything", soft: "soft" };

function texts(name, list) {
  if (!Array.isArray(list)) throw new TypeError(`purge(): ${name} must be an array of strings`);
  return list.map(String);
}

// JSON for Rust.
function described(options) {
  if (typeof options !== "object" || options === null) {
    throw new TypeError("purge() takes an object such as { tags: ['a'], urls: [request.url], soft: true } or { purgeEverything: true }");
  }
  const purge = {};
  for (const name of Object.keys(options)) {
    const value = options[name];
    if (value === undefined) continue;
    if (Object.hasOwn(FLAGS, name)) {
      purge[FLAGS[name]] = Boolean(value);
    } else if (Object.hasOwn(LISTS, name)) {
      // `urls` and `files` are two names of one list.
      purge[LISTS[name]] = [...(purge[LISTS[name]] ?? []), ...texts(name, value)];
    } else {
      const known = Object.keys({ ...LISTS, ...FLAGS }).join(", ");
      throw new TypeError(`purge(): ${name.slice(0, 64)} is not supported: ${known} are`);
    }
  }
  return JSON.stringify(purge);
}

export const cache = Object.freeze({
  purge(options) {
    return new Promise((resolve, reject) => {
      const invocation = currentInvocation();
      if (invocation === undefined) {
        throw new Error("Disallowed operation called within global scope: purge() needs a request to belong to.");
      }
      const part = op_cache_purge(invocation.stream, described(options));
      invocation.fetches.set(part, { resolve, reject });
    });
  },
});

// Called by Rust. Without a code the purge is made.
export function purged(stream, part, code, message) {
  const errors = code === undefined ? [] : [{ code, message }];
  takeCall(stream, part)?.resolve({ success: code === undefined, errors });
}
