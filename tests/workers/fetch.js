// Fetches ?url= and answers with what came back; an error becomes its text.
export default {
  async fetch(request) {
    const url = new URL(request.url).searchParams.get("url");
    try {
      const response = await fetch(url, { redirect: new URL(request.url).searchParams.get("redirect") ?? "follow" });
      return new Response(response.body, { status: response.status, headers: { "x-fetched": response.url } });
    } catch (error) {
      return new Response(`${error.name}: ${error.message}`, { status: 599 });
    }
  },
};
