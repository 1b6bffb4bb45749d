// Computes ?rounds= rounds of arithmetic and answers.
export default {
  fetch(request) {
    const rounds = Number(new URL(request.url).searchParams.get("rounds") ?? 1e6);
    let x = 1;
    for (let i = 0; i < rounds; i++) x = (x * 1103515245 + 12345) & 0x7fffffff;
    return new Response(String(x));
  },
};
