// Answers a short text.
export default {
  async fetch(request) {
    return new Response("hello from " + new URL(request.url).pathname + "\n", { headers: { "content-type": "text/plain" } });
  },
};
