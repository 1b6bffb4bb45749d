//! Bodies in both directions: whole, streamed, with back-pressure, as forms.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use selvedge_runtime::Outcome;
use selvedge_runtime::protocol::{BodyKind, CHUNK_BYTES_MAX, INITIAL_CREDIT, ToEdge, ToRunner};

use crate::rig::Rig;

crate::tests![
    json_makes_a_round_trip,
    request_body_streams_in_with_credit_for_what_was_consumed,
    response_stream_waits_for_credit,
    large_bytes_and_strings_are_written_in_pieces,
    an_unread_request_body_is_piped_to_the_response,
    bytes_beyond_the_credit_are_refused,
    body_cut_short_rejects_its_reader,
    a_stream_that_fails_ends_as_a_failure,
    a_client_that_leaves_cancels_the_stream,
    a_body_is_used_once_and_cloned_before,
    multipart_is_written_and_parsed,
    urlencoded_form_is_parsed,
    malformed_forms_are_type_errors,
    forms_cost_no_more_than_their_bytes,
    fixed_length_stream_gives_its_length,
    transform_streams_compress_and_decode,
    byob_readers_read_request_bodies,
    views_with_offsets_are_written_as_they_are,
];

fn post(rig: &mut Rig, stream: u32, headers: &[(&str, &str)], body: BodyKind) {
    rig.start(stream, Method::POST, "https://example.org/", headers, body);
}

fn data(rig: &mut Rig, stream: u32, part: u32, bytes: impl Into<Bytes>) {
    rig.deliver(ToRunner::BodyData { stream, part, bytes: bytes.into() });
}

fn end(rig: &mut Rig, stream: u32, part: u32, error: Option<&str>) {
    rig.deliver(ToRunner::BodyEnd { stream, part, error: error.map(str::to_owned) });
}

fn json_makes_a_round_trip() {
    let mut rig =
        Rig::worker("export default { async fetch(request) { const { n } = await request.json(); return Response.json({ n: n + 1 }); } }");
    post(&mut rig, 1, &[("content-type", "application/json")], BodyKind::Whole(r#"{"n":41,"ü":"ö"}"#.into()));
    rig.finish(1);
    assert_eq!(rig.body(1), r#"{"n":42}"#);
    assert_eq!(rig.response(1).0.headers["content-type"], "application/json");
}

fn request_body_streams_in_with_credit_for_what_was_consumed() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            let total = 0;
            for await (const chunk of request.body) total += chunk.byteLength;
            return new Response(String(total));
         } }",
    );
    post(&mut rig, 1, &[], BodyKind::Stream(None));
    let mut credit = i64::from(INITIAL_CREDIT);
    for _ in 0..20 {
        let chunk = 40_000;
        rig.until(|rig| {
            let given: i64 =
                rig.said().iter().map(|message| if let ToEdge::Credit { bytes, .. } = message { i64::from(*bytes) } else { 0 }).sum();
            credit + given >= chunk
        });
        credit -= chunk;
        data(&mut rig, 1, 0, vec![7; chunk as usize]);
    }
    end(&mut rig, 1, 0, None);
    rig.finish(1);
    assert_eq!(rig.body(1), "800000");
}

fn response_stream_waits_for_credit() {
    let mut rig = Rig::worker(
        "let pulled = 0;
         export default { fetch(request) {
            return new Response(new ReadableStream({
                pull(controller) {
                    if (pulled === 10) controller.close();
                    else { pulled++; controller.enqueue(new Uint8Array(32 * 1024).fill(97)); }
                },
            }), { headers: { 'x-pulled': String(pulled) } });
         } }",
    );
    rig.get(1, "https://example.org/");
    let written = |rig: &Rig| rig.data(1, 0).len();
    rig.until(|rig| written(rig) == INITIAL_CREDIT as usize);
    for _ in 0..5 {
        rig.until(|_| true);
    }
    assert_eq!(written(&rig), INITIAL_CREDIT as usize);
    assert_eq!(rig.outcome(1), None);
    rig.deliver(ToRunner::Credit { stream: 1, part: 0, bytes: 1000 });
    rig.until(|rig| written(rig) == INITIAL_CREDIT as usize + 1000);
    rig.deliver(ToRunner::Credit { stream: 1, part: 0, bytes: 1 << 20 });
    rig.finish(1);
    assert_eq!(written(&rig), 10 * 32 * 1024);
    assert!(rig.ended(1, 0));
    assert!(rig.said().iter().all(|message| !matches!(message, ToEdge::BodyData { bytes, .. } if bytes.len() > CHUNK_BYTES_MAX)));
}

