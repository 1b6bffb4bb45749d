// Says what it learns about the client and the request.
export default {
  fetch(request, env) {
    return Response.json({
      url: request.url,
      method: request.method,
      cf: request.cf,
      env,
      headers: Object.fromEntries(request.headers),
    });
  },
};
