// The worker itself: its `env`, its handler, `ctx`, the module `cloudflare:workers`, and the start of an invocation.

import { Body } from "ext:selvedge/body.js";
import { op_pass_through } from "ext:core/ops";
import { Invocation, currentInvocation } from "ext:selvedge/invocation.js";
import { cache } from "ext:selvedge/purge.js";
import { incomingRequest } from "ext:selvedge/request.js";
import { isResponse } from "ext:selvedge/response.js";

// How Rust says what follows a head.
const WHOLE = 1;
const STREAM = 2;

const env = Object.create(null);
let run = null;

function deepFreeze(value) {
  if (typeof value === "object" && value !== null) {
    for (const key of Object.keys(value)) deepFreeze(value[key]);
    Object.freeze(value);
  }
  return value;
}

const PROPS = Object.freeze({});

class ExecutionContext {
  #invocation;

  constructor(invocation) {
    this.#invocation = invocation;
  }

  get props() {
    return PROPS;
  }

  waitUntil(promise) {
    this.#invocation.waitUntil(promise);
  }

  get cache() {
    return cache;
  }

  passThroughOnException() {
    op_pass_through(this.#invocation.stream);
  }
}

export class WorkerEntrypoint {
  constructor(ctx, environment) {
    this.ctx = ctx;
    this.env = environment;
  }
}

// Called by Rust before the version's modules run. `vars` is JSON: {name: value}.
export function prepare(vars) {
  for (const [name, value] of Object.entries(JSON.parse(vars))) env[name] = deepFreeze(value);
  Object.freeze(env);
}

// Called by Rust for the exports of `cloudflare:workers`.
export function workersModule() {
  return {
    cache,
    env,
    WorkerEntrypoint,
    waitUntil(promise) {
      const invocation = currentInvocation();
      if (invocation === undefined) throw new Error("waitUntil() needs a request to belong to.");
      invocation.waitUntil(promise);
    },
  };
}

// Called by Rust with the default export. What is wrong with it, or undefined.
export function adopt(worker) {
  if (typeof worker === "function") {
    if (typeof worker.prototype?.fetch !== "function") return "its default export is a class without a fetch() method";
    run = (request, context) => new worker(context, env).fetch(request);
    return undefined;
  }
  if (typeof worker !== "object" || worker === null) return "its entry module has no default export";
  if (typeof worker.fetch !== "function") return "its default export has no fetch() handler";
  run = (request, context) => worker.fetch(request, env, context);
  return undefined;
}

// Called by Rust for each invocation.
export function start(stream, method, url, kind, given) {
  const invocation = new Invocation(stream);
  let body = null;
  if (kind === WHOLE) body = new Body(given);
  else if (kind === STREAM) body = new Body(invocation.incoming(0, given));
  try {
    const answer = run(incomingRequest(invocation, method, url, body), new ExecutionContext(invocation));
    if (isResponse(answer)) invocation.respond(answer);
    else respondLater(invocation, answer);
  } catch (exception) {
    invocation.fail(exception);
  }
}

// `await` needs nothing that a worker can change.
async function respondLater(invocation, answer) {
  try {
    invocation.respond(await answer);
  } catch (exception) {
    invocation.fail(exception);
  }
}
