// The options `cf` of a fetch(): what a worker wishes of the cache, as Rust takes it. Rust checks it again, with every bound.

import { primordials } from "ext:core/mod.js";
import { console } from "ext:selvedge/console.js";

const { ObjectHasOwn, ObjectKeys, SafeSet } = primordials;

const NONE = undefined;
// Options that have no effect here, named once each.
const warned = new SafeSet();

function seconds(name, value) {
  const number = Math.trunc(Number(value));
  if (!Number.isFinite(number)) throw new TypeError(`cf.${name} must be a number of seconds`);
  return number;
}

function byStatus(rules) {
  if (typeof rules !== "object" || rules === null) throw new TypeError("cf.cacheTtlByStatus must be an object such as { '200-299': 60, 404: 1 }");
  return Object.entries(rules).map(([range, value]) => {
    const match = /^\s*(\d{3})\s*(?:-\s*(\d{3})\s*)?$/.exec(range);
    if (match === null) throw new TypeError(`cf.cacheTtlByStatus: ${JSON.stringify(range.slice(0, 32))} is no status code and no range of them`);
    return { from: Number(match[1]), to: Number(match[2] ?? match[1]), ttl_s: Math.max(seconds("cacheTtlByStatus", value), -1) };
  });
}

function tags(list) {
  if (!Array.isArray(list)) throw new TypeError("cf.cacheTags must be an array of strings");
  return list.map(String);
}

const READERS = {
  // As in Workers, a negative time is the same as no option.
  cacheTtl: (value) => ({ ttl_s: Math.max(seconds("cacheTtl", value), 0) }),
  cacheTtlByStatus: (value) => ({ ttl_by_status: byStatus(value) }),
  cacheEverything: (value) => ({ everything: Boolean(value) }),
  cacheKey: (value) => ({ key: String(value) }),
  cacheTags: (value) => ({ tags: tags(value) }),
};

// JSON for Rust, or undefined where there is nothing to wish.
export function wishesOf(options) {
  if (typeof options !== "object" || options === null) return NONE;
  let wishes = NONE;
  const names = ObjectKeys(options);
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    const value = options[name];
    if (value === undefined || value === null) continue;
    if (!ObjectHasOwn(READERS, name)) {
      if (!warned.has(name) && warned.size < 64) {
        warned.add(name);
        console.warn(`fetch(): the option cf.${name.slice(0, 64)} is not supported and was ignored`);
      }
      continue;
    }
    wishes = { ...wishes, ...READERS[name](value) };
  }
  return wishes === NONE ? NONE : JSON.stringify(wishes);
}
