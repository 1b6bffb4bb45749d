// Writes to the log.
export default {
  fetch() {
    console.log("plain", { nested: [1, 2] });
    console.error("loud");
    return new Response("logged");
  },
};
