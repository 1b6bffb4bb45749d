// Streams the request's body back as it arrives.
export default {
  fetch(request) {
    return new Response(request.body, { headers: { "x-method": request.method, "x-url": request.url } });
  },
};
