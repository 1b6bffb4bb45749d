// Makes ?n= subrequests to ?url=, one after the other, and says how many succeeded.
export default {
  async fetch(request) {
    const params = new URL(request.url).searchParams;
    let done = 0;
    try {
      for (; done < Number(params.get("n")); done++) await (await fetch(params.get("url"))).text();
    } catch (error) {
      return new Response(`${done} then ${error.message}`, { status: 599 });
    }
    return new Response(String(done));
  },
};
