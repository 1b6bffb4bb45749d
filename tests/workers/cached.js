// Answers with a count that shows whether it ran, cacheable for a minute.
let runs = 0;
export default {
  fetch() {
    return new Response(`run ${++runs}`, { headers: { "cache-control": "public, max-age=60" } });
  },
};
