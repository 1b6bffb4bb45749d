// Makes one huge array, which aborts a V8 process whatever the heap limit says.
export default {
  fetch() {
    return new Response(String(new Array(2 ** 27).fill({}).length));
  },
};
