// Answers at once, and goes on working: it logs after 50 ms.
export default {
  fetch(request, env, ctx) {
    ctx.waitUntil(scheduler.wait(50).then(() => console.log("waited for")));
    return new Response("answered");
  },
};
