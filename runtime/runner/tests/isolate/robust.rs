//! What a worker does to itself, on purpose or by what it includes: its invocations end all the same, and are answered rightly.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use selvedge_runtime::Outcome;
use selvedge_runtime::protocol::{BodyKind, ToEdge, ToRunner};

use crate::rig::Rig;

crate::tests![
    a_response_that_is_refused_fails_its_invocation,
    values_that_rust_would_refuse_are_refused_at_once,
    runs_of_spaces_inside_a_value_cost_nothing,
    a_writer_without_credit_goes_with_its_invocation,
    aborted_fetches_make_room_for_others,
    an_invocation_whose_fetch_was_aborted_can_hang,
    a_handler_can_hang_after_the_engines_own_operations,
    an_aborted_fetch_cancels_what_it_was_still_sending,
    nobody_guesses_the_boundary_of_a_form,
    a_body_that_head_has_no_use_for_is_cancelled_and_the_invocation_goes_on,
    patched_globals_and_prototypes_change_no_answer,
    what_is_told_to_wait_for_cannot_keep_an_invocation,
    an_isolate_has_few_slow_operations_under_way,
];

fn a_response_that_is_refused_fails_its_invocation() {
    let mut rig = Rig::worker(
        "export default { fetch() {
            return new Response('x', { headers: Array.from({ length: 513 }, (_, n) => [`x-${n}`, 'v']) });
         } }",
    );
    rig.get(1, "https://example.org/");
    assert_eq!(rig.finish(1), Outcome::Exception);
    let (_, message) = rig.failure(1).expect("a failure");
    assert!(message.contains("more than 512 header fields"), "{message}");
    assert!(rig.isolate.live_streams().is_empty());
}

fn values_that_rust_would_refuse_are_refused_at_once() {
    let mut rig = Rig::worker(
        "export default { fetch() {
            const refused = [];
            for (let unit = 0; unit <= 256; unit++) {
                try { new Headers({ a: `x${String.fromCharCode(unit)}x` }); } catch { refused.push(unit); }
            }
            const trimmed = new Headers({ a: ' \\t\\r\\n x \\t y\\n ', b: ' \\n ' });
            return Response.json([refused, trimmed.get('a'), trimmed.get('b')]);
         } }",
    );
    let refused: Vec<u32> = (0..=256).filter(|unit| (*unit < 32 && *unit != 9) || *unit == 127 || *unit == 256).collect();
    let wanted = serde_json::json!([refused, "x \t y", ""]);
    assert_eq!(rig.text("https://example.org/"), wanted.to_string());
}

fn runs_of_spaces_inside_a_value_cost_nothing() {
    let mut rig =
        Rig::worker("export default { fetch() { return new Response(new Headers({ a: `x${' '.repeat(100_000)}x` }).get('a').length); } }");
    let begun = Instant::now();
    assert_eq!(rig.text("https://example.org/"), "100002");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

fn a_writer_without_credit_goes_with_its_invocation() {
    let mut rig = Rig::worker(
        "export default { fetch() {
            fetch('https://other.example/', { method: 'POST', body: new Uint8Array(4 << 20) });
            return new Response('x');
         } }",
    );
    rig.get(1, "https://example.org/");
    assert_eq!(rig.finish(1), Outcome::Ok);
    rig.isolate.collect_garbage();
    let before = rig.isolate.heap().external;
    for stream in 2..12 {
        rig.get(stream, "https://example.org/");
        assert_eq!(rig.finish(stream), Outcome::Ok);
    }
    rig.isolate.collect_garbage();
    let grown = rig.isolate.heap().external.saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes are kept");
}

fn aborted_fetches_make_room_for_others() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            for (let n = 0; n < 100; n++) {
                const controller = new AbortController();
                const pending = fetch('https://other.example/', { signal: controller.signal });
                controller.abort();
                await pending.catch(() => {});
            }
            return fetch('https://other.example/');
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.until(|rig| rig.said().iter().any(|message| matches!(message, ToEdge::Fetch { part: 101, .. })));
    let late = ToRunner::Fetched { stream: 1, part: 7, result: Err("late".into()), url: String::new(), redirects: 0 };
    rig.deliver(late);
    assert!(!rig.isolate.live_streams()[0].answered);
}

