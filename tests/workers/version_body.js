// Answers 1 MiB made of its version's id, and names the id in a field.
export default {
  fetch(request, env) {
    return new Response(env.ID.repeat(Math.ceil((1 << 20) / env.ID.length)), { headers: { "x-id": env.ID } });
  },
};
