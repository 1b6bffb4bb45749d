// A body on its way in: chunks that Rust delivers, consumed one by one. What is consumed is given back as credit, so that
// never more than the first credit (64 KiB) waits here.

import { core, primordials } from "ext:core/mod.js";
import { op_abandon, op_body_credit } from "ext:core/ops";

const { ReadableStream } = core.loadExtScript("ext:deno_web/06_streams.js");
const { Promise, TypedArrayPrototypeSet, Uint8Array } = primordials;

export class Incoming {
  #stream;
  #part;
  // Chunks from `#next` on wait.
  #queue = [];
  #next = 0;
  #ended = false;
  #error = undefined;
  #wake = null;
  // Its length where known.
  length;

  constructor(stream, part, length) {
    this.#stream = stream;
    this.#part = part;
    this.length = length;
  }

  // From Rust.
  push(bytes) {
    if (this.#ended) return;
    this.#queue[this.#queue.length] = bytes;
    this.#notify();
  }

  end(error) {
    if (this.#ended) return;
    this.#ended = true;
    if (error !== undefined) {
      this.#error = error;
      this.#forget();
    }
    this.#notify();
  }

  #forget() {
    this.#queue.length = 0;
    this.#next = 0;
  }

  #notify() {
    const wake = this.#wake;
    if (wake !== null) {
      this.#wake = null;
      wake();
    }
  }

  // The next chunk, or undefined at the end. One caller at a time.
  async next() {
    while (this.#next === this.#queue.length) {
      if (this.#error !== undefined) throw this.#error;
      if (this.#ended) return undefined;
      await new Promise((resolve) => {
        this.#wake = resolve;
      });
    }
    const bytes = this.#queue[this.#next];
    this.#queue[this.#next++] = undefined;
    if (this.#next === this.#queue.length) this.#forget();
    if (!this.#ended) op_body_credit(this.#stream, this.#part, bytes.byteLength);
    return bytes;
  }

  cancel() {
    if (this.#ended) return;
    this.end(undefined);
    this.#forget();
    op_abandon(this.#stream, this.#part);
  }

  async collect() {
    const chunks = [];
    let total = 0;
    for (let chunk = await this.next(); chunk !== undefined; chunk = await this.next()) {
      chunks[chunks.length] = chunk;
      total += chunk.byteLength;
    }
    if (chunks.length === 1) return chunks[0];
    const all = new Uint8Array(total);
    let offset = 0;
    for (let i = 0; i < chunks.length; i++) {
      TypedArrayPrototypeSet(all, chunks[i], offset);
      offset += chunks[i].byteLength;
    }
    return all;
  }

  readable() {
    const incoming = this;
    return new ReadableStream({
      type: "bytes",
      async pull(controller) {
        const chunk = await incoming.next();
        if (chunk === undefined) {
          controller.close();
          controller.byobRequest?.respond(0);
        } else {
          controller.enqueue(chunk);
        }
      },
      cancel() {
        incoming.cancel();
      },
    }, { highWaterMark: 0 });
  }
}
