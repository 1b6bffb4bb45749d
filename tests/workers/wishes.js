// fetch(url, { cf }) with the options of the query's `cf`, as JSON.
export default {
  async fetch(request) {
    const query = new URL(request.url).searchParams;
    const response = await fetch(query.get("url"), { cf: JSON.parse(query.get("cf") ?? "{}") });
    return new Response(await response.text(), { status: response.status });
  },
};
