// Asks to be stood in for, then fails as its path says.
export default {
  async fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname !== "/strict") ctx.passThroughOnException();
    if (pathname === "/spin") for (;;);
    if (pathname === "/read") await request.text();
    throw new Error("on purpose");
  },
};