fn large_bytes_and_strings_are_written_in_pieces() {
    let mut rig = Rig::worker(
        "export default { fetch(request) {
            return new Response(request.url.endsWith('s') ? 'ä'.repeat(50_000) : new Uint8Array(100_000));
         } }",
    );
    for (stream, url) in [(1, "https://example.org/s"), (2, "https://example.org/b")] {
        rig.get(stream, url);
        assert_eq!(rig.response(stream).1, BodyKind::Stream(Some(100_000)));
        rig.until(|rig| rig.data(stream, 0).len() == INITIAL_CREDIT as usize);
        rig.deliver(ToRunner::Credit { stream, part: 0, bytes: 50_000 });
        assert_eq!(rig.finish(stream), Outcome::Ok);
        assert_eq!(rig.data(stream, 0).len(), 100_000);
    }
}

fn an_unread_request_body_is_piped_to_the_response() {
    let mut rig = Rig::worker("export default { fetch(request) { return new Response(request.body, request); } }");
    post(&mut rig, 1, &[("x-a", "b")], BodyKind::Stream(Some(10)));
    data(&mut rig, 1, 0, "hello");
    rig.until(|rig| rig.data(1, 0) == b"hello");
    data(&mut rig, 1, 0, "world");
    end(&mut rig, 1, 0, None);
    rig.finish(1);
    assert_eq!(rig.body(1), "helloworld");
    assert_eq!(rig.response(1).0.headers["x-a"], "b");
}

fn bytes_beyond_the_credit_are_refused() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) { await scheduler.wait(5); return new Response((await request.bytes()).length); } }",
    );
    post(&mut rig, 1, &[], BodyKind::Stream(None));
    data(&mut rig, 1, 0, vec![1; INITIAL_CREDIT as usize]);
    data(&mut rig, 1, 0, vec![1; 1]);
    end(&mut rig, 1, 0, None);
    rig.finish(1);
    assert_eq!(rig.body(1), INITIAL_CREDIT.to_string());
}

fn body_cut_short_rejects_its_reader() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            try { await request.text(); } catch (error) { return new Response(`${error.name}: ${error.message}`); }
         } }",
    );
    post(&mut rig, 1, &[], BodyKind::Stream(None));
    data(&mut rig, 1, 0, "abc");
    end(&mut rig, 1, 0, Some("client went away"));
    rig.finish(1);
    assert_eq!(rig.body(1), "TypeError: the body was cut short: client went away");
}

fn a_stream_that_fails_ends_as_a_failure() {
    let mut rig = Rig::worker(
        "export default { fetch() {
            return new Response(new ReadableStream({
                start(controller) { controller.enqueue(new TextEncoder().encode('begun')); },
                pull() { throw new Error('half way'); },
            }));
         } }",
    );
    rig.get(1, "https://example.org/");
    assert_eq!(rig.finish(1), Outcome::Exception);
    let (outcome, message) = rig.failure(1).expect("a failure");
    assert_eq!(outcome, Outcome::Exception);
    assert!(message.starts_with("Error: half way\n    at "), "{message}");
    assert!(!rig.ended(1, 0));
}

