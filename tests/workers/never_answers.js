// Waits for something that does not happen.
export default {
  async fetch() {
    await new Promise((resolve) => setTimeout(resolve, 3600e3));
    return new Response("late");
  },
};
