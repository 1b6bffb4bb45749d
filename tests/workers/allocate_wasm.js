// Grows wasm memory without end.
export default {
  fetch() {
    const all = [];
    while (true) {
      const memory = new WebAssembly.Memory({ initial: 16, maximum: 1024 });
      memory.grow(512);
      new Uint8Array(memory.buffer).fill(1);
      all.push(memory);
    }
  },
};
