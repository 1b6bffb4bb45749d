// Streams ?chunks= chunks of 64 KiB.
export default {
  fetch(request) {
    let left = Number(new URL(request.url).searchParams.get("chunks") ?? 16);
    const chunk = new Uint8Array(65536).fill(120);
    return new Response(
      new ReadableStream({
        pull(controller) {
          if (left-- > 0) controller.enqueue(chunk);
          else controller.close();
        },
      }),
    );
  },
};
