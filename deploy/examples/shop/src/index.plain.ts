// The shop of index.ts without npm dependencies, for machines without npm.
import { all, find, price, render, type Env } from "./catalogue";

async function order(request: Request, env: Env): Promise<Response> {
  const order = (await request.json().catch(() => null)) as { id?: string; count?: number } | null;
  const product = order?.id ? find(order.id) : undefined;
  const count = order?.count ?? 1;
  if (!product || !Number.isInteger(count) || count < 1) {
    return Response.json({ error: "an order needs the id of a product and a count" }, { status: 400 });
  }
  const total = price({ ...product, cents: product.cents * count }, env);
  return Response.json({ order: crypto.randomUUID(), product: product.id, count, total }, { status: 201 });
}

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (request.method === "POST" && pathname === "/orders") return order(request, env);
    if (request.method !== "GET") return Response.json({ error: "method not allowed" }, { status: 405, headers: { allow: "GET" } });
    if (pathname === "/") return new Response(render(env), { headers: { "content-type": "text/html; charset=utf-8" } });
    if (pathname === "/products") return Response.json(all(), { headers: { "cache-control": "public, max-age=60" } });
    const product = pathname.startsWith("/products/") ? find(pathname.slice("/products/".length)) : undefined;
    if (!product) return Response.json({ error: "not found" }, { status: 404 });
    return Response.json({ ...product, price: price(product, env) });
  },
};
