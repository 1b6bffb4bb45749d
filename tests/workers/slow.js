// Takes its time: ?before= ms until its head, ?pieces= pieces of its body with ?every= ms between them, ?after= ms in waitUntil until it fetches ?tell=.
export default {
  async fetch(request, env, ctx) {
    const query = new URL(request.url).searchParams;
    const number = (name) => Number(query.get(name) ?? 0);
    await scheduler.wait(number("before"));
    if (query.has("tell")) ctx.waitUntil(scheduler.wait(number("after")).then(() => fetch(query.get("tell"))));
    let left = number("pieces");
    const body = new ReadableStream({
      async pull(controller) {
        controller.enqueue(new TextEncoder().encode("piece "));
        if (--left > 0) await scheduler.wait(number("every"));
        else controller.close();
      },
    });
    return new Response(body);
  },
};
