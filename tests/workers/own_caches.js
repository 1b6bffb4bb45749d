// Its own caches by path: /put/NAME?body, /match/NAME, /delete/NAME, /fill/NAME (through waitUntil), /endless, /parallel.
const cacheOf = (name) => (name === "default" ? caches.default : caches.open(name));
const key = "https://keys.example/page";

export default {
  async fetch(request, env, ctx) {
    const url = new URL(request.url);
    const [, what, name] = url.pathname.split("/");
    const cache = await cacheOf(decodeURIComponent(name ?? "default"));
    try {
      if (what === "put") {
        const response = new Response(url.search.slice(1), { headers: { "cache-control": "max-age=60", etag: '"1"' } });
        return new Response(String(await cache.put(key, response)));
      }
      if (what === "match") {
        const found = await cache.match(new Request(key, { headers: request.headers }));
        return found ?? new Response("nothing", { status: 404 });
      }
      if (what === "delete") return new Response(String(await cache.delete(key)));
      if (what === "fill") {
        const bytes = new Uint8Array(300_000).fill(120);
        const response = new Response(new Blob([bytes]).stream(), { headers: { "cache-control": "max-age=60" } });
        ctx.waitUntil(cache.put(key, response.clone()));
        return response;
      }
      if (what === "endless") {
        const body = new ReadableStream({ pull(controller) { controller.enqueue(new Uint8Array(65_536)); } });
        await cache.put(key, new Response(body, { headers: { "cache-control": "max-age=60" } }));
        return new Response("kept?");
      }
      if (what === "parallel") {
        const asks = Array.from({ length: 2000 }, () => cache.match(key).then(() => "ok", (error) => error.message));
        return Response.json([...new Set(await Promise.all(asks))].sort());
      }
    } catch (error) {
      return new Response(`${error.name}: ${error.message}`, { status: 599 });
    }
    return new Response("?", { status: 400 });
  },
};
