// The smallest worker: one answer, with a variable of its wrangler.jsonc.
export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    return new Response(`${env.GREETING} from ${pathname} over ${request.cf.httpProtocol}\n`);
  },
};
