// Looks for what workers must not reach, and answers with what it found.
export default {
  async fetch() {
    const found = [];
    for (const name of ["Deno", "__bootstrap", "SharedArrayBuffer", "process", "require"]) if (globalThis[name] !== undefined) found.push(name);
    for (const code of ["eval('1')", "Function"]) {
      try {
        code === "Function" ? new Function("return 1")() : (0, eval)("1");
        found.push(code);
      } catch {}
    }
    for (const specifier of ["ext:core/ops", "ext:core/mod.js", "node:fs", "file:///etc/passwd", "https://example.org/x.js"]) {
      try {
        await import(specifier);
        found.push(specifier);
      } catch {}
    }
    return Response.json(found);
  },
};
