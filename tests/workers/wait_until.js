// Answers at once, with a body that does not end, or never; and tells its route's upstream 50 ms later.
export default {
  async fetch(request, env, ctx) {
    const tell = (path) => fetch(new URL(path, request.url), { method: "POST" });
    ctx.waitUntil(scheduler.wait(50).then(() => tell("/noted")));
    switch (new URL(request.url).pathname) {
      case "/endless":
        return new Response(new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(1024)) }));
      case "/never":
        await tell("/began");
        return new Promise(() => {});
      default:
        return new Response("answered");
    }
  },
};
