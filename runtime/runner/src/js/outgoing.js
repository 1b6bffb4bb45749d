// A body on its way out: pulled from its source as fast as the other side gives credit, and not faster.

import { op_body_end, op_body_write } from "ext:core/ops";

// Writers waiting for credit: one for each body, by "stream/part".
const waiting = new Map();
const key = (stream, part) => stream * 65536 + part;

// Called by Rust when credit has come for a body that had none left, or when nobody wants it any more.
export function credited(stream, part) {
  const id = key(stream, part);
  const wake = waiting.get(id);
  if (wake !== undefined) {
    waiting.delete(id);
    wake();
  }
}

// Writes one chunk. False when nobody wants the body any more.
async function write(stream, part, bytes) {
  let offset = 0;
  while (offset < bytes.byteLength) {
    const taken = op_body_write(stream, part, bytes, offset);
    if (taken < 0) return false;
    offset += taken;
    if (offset < bytes.byteLength) {
      if (taken === 0) {
        await new Promise((resolve) => waiting.set(key(stream, part), resolve));
      }
    }
  }
  return true;
}

function bytesOf(chunk) {
  if (ArrayBuffer.isView(chunk)) return chunk;
  if (chunk instanceof ArrayBuffer) return new Uint8Array(chunk);
  throw new TypeError(`a body's stream must give bytes, not ${chunk === null ? "null" : typeof chunk}`);
}

export async function pumpBytes(stream, part, bytes) {
  if (await write(stream, part, bytes)) op_body_end(stream, part, undefined);
}

export async function pumpIncoming(stream, part, incoming) {
  for (let chunk = await incoming.next(); chunk !== undefined; chunk = await incoming.next()) {
    if (!(await write(stream, part, chunk))) {
      incoming.cancel();
      return;
    }
  }
  op_body_end(stream, part, undefined);
}

export async function pumpReadable(stream, part, readable) {
  const reader = readable.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    let wanted;
    try {
      wanted = await write(stream, part, bytesOf(value));
    } catch (error) {
      reader.cancel(error).catch(() => {});
      throw error;
    }
    if (!wanted) {
      reader.cancel(new Error("the reader of this body is gone")).catch(() => {});
      return;
    }
  }
  op_body_end(stream, part, undefined);
}
