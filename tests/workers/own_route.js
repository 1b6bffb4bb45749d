// Fetches its own URL: that reaches the route's upstream, never this worker again.
export default {
  async fetch(request) {
    try {
      const response = await fetch(request.url);
      return new Response("worker saw: " + (await response.text()), { headers: { "cache-status-inside": response.headers.get("cache-status") ?? "" } });
    } catch (error) {
      return new Response(`${error.name}: ${error.message}`, { status: 599 });
    }
  },
};