fn a_client_that_leaves_cancels_the_stream() {
    let mut rig = Rig::worker(
        "export default { fetch(request, env, ctx) {
            const stream = new ReadableStream({
                pull(controller) { controller.enqueue(new Uint8Array(1000)); },
                cancel() { console.log('cancelled'); },
            });
            return new Response(stream);
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.until(|rig| rig.data(1, 0).len() == INITIAL_CREDIT as usize);
    rig.deliver(ToRunner::Cancel { stream: 1, outcome: Outcome::Canceled });
    assert_eq!(rig.finish(1), Outcome::Canceled);
    rig.until(|rig| rig.log().iter().any(|(_, _, line)| line == "cancelled"));
}

fn a_body_is_used_once_and_cloned_before() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            const copy = request.clone();
            const first = await request.text();
            let again = '';
            try { await request.text(); } catch (error) { again = error.name; }
            const second = await copy.text();
            const response = new Response('abc');
            const other = response.clone();
            const texts = [await response.text(), await other.text(), response.bodyUsed];
            return Response.json([first, again, second, request.bodyUsed, texts]);
         } }",
    );
    post(&mut rig, 1, &[], BodyKind::Stream(None));
    data(&mut rig, 1, 0, "ab");
    data(&mut rig, 1, 0, "cd");
    end(&mut rig, 1, 0, None);
    rig.finish(1);
    assert_eq!(rig.body(1), r#"["abcd","TypeError","abcd",true,["abc","abc",true]]"#);
    post(&mut rig, 2, &[], BodyKind::Whole("efgh".into()));
    rig.finish(2);
    assert_eq!(rig.body(2), r#"["efgh","TypeError","efgh",true,["abc","abc",true]]"#);
}

fn multipart_is_written_and_parsed() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            const form = new FormData();
            form.append('a \"b\"', 'line\\nbreak');
            form.append('file', new File([new Uint8Array([13, 10, 45, 45, 0, 255])], 'x.bin', { type: 'application/x' }));
            form.append('blob', new Blob(['text']));
            const response = new Response(form);
            const type = response.headers.get('content-type');
            const parsed = await response.formData();
            const file = parsed.get('file');
            return Response.json([type.startsWith('multipart/form-data; boundary='), [...parsed.keys()], parsed.get('a \"b\"'),
                                  file.name, file.type, [...await file.bytes()], parsed.get('blob').name, await parsed.get('blob').text()]);
         } }",
    );
    assert_eq!(
        rig.text("https://example.org/"),
        r#"[true,["a \"b\"","file","blob"],"line\r\nbreak","x.bin","application/x",[13,10,45,45,0,255],"blob","text"]"#
    );
}

fn urlencoded_form_is_parsed() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            const form = await request.formData();
            return Response.json([form.getAll('a'), form.get('b'), form.has('c'), await new Response(new URLSearchParams(form)).text()]);
         } }",
    );
    post(
        &mut rig,
        1,
        &[("content-type", "application/x-www-form-urlencoded; charset=UTF-8")],
        BodyKind::Whole("a=1&a=%202&b=%C3%A4+x".into()),
    );
    rig.finish(1);
    assert_eq!(rig.body(1), r#"[["1"," 2"],"ä x",false,"a=1&a=+2&b=%C3%A4+x"]"#);
}

fn malformed_forms_are_type_errors() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            try { await request.formData(); return new Response('parsed'); } catch (error) { return new Response(error.name); }
         } }",
    );
    let cases = [
        ("text/plain", "a=b"),
        ("multipart/form-data", "--x\r\n\r\n--x--"),
        ("multipart/form-data; boundary=x", ""),
        ("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nunterminated"),
        ("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\nv\r\n--x--"),
        ("multipart/form-data; boundary=x", "--x\r\nno blank line\r\n--x--"),
        ("multipart/form-data; boundary=\"\"", "--\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nv\r\n----"),
    ];
    for (stream, (kind, body)) in (1..).zip(cases) {
        post(&mut rig, stream, &[("content-type", kind)], BodyKind::Whole(body.into()));
        rig.finish(stream);
        assert_eq!(rig.body(stream), "TypeError", "{kind} {body}");
    }
}

