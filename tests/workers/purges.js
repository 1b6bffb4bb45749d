// Cached in front, with a new body at each run: tags by ?tag=, in its own cache at /own/..., from its upstream at /behind/.... A POST purges what its body says.
export default {
  async fetch(request, env, ctx) {
    const url = new URL(request.url);
    if (request.method === "POST") {
      const answer = ctx.cache.purge(await request.json());
      return Response.json(await answer.catch((error) => `${error.name}: ${error.message}`));
    }
    const headers = { "cache-tag": url.searchParams.get("tag") ?? "none", "cache-control": "max-age=60" };
    const fresh = () => new Response(crypto.randomUUID(), { headers });
    if (url.pathname.startsWith("/own/")) {
      const found = await caches.default.match(request);
      if (found !== undefined) return new Response(found.body, { headers: { "cache-control": "no-store" } });
      const made = fresh();
      await caches.default.put(request, made.clone());
      return new Response(made.body, { headers: { "cache-control": "no-store" } });
    }
    if (url.pathname.startsWith("/behind/")) {
      const found = await fetch(request);
      return new Response(found.body, { headers: { "cache-control": "no-store" } });
    }
    return fresh();
  },
};
