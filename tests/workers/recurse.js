// Recurses without end, and again whenever the stack overflows.
function down() {
  try {
    return down() + 1;
  } catch {
    return down();
  }
}
export default {
  fetch() {
    return new Response(String(down()));
  },
};
