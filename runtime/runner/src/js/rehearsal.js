// Uses once, while the snapshot is made, what nearly every request uses: V8 compiles a function when it is first called, and what it has
// compiled stays in the snapshot. Otherwise the first request of every isolate would wait for that.

import { core } from "ext:core/mod.js";
import { Headers } from "ext:selvedge/headers.js";
import { Request, incomingRequest } from "ext:selvedge/request.js";
import { Response, isResponse, responseBody, responseHeaderList, responseStatus } from "ext:selvedge/response.js";
import { adopt } from "ext:selvedge/worker.js";

const { URL } = core.loadExtScript("ext:deno_web/00_url.js");

export function rehearse() {
  const incoming = incomingRequest({ stream: 0 }, "GET", "https://rehearsal.invalid/a?b=c", null);
  const url = new URL(incoming.url);
  const headers = new Headers({ "content-type": "text/plain", "x-a": url.pathname });
  headers.append("x-a", incoming.method);
  headers.set("x-b", url.searchParams.get("b") ?? "");
  for (const [name] of headers) headers.has(name);
  const answers = [new Response("text", { status: 200, headers }), new Response("text"), Response.json(["a"]), new Response(null, { status: 204 })];
  for (const answer of answers.filter(isResponse)) {
    responseStatus(answer);
    responseBody(answer)?.describe();
    responseHeaderList(answer);
  }
  const request = new Request(url, { method: "POST", body: "text", headers });
  request.headers.get("x-a");
  // The worker's own takes its place.
  adopt({ fetch: () => answers[0] });
}