/// A client chooses the boundary and the bytes: what it can make a worker compute counts as the worker's.
fn forms_cost_no_more_than_their_bytes() {
    let mut rig = Rig::worker(
        "const error = async (body, type) => {
            try { return [...(await new Response(body, { headers: { 'content-type': type } }).formData())].length; } catch (error) { return error.message; }
         };
         const part = (boundary) => `--${boundary}\\r\\nContent-Disposition: form-data; name=\"a\"\\r\\n\\r\\nv\\r\\n`;
         const whole = (boundary) => `${part(boundary)}--${boundary}--`;
         export default { async fetch() {
            const typed = (boundary) => `multipart/form-data; boundary=${boundary}`;
            const [longest, long, endless] = [69, 70, 30_000].map((length) => '-'.repeat(length) + 'x');
            const dashes = new Uint8Array(8 << 20).fill(45);
            const pairs = 'application/x-www-form-urlencoded';
            return Response.json([
                await error(whole(longest), typed(longest)),
                await error(`preamble\\r\\n${whole(longest)}`, typed(longest)),
                await error(dashes, typed(longest)),
                await error(new Blob([part(longest), dashes]), typed(longest)),
                await error(new Uint8Array(1 << 20).fill(13), typed(longest)),
                await error(whole(long), typed(long)),
                await error(dashes.subarray(0, 64 << 10), typed(endless)),
                await error('a&'.repeat(9_999) + 'a', pairs),
                await error('a&'.repeat(10_000), pairs),
            ]);
         } }",
    );
    // Of this thread, on which the isolate runs: what else the machine does is not counted.
    let cpu = || Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).expect("a time");
    let begun = cpu();
    let malformed = "The multipart form is malformed.";
    let boundary = "The form's Content-Type has no boundary of 1 to 70 printable characters.";
    let wanted =
        serde_json::json!([1, 1, malformed, malformed, malformed, boundary, boundary, 10_000, "The form has more than 10000 pairs."]);
    assert_eq!(rig.text("https://example.org/"), wanted.to_string());
    let took = cpu() - begun;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

fn fixed_length_stream_gives_its_length() {
    let mut rig = Rig::worker(
        "export default { fetch(request, env, ctx) {
            const { readable, writable } = new FixedLengthStream(5);
            const writer = writable.getWriter();
            ctx.waitUntil(writer.write(new TextEncoder().encode('hello')).then(() => writer.close()));
            return new Response(readable);
         } }",
    );
    rig.get(1, "https://example.org/");
    assert_eq!(rig.response(1).1, BodyKind::Stream(Some(5)));
    assert_eq!(rig.finish(1), Outcome::Ok);
    assert_eq!(rig.body(1), "hello");
}

fn transform_streams_compress_and_decode() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const text = 'abc'.repeat(1000);
            const zipped = await new Response(new Blob([text]).stream().pipeThrough(new CompressionStream('gzip'))).bytes();
            const back = new Blob([zipped]).stream().pipeThrough(new DecompressionStream('gzip')).pipeThrough(new TextDecoderStream());
            let out = '';
            for await (const chunk of back) out += chunk;
            const passed = new Response('xyz').body.pipeThrough(new IdentityTransformStream());
            return Response.json([zipped.length < 200, out === text, await new Response(passed).text()]);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), r#"[true,true,"xyz"]"#);
}

fn byob_readers_read_request_bodies() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            const reader = request.body.getReader({ mode: 'byob' });
            let all = [];
            for (;;) {
                const { done, value } = await reader.read(new Uint8Array(3));
                if (done) break;
                all.push(String.fromCharCode(...value));
            }
            return Response.json(all);
         } }",
    );
    post(&mut rig, 1, &[], BodyKind::Stream(None));
    data(&mut rig, 1, 0, "abcde");
    end(&mut rig, 1, 0, None);
    rig.finish(1);
    assert_eq!(rig.body(1), r#"["abc","de"]"#);
}

fn views_with_offsets_are_written_as_they_are() {
    let mut rig = Rig::worker(
        "export default { fetch(request) {
            const bytes = new TextEncoder().encode('0123456789');
            if (request.url.endsWith('whole')) return new Response(bytes.subarray(3, 6));
            return new Response(new ReadableStream({ start(controller) {
                controller.enqueue(bytes.subarray(2, 4));
                controller.enqueue(new Uint8Array(0));
                controller.enqueue(new DataView(bytes.buffer, 5, 1));
                controller.enqueue(new Uint16Array(bytes.buffer, 6, 2));
                controller.enqueue(bytes.slice(0, 1).buffer);
                controller.close();
            } }));
         } }",
    );
    assert_eq!(rig.text("https://example.org/whole"), "345");
    rig.get(2, "https://example.org/stream");
    rig.finish(2);
    assert_eq!(rig.body(2), "23567890");
}
