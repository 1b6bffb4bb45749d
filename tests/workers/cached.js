// Answers with what differs in each run, cacheable for a minute.
export default {
  fetch() {
    return new Response(crypto.randomUUID(), { headers: { "cache-control": "public, max-age=60" } });
  },
};
