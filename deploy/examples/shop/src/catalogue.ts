// What the shop sells, without any framework: used by both entries.
import products from "./products.json";
import page from "./page.html";

export interface Product {
  id: string;
  name: string;
  cents: number;
}

export interface Env {
  CURRENCY: string;
}

export function all(): Product[] {
  return products;
}

export function find(id: string): Product | undefined {
  return products.find((product) => product.id === id);
}

export function price(product: Product, env: Env): string {
  return `${(product.cents / 100).toFixed(2)} ${env.CURRENCY}`;
}

export function render(env: Env): string {
  const items = all().map((product) => `<li><a href="/products/${product.id}">${product.name}</a>, ${price(product, env)}`);
  return page.replace("{{products}}", () => items.join("\n"));
}