fn an_invocation_whose_fetch_was_aborted_can_hang() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const controller = new AbortController();
            fetch('https://other.example/', { signal: controller.signal }).catch(() => {});
            controller.abort();
            await new Promise(() => {});
         } }",
    );
    rig.get(1, "https://example.org/");
    assert_eq!(rig.finish(1), Outcome::Exception);
}

fn a_handler_can_hang_after_the_engines_own_operations() {
    let uses = [
        "await crypto.subtle.digest('SHA-256', new Uint8Array(1))",
        "await crypto.subtle.generateKey({ name: 'RSA-PSS', modulusLength: 1024, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' }, false, ['sign'])",
        "await new Response(new Blob(['x', new Blob(['y'])]).stream()).text()",
        "await new Blob(['x']).text()",
    ];
    for used in uses {
        let mut rig = Rig::worker(&format!("export default {{ async fetch() {{ console.log({used}); await new Promise(() => {{}}); }} }}"));
        rig.get(1, "https://example.org/");
        assert_eq!(rig.finish(1), Outcome::Exception, "{used}");
        let (_, message) = rig.failure(1).expect("a failure");
        assert!(message.contains("can never resolve"), "{used}: {message}");
        assert_eq!(rig.log().len(), 2, "{used} did not end: {:?}", rig.log());
    }
}

fn an_aborted_fetch_cancels_what_it_was_still_sending() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const controller = new AbortController();
            const cancelled = new Promise((resolve) => {
                const body = new ReadableStream({ pull(controller) { controller.enqueue(new Uint8Array(65536)); }, cancel: resolve });
                fetch('https://other.example/', { method: 'POST', body, signal: controller.signal }).catch(() => {});
            });
            await scheduler.wait(5);
            controller.abort();
            await cancelled;
            return new Response('cancelled');
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), "cancelled");
}

fn nobody_guesses_the_boundary_of_a_form() {
    let mut rig = Rig::worker(
        "Math.random = () => 0.5;
         export default { async fetch() {
            const type = () => new Response(new FormData()).headers.get('content-type');
            const types = [type(), type()];
            crypto.randomUUID = Crypto.prototype.randomUUID = () => 'guessed';
            types.push(type());
            return Response.json([new Set(types).size, types.some((type) => type.includes('guessed')), types.every((type) => type.length < 100)]);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), "[3,false,true]");
}

fn a_body_that_head_has_no_use_for_is_cancelled_and_the_invocation_goes_on() {
    let mut rig = Rig::worker(
        "export default { fetch(request, env, ctx) {
            ctx.waitUntil(scheduler.wait(5).then(() => console.log('later')));
            if (request.url.endsWith('/long')) return new Response('x'.repeat(100_000));
            return new Response(new ReadableStream({ pull() { return new Promise(() => {}); }, cancel() { console.log('cancelled'); } }));
         } }",
    );
    let lines = |rig: &Rig| rig.log().into_iter().map(|(_, _, line)| line).collect::<Vec<_>>();
    rig.start(1, Method::HEAD, "https://example.org/endless", &[], BodyKind::Empty);
    assert_eq!(rig.finish(1), Outcome::Ok);
    assert_eq!((lines(&rig), rig.response(1).1), (vec!["cancelled".to_owned(), "later".to_owned()], BodyKind::Empty));
    rig.start(2, Method::HEAD, "https://example.org/long", &[], BodyKind::Empty);
    assert_eq!(rig.finish(2), Outcome::Ok);
    let (head, body) = rig.response(2);
    assert_eq!((&head.headers["content-length"], body), (&"100000".parse().expect("a value"), BodyKind::Empty));
    assert!(rig.data(2, 0).is_empty());
}

/// What a polyfill might do badly, and nothing of ours may notice.
const PATCHES: &str = "
    const fails = (name) => function () { throw new Error(`${name} is patched`); };
    const kept = ['constructor', 'toString', 'valueOf'];
    const patched = [Array, Map, Set, WeakSet, Promise, RegExp, String].flatMap(({ name, prototype }) =>
        Reflect.ownKeys(prototype)
            .filter((key) => !kept.includes(key) && typeof Object.getOwnPropertyDescriptor(prototype, key).value === 'function')
            .map((key) => ({ prototype, key, failing: fails(`${name}.prototype.${String(key)}`) })));
    for (let i = 0; i < patched.length; i++) patched[i].prototype[patched[i].key] = patched[i].failing;
    Promise.resolve = Promise.reject = fails('Promise.resolve');
    globalThis.Promise = class { constructor() { throw new Error('Promise is patched'); } };
    globalThis.Map = globalThis.Set = globalThis.String = globalThis.Number = globalThis.Uint8Array = fails('a constructor');
