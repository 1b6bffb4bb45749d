//! Exceptions as outcomes: described with mapped stacks, without running the worker's code.

use bytes::Bytes;
use selvedge_runtime::{LogLevel, Module, ModuleKind, Outcome};

use crate::rig::{Rig, module};

crate::tests![
    a_thrown_error_fails_the_invocation_with_its_stack,
    stacks_are_mapped_to_the_sources,
    lines_of_the_console_say_where_it_was_called_where_that_is_asked_for,
    hostile_exceptions_are_described_without_running_their_code,
    prepare_stack_trace_of_the_worker_works_for_the_worker_only,
    what_is_not_a_response_is_named,
    unhandled_rejections_are_logged_or_given_to_a_listener,
    errors_in_timers_and_listeners_are_logged,
    causes_are_shown,
    a_rejected_wait_until_is_an_exception_after_the_response,
    a_dom_exception_has_its_name,
    endless_recursion_is_an_exception,
];

fn failure(source: &str) -> String {
    let mut rig = Rig::worker(source);
    rig.get(1, "https://example.org/");
    assert_eq!(rig.finish(1), Outcome::Exception);
    let (outcome, message) = rig.failure(1).expect("a failure");
    assert_eq!(outcome, Outcome::Exception);
    assert_eq!(rig.log(), vec![(1, LogLevel::Error, message.clone())]);
    message
}

fn a_thrown_error_fails_the_invocation_with_its_stack() {
    let message = failure(
        "async function deeper() { await null; throw new RangeError('too far'); }
export default { async fetch() { await deeper(); } }",
    );
    assert_eq!(message, "RangeError: too far\n    at deeper (index.js:1:45)\n    at async Object.fetch (index.js:2:34)");
}

fn stacks_are_mapped_to_the_sources() {
    // Line 1 of index.js, column 33 (0-based) came from src/shop.ts, line 41, column 4 (0-based 40, 4).
    let map = r#"{"version":3,"sources":["src/shop.ts"],"names":[],"mappings":"gCAwCI"}"#;
    let source = "export default { fetch() {        throw new Error('mapped'); } }";
    let mut rig = Rig::modules(vec![Module {
        source_map: Some(Bytes::from_static(map.as_bytes())),
        ..module("index.js", ModuleKind::EsModule, source)
    }]);
    rig.get(1, "https://example.org/");
    let message = rig.failure(1).expect("a failure").1;
    assert_eq!(message, "Error: mapped\n    at Object.fetch (src/shop.ts:41:5)");
}

fn lines_of_the_console_say_where_it_was_called_where_that_is_asked_for() {
    // The map is that of above.
    let map = r#"{"version":3,"sources":["src/shop.ts"],"names":[],"mappings":"gCAwCI"}"#;
    let source =
        "export default { fetch() {        console.log('mapped'); console.info('too'); console.table([1]); return new Response(''); } }";
    let module = Module { source_map: Some(Bytes::from_static(map.as_bytes())), ..module("index.js", ModuleKind::EsModule, source) };
    let mut rig = Rig::modules(vec![module]);
    rig.get(1, "https://example.org/");
    assert_eq!((rig.places(), rig.log().len()), (vec![String::new(); 3], 3), "nobody asked");
    rig.place_lines();
    rig.get(2, "https://example.org/");
    assert_eq!(rig.places().split_off(3), ["src/shop.ts:41:5"; 3]);
    // Without a map, and whatever the worker makes of stacks.
    let source = "Error.prepareStackTrace = () => { for (;;); }; Error.stackTraceLimit = 0;
const deep = (left) => left === 0 ? console.warn('deep') : deep(left - 1);
export default { fetch() { deep(20); [0].forEach(console.error); return new Response(''); } }";
    let mut rig = Rig::worker(source);
    rig.place_lines();
    rig.get(1, "https://example.org/");
    assert_eq!(rig.places(), ["index.js:2:45", "index.js:3:42"]);
}

fn hostile_exceptions_are_described_without_running_their_code() {
    let cases = [
        ("throw { get message() { for (;;); }, get stack() { for (;;); }, get name() { for (;;); }, toString() { for (;;); } }", ""),
        ("const e = new Error('m'); Object.defineProperty(e, 'stack', { get() { for (;;); } }); throw e", "Error: m"),
        ("const e = new Error('m'); Object.defineProperty(e, 'cause', { get() { for (;;); } }); throw e", "Error: m"),
        ("Error.prepareStackTrace = () => { for (;;); }; throw new Error('m')", "Error: m"),
        ("throw new Proxy({}, { get() { for (;;); }, getOwnPropertyDescriptor() { for (;;); }, getPrototypeOf() { for (;;); } })", ""),
        (
            "throw new Proxy(new Error('m'), { get() { for (;;); }, getOwnPropertyDescriptor() { for (;;); }, getPrototypeOf() { for (;;); } })",
            "",
        ),
        ("const e = new Error('m'); Object.setPrototypeOf(e, new Proxy({}, { get() { for (;;); } })); throw e", ""),
        ("class E extends Error { get message() { for (;;); } get name() { for (;;); } }; throw new E()", ""),
        ("Object.defineProperty(Object.prototype, 'get', { get() { for (;;); } }); throw new Error('m')", "Error: m"),
        ("throw new Error('x'.repeat(1e6))", "an exception with a very long message"),
        ("throw undefined", "undefined"),
        ("throw Symbol('s')", "Symbol(s)"),
        ("throw 'text'", "text"),
        ("throw null", "null"),
    ];
    for (throws, begins) in cases {
        let message = failure(&format!("export default {{ fetch() {{ {throws} }} }}"));
        assert!(message.starts_with(begins), "{throws}: {message}");
        assert!(message.len() < 20_000);
    }
}

