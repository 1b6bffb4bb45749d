// FormData (https://xhr.spec.whatwg.org/#interface-formdata) and how it becomes a multipart body.

import { core } from "ext:core/mod.js";
import { unguessable } from "ext:selvedge/crypto.js";

const { Blob, BlobPrototype, File, FilePrototype } = core.loadExtScript("ext:deno_web/09_file.js");
const isPrototypeOf = Object.prototype.isPrototypeOf;
const isBlob = (value) => typeof value === "object" && value !== null && Reflect.apply(isPrototypeOf, BlobPrototype, [value]);
const isFile = (value) => Reflect.apply(isPrototypeOf, FilePrototype, [value]);

function entryValue(value, filename) {
  if (!isBlob(value)) return String(value).toWellFormed();
  if (isFile(value) && filename === undefined) return value;
  const name = filename === undefined ? "blob" : String(filename).toWellFormed();
  return new File([value], name, { type: value.type, lastModified: isFile(value) ? value.lastModified : undefined });
}

export class FormData {
  // [[name, value]]
  #entries = [];

  constructor(form = undefined) {
    if (form !== undefined) throw new TypeError("FormData of an HTML form: there are none in a worker");
  }

  append(name, value, filename = undefined) {
    if (arguments.length < 2) throw new TypeError("FormData.append needs 2 arguments");
    if (arguments.length > 2 && !isBlob(value)) throw new TypeError("FormData.append: a filename needs a Blob");
    this.#entries.push([String(name).toWellFormed(), entryValue(value, filename)]);
  }

  delete(name) {
    name = String(name);
    this.#entries = this.#entries.filter((entry) => entry[0] !== name);
  }

  get(name) {
    name = String(name);
    return this.#entries.find((entry) => entry[0] === name)?.[1] ?? null;
  }

  getAll(name) {
    name = String(name);
    return this.#entries.filter((entry) => entry[0] === name).map((entry) => entry[1]);
  }

  has(name) {
    name = String(name);
    return this.#entries.some((entry) => entry[0] === name);
  }

  set(name, value, filename = undefined) {
    if (arguments.length < 2) throw new TypeError("FormData.set needs 2 arguments");
    if (arguments.length > 2 && !isBlob(value)) throw new TypeError("FormData.set: a filename needs a Blob");
    name = String(name).toWellFormed();
    const entry = [name, entryValue(value, filename)];
    const first = this.#entries.findIndex((other) => other[0] === name);
    if (first < 0) {
      this.#entries.push(entry);
      return;
    }
    this.#entries[first] = entry;
    this.#entries = this.#entries.filter((other, index) => index <= first || other[0] !== name);
  }

  *entries() {
    for (const [name, value] of this.#entries) yield [name, value];
  }

  *keys() {
    for (const entry of this.#entries) yield entry[0];
  }

  *values() {
    for (const entry of this.#entries) yield entry[1];
  }

  forEach(callback, thisArg = undefined) {
    for (const [name, value] of this.#entries) Reflect.apply(callback, thisArg, [value, name, this]);
  }
}

Object.defineProperty(FormData.prototype, Symbol.iterator, {
  value: FormData.prototype.entries,
  writable: true,
  configurable: true,
});
Object.defineProperty(FormData.prototype, Symbol.for("Deno.privateCustomInspect"), {
  value(inspect, options) {
    return `FormData ${inspect([...this], options)}`;
  },
  configurable: true,
});
Object.defineProperty(FormData.prototype, Symbol.toStringTag, { value: "FormData", configurable: true });

const entriesOf = FormData.prototype.entries;

// https://html.spec.whatwg.org/#multipart-form-data: line breaks normalised, quotes and breaks in names escaped.
const escapeName = (name) => name.replace(/\r\n|\r|\n/g, "\r\n").replace(/\r/g, "%0D").replace(/\n/g, "%0A").replace(/"/g, "%22");
const escapeFilename = (name) => name.replace(/\r/g, "%0D").replace(/\n/g, "%0A").replace(/"/g, "%22");

// A Blob whose type names the boundary.
export function blobOfFormData(form) {
  // Whoever could guess it could end a part in the middle of a value.
  const boundary = `----selvedge-${unguessable()}`;
  const parts = [];
  for (const [name, value] of Reflect.apply(entriesOf, form, [])) {
    let head = `--${boundary}\r\nContent-Disposition: form-data; name="${escapeName(name)}"`;
    if (typeof value === "string") {
      parts.push(`${head}\r\n\r\n${value.replace(/\r\n|\r|\n/g, "\r\n")}\r\n`);
    } else {
      head += `; filename="${escapeFilename(value.name)}"\r\nContent-Type: ${value.type || "application/octet-stream"}\r\n\r\n`;
      parts.push(head, value, "\r\n");
    }
  }
  parts.push(`--${boundary}--\r\n`);
  return new Blob(parts, { type: `multipart/form-data; boundary=${boundary}` });
}
