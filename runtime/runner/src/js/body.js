// Bodies of requests and responses (https://fetch.spec.whatwg.org/#bodies). A body keeps its source as it was given - a
// string, bytes, a Blob, a body on its way in - and becomes a ReadableStream only for who asks for one.

import { core, primordials } from "ext:core/mod.js";
import { Incoming } from "ext:selvedge/incoming.js";
import { lengthOf } from "ext:selvedge/lengths.js";
import { FormData, blobOfFormData } from "ext:selvedge/formdata.js";
import { parseForm } from "ext:selvedge/multipart.js";
import { cancelReadable, pumpBytes, pumpIncoming, pumpReadable } from "ext:selvedge/outgoing.js";

const { Blob, BlobPrototype } = core.loadExtScript("ext:deno_web/09_file.js");
const { ReadableStream, isReadableStream, isReadableStreamDisturbed, readableStreamCollectIntoUint8Array } = core
  .loadExtScript("ext:deno_web/06_streams.js");
const { URLSearchParamsPrototype } = core.loadExtScript("ext:deno_web/00_url.js");
const {
  ArrayBuffer,
  ArrayBufferIsView,
  ArrayBufferPrototypeSlice,
  ObjectPrototypeIsPrototypeOf,
  StringPrototypeToWellFormed,
  TypeError,
  TypedArrayPrototypeSlice,
  Uint8Array,
} = primordials;

// Strings up to this length surely fit into one chunk as UTF-8 (3 bytes for each unit); bytes up to this fit as they are.
const WHOLE_UNITS_MAX = 21 << 10;
const WHOLE_BYTES_MAX = 64 << 10;

export class Body {
  #source;
  #readable = null;
  #used = false;

  constructor(source, readable = null) {
    this.#source = source;
    this.#readable = readable;
  }

  get used() {
    return this.#used || (this.#readable !== null && isReadableStreamDisturbed(this.#readable));
  }

  get unusable() {
    return this.#used || (this.#readable !== null && (this.#readable.locked || isReadableStreamDisturbed(this.#readable)));
  }

  get stream() {
    if (this.#readable === null) {
      const used = this.#used;
      this.#readable = this.#toReadable();
      if (used) this.#readable.cancel();
    }
    return this.#readable;
  }

