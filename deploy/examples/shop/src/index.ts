// A small shop: a Hono application in TypeScript. index.plain.ts is the same without npm dependencies.
import { Hono } from "hono";
import { all, find, price, render, type Env } from "./catalogue";

const app = new Hono<{ Bindings: Env }>();

app.get("/", (c) => c.html(render(c.env)));

// A node keeps the list for a minute: the first request of a minute runs the worker, the others do not.
app.get("/products", (c) => {
  c.header("cache-control", "public, max-age=60");
  return c.json(all());
});

app.get("/products/:id", (c) => {
  const product = find(c.req.param("id"));
  if (!product) return c.json({ error: "no such product" }, 404);
  return c.json({ ...product, price: price(product, c.env) });
});

app.post("/orders", async (c) => {
  const order = await c.req.json<{ id?: string; count?: number }>().catch(() => null);
  const product = order?.id ? find(order.id) : undefined;
  const count = order?.count ?? 1;
  if (!product || !Number.isInteger(count) || count < 1) return c.json({ error: "an order needs the id of a product and a count" }, 400);
  return c.json({ order: crypto.randomUUID(), product: product.id, count, total: price({ ...product, cents: product.cents * count }, c.env) }, 201);
});

export default app;