";

fn patched_globals_and_prototypes_change_no_answer() {
    let source = "export default { async fetch(request, env, ctx) {
            ctx.waitUntil(null);
            await scheduler.wait(1);
            const text = await request.text();
            const asked = new Request('https://other.example/a#b', { method: 'POST', body: text, headers: { 'X-A': request.headers.get('x-a') } });
            const answer = await fetch(asked);
            const headers = new Headers(answer.headers);
            headers.append('X-B', ' 2 ');
            headers.set('x-c', '3');
            headers.delete('x-d');
            return new Response(answer.body, { status: 201, headers });
         } }";
    let mut rig = Rig::worker(&format!("{PATCHES} {source}"));
    rig.start(1, Method::POST, "https://example.org/", &[("x-a", "1")], BodyKind::Stream(None));
    rig.deliver(ToRunner::BodyData { stream: 1, part: 0, bytes: Bytes::from_static(b"ask") });
    rig.deliver(ToRunner::BodyData { stream: 1, part: 0, bytes: Bytes::from_static(b"ed") });
    rig.deliver(ToRunner::BodyEnd { stream: 1, part: 0, error: None });
    rig.until(|rig| rig.said().iter().any(|message| matches!(message, ToEdge::Fetch { .. } | ToEdge::Failed { .. })));
    let asked = rig.said().into_iter().find_map(|message| match message {
        ToEdge::Fetch { head, body, .. } => Some((head.url, head.headers["x-a"].clone(), body)),
        _ => None,
    });
    let wanted = ("https://other.example/a".to_owned(), "1".parse().expect("a value"), BodyKind::Whole("asked".into()));
    assert_eq!(asked, Some(wanted), "{:?}", rig.failure(1));
    rig.answer(1, 1, BodyKind::Stream(None));
    rig.deliver(ToRunner::BodyData { stream: 1, part: 1, bytes: Bytes::from_static(b"answer") });
    rig.deliver(ToRunner::BodyEnd { stream: 1, part: 1, error: None });
    assert_eq!(rig.finish(1), Outcome::Ok, "{:?}", rig.failure(1));
    let (head, _) = rig.response(1);
    assert_eq!((head.status.as_u16(), &*rig.body(1)), (201, "answer"));
    assert_eq!((head.headers["x-b"].as_bytes(), head.headers["x-c"].as_bytes()), (&b"2"[..], &b"3"[..]));
}

fn what_is_told_to_wait_for_cannot_keep_an_invocation() {
    let mut rig = Rig::worker(
        "export default { fetch(request, env, ctx) {
            ctx.waitUntil(Object.defineProperty(Promise.resolve(1), 'constructor', { get() { throw new Error('no'); } }));
            ctx.waitUntil({ get then() { throw new Error('no'); } });
            return new Response('x');
         } }",
    );
    rig.get(1, "https://example.org/");
    assert_eq!(rig.finish(1), Outcome::Exception);
    assert_eq!(rig.body(1), "x");
}

fn an_isolate_has_few_slow_operations_under_way() {
    let mut rig = Rig::worker(
        "const rsa = { name: 'RSA-PSS', modulusLength: 512, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' };
         const salted = { name: 'PBKDF2', salt: new Uint8Array(8), iterations: 1, hash: 'SHA-256' };
         const operations = {
            rsa: () => crypto.subtle.generateKey(rsa, true, ['sign', 'verify']),
            derive: (key) => crypto.subtle.deriveBits(salted, key, 128),
            digest: () => crypto.subtle.digest('SHA-256', new Uint8Array(1)),
         };
         export default { async fetch(request) {
            const operation = operations[new URL(request.url).pathname.slice(1)];
            const key = await crypto.subtle.importKey('raw', new Uint8Array(8), 'PBKDF2', false, ['deriveBits']);
            const together = await Promise.allSettled(Array.from({ length: 1030 }, () => operation(key)));
            const refused = together.filter(({ reason }) => reason?.name === 'OperationError' && reason.message.includes('under way')).length;
            await operation(key);
            return new Response(1030 - refused);
         } }",
    );
    for (path, most) in [("rsa", "2"), ("derive", "32"), ("digest", "1024")] {
        assert_eq!(rig.text(&format!("https://example.org/{path}")), most, "{path}");
        rig.forget();
    }
}
