// Allocates ArrayBuffers without end.
export default {
  fetch() {
    const all = [];
    while (true) all.push(new Uint8Array(1 << 20).fill(1));
  },
};
