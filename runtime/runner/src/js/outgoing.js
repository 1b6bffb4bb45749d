// A body on its way out: pulled from its source as fast as the other side gives credit, and not faster.

import { core, primordials } from "ext:core/mod.js";
import { op_body_end, op_body_write } from "ext:core/ops";

const { ReadableStream, ReadableStreamDefaultReader } = core.loadExtScript("ext:deno_web/06_streams.js");
const { ArrayBuffer, ArrayBufferIsView, Error, TypeError, Uint8Array, uncurryThis } = primordials;

const cancelStream = uncurryThis(ReadableStream.prototype.cancel);
const getReader = uncurryThis(ReadableStream.prototype.getReader);
const read = uncurryThis(ReadableStreamDefaultReader.prototype.read);
const cancel = uncurryThis(ReadableStreamDefaultReader.prototype.cancel);

// Writes one chunk. False when nobody wants the body any more.
async function write(invocation, part, bytes) {
  let offset = 0;
  while (offset < bytes.byteLength) {
    const taken = op_body_write(invocation.stream, part, bytes, offset);
    if (taken < 0) return false;
    offset += taken;
    if (taken === 0) await invocation.credit(part);
  }
  return true;
}

function bytesOf(chunk) {
  if (ArrayBufferIsView(chunk)) return chunk;
  if (chunk instanceof ArrayBuffer) return new Uint8Array(chunk);
  throw new TypeError(`a body's stream must give bytes, not ${chunk === null ? "null" : typeof chunk}`);
}

const unread = () => new Error("the reader of this body is gone");

// Nobody will read it.
export function cancelReadable(readable) {
  quietly(cancelStream(readable, unread()));
}

// Nobody hears of its failure.
async function quietly(promise) {
  try {
    await promise;
  } catch {}
}

export async function pumpBytes(invocation, part, bytes) {
  if (await write(invocation, part, bytes)) op_body_end(invocation.stream, part, undefined);
}

export async function pumpIncoming(invocation, part, incoming) {
  for (let chunk = await incoming.next(); chunk !== undefined; chunk = await incoming.next()) {
    if (!(await write(invocation, part, chunk))) {
      incoming.cancel();
      return;
    }
  }
  op_body_end(invocation.stream, part, undefined);
}

export async function pumpReadable(invocation, part, readable) {
  const reader = getReader(readable);
  for (;;) {
    const { done, value } = await read(reader);
    if (done) break;
    let wanted;
    try {
      wanted = await write(invocation, part, bytesOf(value));
    } catch (error) {
      quietly(cancel(reader, error));
      throw error;
    }
    if (!wanted) {
      quietly(cancel(reader, unread()));
      return;
    }
  }
  op_body_end(invocation.stream, part, undefined);
}
