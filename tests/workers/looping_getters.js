// Throws an object whose getters never return: formatting it must not hang anybody.
const loop = () => {
  while (true) {}
};
export default {
  fetch() {
    Error.prepareStackTrace = loop;
    throw Object.defineProperties(new Error("x"), {
      message: { get: loop },
      stack: { get: loop },
      cause: { get: loop },
      name: { get: loop },
    });
  },
};