  #toReadable() {
    const source = this.#source;
    if (source instanceof Incoming) return source.readable();
    if (ObjectPrototypeIsPrototypeOf(BlobPrototype, source)) return source.stream();
    let bytes = typeof source === "string" ? core.encode(source) : source;
    return new ReadableStream({
      type: "bytes",
      pull(controller) {
        if (bytes.byteLength > 0) controller.enqueue(bytes);
        controller.close();
        controller.byobRequest?.respond(0);
        bytes = new Uint8Array();
      },
    }, { highWaterMark: 0 });
  }

  #take() {
    if (this.unusable) {
      throw new TypeError("Body has already been used. It can only be used once. Use clone() first if you need to read it twice.");
    }
    this.#used = true;
  }

  // All bytes, as a fresh Uint8Array; or the string itself where the source is one and `text` is asked for.
  async consume(text) {
    this.#take();
    if (this.#readable !== null) {
      const bytes = await readableStreamCollectIntoUint8Array(this.#readable);
      return text ? core.decode(bytes) : bytes;
    }
    const source = this.#source;
    if (typeof source === "string") return text ? StringPrototypeToWellFormed(source) : core.encode(source);
    let bytes;
    if (source instanceof Incoming) bytes = await source.collect();
    else if (ObjectPrototypeIsPrototypeOf(BlobPrototype, source)) bytes = new Uint8Array(await source.arrayBuffer());
    else bytes = text ? source : TypedArrayPrototypeSlice(source);
    return text ? core.decode(bytes) : bytes;
  }

  // A second body with the same bytes.
  clone() {
    if (this.unusable) throw new TypeError("Body has already been used.");
    if (this.#readable === null && !(this.#source instanceof Incoming)) return new Body(this.#source);
    const both = this.stream.tee();
    this.#readable = both[0];
    this.#source = null;
    return new Body(null, both[1]);
  }

  // What is left behind where the body has moved to another request: it counts as used.
  moved() {
    const left = new Body("");
    left.#used = true;
    return left;
  }

  // What Rust is told of the body: the bytes where they are few, else its length (-1 unknown), and `pump` must follow.
  describe() {
    if (this.unusable) throw new TypeError("Body has already been used. It can only be used once.");
    if (this.#readable !== null) return lengthOf(this.#readable) ?? -1;
    const source = this.#source;
    if (typeof source === "string") {
      if (source.length <= WHOLE_UNITS_MAX) return this.#whole(source);
      this.#source = core.encode(source);
      return this.describe();
    }
    if (source instanceof Incoming) return source.length;
    if (ObjectPrototypeIsPrototypeOf(BlobPrototype, source)) return source.size;
    return source.byteLength <= WHOLE_BYTES_MAX ? this.#whole(source) : source.byteLength;
  }

  #whole(source) {
    this.#used = true;
    return source;
  }

  // Nobody wants it.
  cancel() {
    this.#used = true;
    if (this.#readable !== null) cancelReadable(this.#readable);
    else if (this.#source instanceof Incoming) this.#source.cancel();
  }

  // Writes the body, in the end or at once.
  pump(invocation, part) {
    if (this.#readable !== null) return pumpReadable(invocation, part, this.#readable);
    this.#used = true;
    const source = this.#source;
    if (source instanceof Incoming) return pumpIncoming(invocation, part, source);
    if (ObjectPrototypeIsPrototypeOf(BlobPrototype, source)) return pumpReadable(invocation, part, source.stream());
    return pumpBytes(invocation, part, source);
  }
}

// https://fetch.spec.whatwg.org/#concept-bodyinit-extract: the body, and its Content-Type or null.
export function extractBody(init) {
  if (typeof init === "string") return { body: new Body(init), type: "text/plain;charset=UTF-8" };
  if (isReadableStream(init)) {
    if (init.locked || isReadableStreamDisturbed(init)) {
      throw new TypeError("This ReadableStream is disturbed (has already been read from), and cannot be used as a body.");
    }
    return { body: new Body(null, init), type: null };
  }
  if (ArrayBufferIsView(init)) {
    return { body: new Body(TypedArrayPrototypeSlice(new Uint8Array(init.buffer, init.byteOffset, init.byteLength))), type: null };
  }
  if (init instanceof ArrayBuffer) return { body: new Body(new Uint8Array(ArrayBufferPrototypeSlice(init, 0))), type: null };
  if (typeof init === "object" && init !== null) {
    if (ObjectPrototypeIsPrototypeOf(BlobPrototype, init)) return { body: new Body(init), type: init.type === "" ? null : init.type };
    if (ObjectPrototypeIsPrototypeOf(URLSearchParamsPrototype, init)) {
      return { body: new Body(init.toString()), type: "application/x-www-form-urlencoded;charset=UTF-8" };
    }
    if (ObjectPrototypeIsPrototypeOf(FormData.prototype, init)) {
      const blob = blobOfFormData(init);
      return { body: new Body(blob), type: blob.type };
    }
  }
  return { body: new Body(`${init}`), type: "text/plain;charset=UTF-8" };
}

// Gives a class the body's members; `bodyOf` throws where `this` is not of the class.
export function mixBody(constructor, bodyOf, typeOf) {
  const bytes = async (self, text) => {
    const body = bodyOf(self);
    return body === null ? (text ? "" : new Uint8Array()) : await body.consume(text);
  };
  const members = {
    get body() {
      return bodyOf(this)?.stream ?? null;
    },
    get bodyUsed() {
      return bodyOf(this)?.used ?? false;
    },
    async arrayBuffer() {
      const all = await bytes(this, false);
      return all.byteLength === all.buffer.byteLength ? all.buffer : all.slice().buffer;
    },
    async blob() {
      const type = typeOf(this) ?? "";
      return new Blob([await bytes(this, false)], { type });
    },
    async bytes() {
      return await bytes(this, false);
    },
    async formData() {
      const type = typeOf(this);
      return parseForm(await bytes(this, false), type);
    },
    async json() {
      return JSON.parse(await bytes(this, true));
    },
    async text() {
      return await bytes(this, true);
    },
  };
  const descriptors = Object.getOwnPropertyDescriptors(members);
  Object.defineProperties(constructor.prototype, descriptors);
}
