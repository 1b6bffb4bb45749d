// Allocates objects without end.
export default {
  fetch() {
    const all = [];
    while (true) all.push({ n: all.length, text: "x".repeat(100) + all.length });
  },
};
