// IdentityTransformStream and FixedLengthStream: byte streams that pass through what they get; the latter says how much.

import { core } from "ext:core/mod.js";

const { TransformStream } = core.loadExtScript("ext:deno_web/06_streams.js");

// Lengths of the readable sides of FixedLengthStreams: they become Content-Length.
const lengths = new WeakMap();

export function lengthOf(readable) {
  return lengths.get(readable);
}

function bytesOf(chunk) {
  if (ArrayBuffer.isView(chunk)) return new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  if (chunk instanceof ArrayBuffer) return new Uint8Array(chunk);
  throw new TypeError("This stream takes ArrayBuffers and ArrayBufferViews only.");
}

export class IdentityTransformStream extends TransformStream {
  constructor() {
    super({
      transform(chunk, controller) {
        controller.enqueue(bytesOf(chunk));
      },
    });
  }
}

export class FixedLengthStream extends TransformStream {
  constructor(length) {
    const expected = Number(length);
    if (!Number.isSafeInteger(expected) || expected < 0) {
      throw new TypeError("FixedLengthStream needs a length that is a non-negative integer");
    }
    let seen = 0;
    super({
      transform(chunk, controller) {
        const bytes = bytesOf(chunk);
        seen += bytes.byteLength;
        if (seen > expected) {
          throw new TypeError(`FixedLengthStream got more than ${expected} bytes`);
        }
        controller.enqueue(bytes);
      },
      flush() {
        if (seen < expected) {
          throw new TypeError(`FixedLengthStream got ${seen} bytes, ${expected} were promised`);
        }
      },
    });
    lengths.set(this.readable, expected);
  }
}
