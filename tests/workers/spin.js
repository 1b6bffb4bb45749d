// Loops for ever.
export default {
  fetch() {
    while (true) {}
  },
};