fn prepare_stack_trace_of_the_worker_works_for_the_worker_only() {
    let mut rig = Rig::worker(
        "Error.prepareStackTrace = (error, sites) => sites.map((site) => site.getFunctionName()).join();
         export default { fetch() { return new Response(new Error('x').stack.split(',')[0]); } }",
    );
    assert_eq!(rig.text("https://example.org/"), "fetch");
}

fn what_is_not_a_response_is_named() {
    let message = failure("export default { async fetch() { return { status: 200 }; } }");
    assert!(message.starts_with("TypeError: Incorrect type for Promise: the Promise did not resolve to 'Response'."), "{message}");
    let message = failure("export default { fetch() { return Response.error(); } }");
    assert!(message.starts_with("TypeError"), "{message}");
    let message = failure("export default { async fetch() { const r = new Response('a'); await r.text(); return r; } }");
    assert!(message.starts_with("TypeError: Body has already been used"), "{message}");
}

fn unhandled_rejections_are_logged_or_given_to_a_listener() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            Promise.reject(new Error('forgotten'));
            const later = Promise.reject(new Error('handled in time'));
            later.catch(() => {});
            if (request.url.endsWith('2')) addEventListener('unhandledrejection', (event) => {
                event.preventDefault();
                console.log(event.reason.message, event.promise instanceof Promise);
            });
            return new Response('fine');
         } }",
    );
    rig.get(1, "https://example.org/");
    assert_eq!(rig.finish(1), Outcome::Ok);
    let log = rig.log();
    assert_eq!(log.len(), 1);
    assert!(log[0].2.starts_with("Error: forgotten\n    at Object.fetch (index.js:2:"), "{log:?}");
    rig.forget();
    rig.get(2, "https://example.org/2");
    rig.finish(2);
    assert_eq!(rig.log().iter().map(|(_, _, line)| line.as_str()).collect::<Vec<_>>(), ["forgotten true"]);
}

fn errors_in_timers_and_listeners_are_logged() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            setTimeout(() => { throw new Error('in a timer'); }, 1);
            const target = new EventTarget();
            target.addEventListener('x', () => { throw new Error('in a listener'); });
            target.dispatchEvent(new Event('x'));
            target.addEventListener('y', () => { throw { get message() { for (;;); } }; });
            target.dispatchEvent(new Event('y'));
            reportError(new Error('reported'));
            queueMicrotask(() => { throw new Error('in a microtask'); });
            await scheduler.wait(5);
            addEventListener('error', (event) => { event.preventDefault(); console.log('caught', event.message, event.error.message); });
            reportError(new Error('again'));
            return new Response();
         } }",
    );
    rig.get(1, "https://example.org/");
    assert_eq!(rig.finish(1), Outcome::Ok);
    let heads: Vec<String> =
        rig.log().into_iter().map(|(stream, _, line)| format!("{stream} {}", line.lines().next().unwrap_or_default())).collect();
    assert_eq!(
        heads,
        [
            "1 Error: in a listener",
            "1 #<Object>",
            "1 Error: reported",
            "1 Error: in a microtask",
            "1 Error: in a timer",
            "1 caught Error: again again"
        ]
    );
}

fn causes_are_shown() {
    let message = failure("export default { fetch() { throw new Error('outer', { cause: new TypeError('inner') }); } }");
    assert!(message.contains("\n  caused by: TypeError: inner\n    at "), "{message}");
    let message = failure("export default { fetch() { const e = new Error('loop'); e.cause = e; throw e; } }");
    assert!(message.matches("caused by").count() < 10);
}

fn a_rejected_wait_until_is_an_exception_after_the_response() {
    let mut rig = Rig::worker(
        "export default { fetch(request, env, ctx) { ctx.waitUntil(Promise.reject(new Error('late'))); return new Response('ok'); } }",
    );
    rig.get(1, "https://example.org/");
    assert_eq!(rig.finish(1), Outcome::Exception);
    assert_eq!(rig.body(1), "ok");
    assert_eq!(rig.failure(1), None);
    assert!(rig.log()[0].2.starts_with("Error: late"));
}

fn a_dom_exception_has_its_name() {
    let message = failure("export default { fetch() { structuredClone(() => {}); } }");
    assert!(message.starts_with("DataCloneError: "), "{message}");
    assert!(message.contains("index.js:1:"), "{message}");
}

fn endless_recursion_is_an_exception() {
    let message = failure("function f() { return f() + 1; } export default { fetch() { return new Response(f()); } }");
    assert!(message.starts_with("RangeError: Maximum call stack size exceeded"), "{message}");
}
