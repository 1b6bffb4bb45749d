// What a worker finds on its global object, and the functions that Rust calls. Evaluated while the snapshot is made.

import { core } from "ext:core/mod.js";
import { op_expect_async, op_expect_messages } from "ext:core/ops";
import { AbortController, AbortSignal, DOMException, Scheduler } from "ext:selvedge/abort.js";
import { attributeMethods, settleNext } from "ext:selvedge/attributed.js";
import { Performance, installDate, installDateTimeFormat, startClock } from "ext:selvedge/clock.js";
import { Cache, CacheStorage, caches } from "ext:selvedge/caches.js";
import { console } from "ext:selvedge/console.js";
import { installCrypto } from "ext:selvedge/crypto.js";
import { WorkerGlobalScope, installGlobalTarget, reportError, unhandled } from "ext:selvedge/events.js";
import { fetch, fetchFailed, fetched, settled } from "ext:selvedge/fetch.js";
import { FormData } from "ext:selvedge/formdata.js";
import { Headers } from "ext:selvedge/headers.js";
import { bodyData, bodyEnd, cancel, credited, leave } from "ext:selvedge/invocation.js";
import { FixedLengthStream, IdentityTransformStream } from "ext:selvedge/lengths.js";
import { purged } from "ext:selvedge/purge.js";
import { rehearse } from "ext:selvedge/rehearsal.js";
import { Request } from "ext:selvedge/request.js";
import { Response } from "ext:selvedge/response.js";
import { clearInterval, clearTimeout, drop, fire, setInterval, setTimeout } from "ext:selvedge/timers.js";
import { adopt, prepare, start, workersModule } from "ext:selvedge/worker.js";

const load = (name) => core.loadExtScript(`ext:deno_web/${name}.js`);
const { URL, URLSearchParams } = load("00_url");
const { URLPattern } = load("01_urlpattern");
const { CustomEvent, ErrorEvent, Event, EventTarget, MessageEvent, PromiseRejectionEvent } = load("02_event");
const { atob, btoa } = load("05_base64");
const streams = load("06_streams");
const { TextDecoder, TextDecoderStream, TextEncoder, TextEncoderStream } = load("08_text_encoding");
const { Blob, File } = load("09_file");
const { MessageChannel, MessagePort, structuredClone } = load("13_message_port");
const { CompressionStream, DecompressionStream } = load("14_compression");

// Reading a Blob is an operation of the engine; see attributed.js.
attributeMethods(Blob.prototype, ["arrayBuffer", "bytes", "text"]);
const blobStream = Blob.prototype.stream;
Blob.prototype.stream = {
  stream() {
    op_expect_async();
    return Reflect.apply(blobStream, this, []);
  },
}.stream;
delete URL.createObjectURL;
delete URL.revokeObjectURL;

class Channel extends MessageChannel {
  constructor() {
    op_expect_messages();
    super();
  }
}
Object.defineProperty(Channel, "name", { value: "MessageChannel" });

class Navigator {
  get userAgent() {
    return "Selvedge";
  }

  get language() {
    return "en";
  }
}

const interfaces = {
  AbortController,
  AbortSignal,
  Blob,
  Cache,
  CacheStorage,
  ByteLengthQueuingStrategy: streams.ByteLengthQueuingStrategy,
  CompressionStream,
  CountQueuingStrategy: streams.CountQueuingStrategy,
  CustomEvent,
  DOMException,
  DecompressionStream,
  ErrorEvent,
  Event,
  EventTarget,
  File,
  FixedLengthStream,
  FormData,
  Headers,
  IdentityTransformStream,
  MessageChannel: Channel,
  MessageEvent,
  MessagePort,
  Navigator,
  Performance,
  PromiseRejectionEvent,
  ReadableByteStreamController: streams.ReadableByteStreamController,
  ReadableStream: streams.ReadableStream,
  ReadableStreamBYOBReader: streams.ReadableStreamBYOBReader,
  ReadableStreamBYOBRequest: streams.ReadableStreamBYOBRequest,
  ReadableStreamDefaultController: streams.ReadableStreamDefaultController,
  ReadableStreamDefaultReader: streams.ReadableStreamDefaultReader,
  Request,
  Response,
  Scheduler,
  TextDecoder,
  TextDecoderStream,
  TextEncoder,
  TextEncoderStream,
  TransformStream: streams.TransformStream,
  TransformStreamDefaultController: streams.TransformStreamDefaultController,
  URL,
  URLPattern,
  URLSearchParams,
  WorkerGlobalScope,
  WritableStream: streams.WritableStream,
  WritableStreamDefaultController: streams.WritableStreamDefaultController,
  WritableStreamDefaultWriter: streams.WritableStreamDefaultWriter,
};

const functions = {
  atob,
  btoa,
  clearInterval,
  clearTimeout,
  fetch,
  reportError,
  setInterval,
  setTimeout,
  structuredClone,
};

function install(global, members, enumerable) {
  for (const [name, value] of Object.entries(members)) {
    Object.defineProperty(global, name, { value, writable: true, enumerable, configurable: true });
  }
}

install(globalThis, interfaces, false);
install(globalThis, functions, true);
install(globalThis, {
  caches,
  console,
  navigator: new Navigator(),
  performance: new Performance(),
  scheduler: new Scheduler(),
  self: globalThis,
}, true);
installCrypto(globalThis);
installDate(globalThis);
installDateTimeFormat(Intl.DateTimeFormat);
installGlobalTarget(globalThis);
rehearse();

// No waiting, and no clock but ours. (SharedArrayBuffer is deleted by Rust: V8 puts it back with the snapshot.)
delete globalThis.Temporal;
for (const name of ["wait", "waitAsync", "notify"]) delete Atomics[name];

// Taken by Rust as soon as the isolate is born, and deleted.
globalThis.__selvedge = {
  adopt,
  bodyData,
  bodyEnd,
  cancel,
  credited,
  drop,
  fetchFailed,
  fetched,
  fire,
  leave,
  prepare,
  purged,
  settleNext,
  settled,
  start,
  startClock,
  unhandled,
  workersModule,
};
