//! From start to end of an invocation.

use http::Method;
use selvedge_runtime::protocol::{BodyKind, INITIAL_CREDIT, ToEdge, ToRunner};
use selvedge_runtime::{LogLevel, Outcome};

use crate::rig::{Rig, Seen};

crate::tests![
    hello_is_answered_in_one_turn,
    env_has_vars_that_cannot_be_changed,
    request_carries_method_url_fields_and_cf,
    wait_until_keeps_the_invocation_after_the_response,
    console_lines_belong_to_their_invocation_after_await,
    timers_run_in_turns_of_their_invocation_and_end_with_it,
    a_class_that_extends_worker_entrypoint_is_a_handler,
    cancel_aborts_the_signal_and_ends_the_invocation,
    what_was_promised_goes_on_without_its_client_and_nothing_else_does,
    what_stays_ends_at_its_limit,
    a_handler_that_can_never_answer_is_ended,
    many_isolates_interleave_on_one_thread,
    the_clock_stands_still_while_javascript_runs,
    what_formats_the_time_has_no_other_clock,
];

fn hello_is_answered_in_one_turn() {
    let mut rig = Rig::worker("export default { fetch() { return new Response('hello'); } }");
    rig.forget();
    rig.get(1025, "https://example.org/");
    let seen = rig.seen();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(matches!(seen[0], Seen::Ran(1025)));
    assert!(matches!(seen[2], Seen::Finished(1025, Outcome::Ok)));
    let (head, body) = rig.response(1025);
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["content-type"], "text/plain;charset=UTF-8");
    assert_eq!(body, BodyKind::Whole("hello".into()));
    assert!(rig.isolate.live_streams().is_empty());
}

fn env_has_vars_that_cannot_be_changed() {
    let mut rig = Rig::worker(
        "import { env as global } from 'cloudflare:workers';
         export default { async fetch(request, env) {
            try { env.SETTINGS.depth.x = 2; } catch {}
            try { env.GREETING = 'x'; } catch {}
            return Response.json([env.GREETING, env.SETTINGS, global === env]);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), r#"["hello",{"depth":{"x":1}},true]"#);
}

fn request_carries_method_url_fields_and_cf() {
    let mut rig = Rig::worker(
        "export default { fetch(request) {
            return Response.json([request.method, request.url, request.headers.get('X-A'), request.headers.get('none'),
                                  [...request.headers], request.cf, request.body, request.redirect]);
         } }",
    );
    let headers = [("x-a", "1"), ("x-a", "2"), ("accept", "*/*")];
    rig.start(1, Method::DELETE, "https://example.org/p?q=1", &headers, BodyKind::Empty);
    rig.finish(1);
    assert_eq!(
        rig.body(1),
        r#"["DELETE","https://example.org/p?q=1","1, 2",null,[["accept","*/*"],["x-a","1, 2"]],{"httpProtocol":"HTTP/3","tlsVersion":"TLSv1.3","colo":"here"},null,"follow"]"#
    );
}

fn wait_until_keeps_the_invocation_after_the_response() {
    let mut rig = Rig::worker(
        "export default { fetch(request, env, ctx) {
            ctx.waitUntil(scheduler.wait(10).then(() => console.log('later')));
            return new Response('now');
         } }",
    );
    rig.get(1, "https://example.org/");
    assert_eq!(rig.body(1), "now");
    assert_eq!(rig.outcome(1), None);
    assert!(rig.isolate.live_streams()[0].answered);
    assert_eq!(rig.finish(1), Outcome::Ok);
    assert_eq!(rig.log(), vec![(1, LogLevel::Log, "later".into())]);
}

fn console_lines_belong_to_their_invocation_after_await() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            const name = new URL(request.url).pathname;
            await scheduler.wait(name === '/a' ? 20 : 5);
            console.info(name, { deep: [1, 2] });
            await null;
            queueMicrotask(() => console.error(name));
            return new Response(name);
         } }",
    );
    rig.get(1, "https://example.org/a");
    rig.get(2, "https://example.org/b");
    rig.finish(1);
    rig.finish(2);
    let expected = vec![
        (2, LogLevel::Info, "/b { deep: [ 1, 2 ] }".to_owned()),
        (2, LogLevel::Error, "/b".to_owned()),
        (1, LogLevel::Info, "/a { deep: [ 1, 2 ] }".to_owned()),
        (1, LogLevel::Error, "/a".to_owned()),
    ];
    assert_eq!(rig.log(), expected);
}

fn timers_run_in_turns_of_their_invocation_and_end_with_it() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            let n = 0;
            const every = setInterval(() => { n++; console.log('tick', request.url.at(-1)); }, 1);
            const never = setTimeout(() => console.log('never'), 5);
            clearTimeout(never);
            setTimeout(() => console.log('too late'), 60_000);
            await new Promise((resolve) => setTimeout(resolve, 20, 1));
            return new Response(n > 1 ? 'many' : 'few');
         } }",
    );
    rig.get(3, "https://example.org/3");
    rig.forget();
    rig.finish(3);
    assert_eq!(rig.body(3), "many");
    assert!(rig.seen().iter().all(|seen| !matches!(seen, Seen::Ran(stream) if *stream != 3 && *stream != 0)));
    assert!(rig.log().iter().all(|(stream, _, line)| *stream == 3 && line == "tick 3"));
    assert_eq!(rig.isolate.next_timer(), None);
}

fn a_class_that_extends_worker_entrypoint_is_a_handler() {
    let mut rig = Rig::worker(
        "import { WorkerEntrypoint } from 'cloudflare:workers';
         export default class extends WorkerEntrypoint {
            async fetch(request) { this.ctx.waitUntil(Promise.resolve()); return new Response(this.env.GREETING); }
         }",
    );
    assert_eq!(rig.text("https://example.org/"), "hello");
}

fn cancel_aborts_the_signal_and_ends_the_invocation() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) {
            request.signal.addEventListener('abort', () => console.log('aborted', request.signal.reason.name));
            await scheduler.wait(60_000);
            return new Response('never');
         } }",
    );
    rig.get(9, "https://example.org/");
    rig.deliver(ToRunner::Cancel { stream: 9, outcome: Outcome::Canceled });
    assert_eq!(rig.outcome(9), Some(Outcome::Canceled));
    assert_eq!(rig.log(), vec![(9, LogLevel::Log, "aborted AbortError".into())]);
    assert_eq!(rig.isolate.next_timer(), None);
    assert!(rig.isolate.live_streams().is_empty());
    rig.deliver(ToRunner::Cancel { stream: 9, outcome: Outcome::Canceled });
}

fn what_was_promised_goes_on_without_its_client_and_nothing_else_does() {
    let source = "export default { fetch(request, env, ctx) {
        scheduler.wait(60_000);
        const left = new Promise((resolve) => request.signal.addEventListener('abort', resolve));
        ctx.waitUntil(left.then(() => fetch('https://example.org/late')).then((late) => late.text()).then((text) => console.log(text)));
        request.signal.addEventListener('abort', () => console.log('aborted', request.signal.reason.name));
        if (request.url.endsWith('/head')) return new Promise(() => {});
        if (request.url.endsWith('/fails')) return left.then(() => { throw new Error('left'); });
        const pull = (controller) => controller.enqueue(new Uint8Array(1000));
        return new Response(new ReadableStream({ pull, cancel() { console.log('cancelled'); } }));
     } }";
    for (path, streams) in [("head", false), ("fails", false), ("body", true)] {
        let mut rig = Rig::worker(source);
        rig.get(9, &format!("https://example.org/{path}"));
        rig.until(|rig| !streams || rig.data(9, 0).len() == INITIAL_CREDIT as usize);
        rig.deliver(ToRunner::Cancel { stream: 9, outcome: Outcome::Canceled });
        assert_eq!(rig.outcome(9), None, "{path}");
        let asked = |message: &ToEdge| matches!(message, ToEdge::Fetch { stream: 9, part: 1, .. });
        rig.until(|rig| rig.said().iter().any(asked));
        // The edge refuses what comes before the one of those who have not said that they stay.
        let at = |is: &dyn Fn(&ToEdge) -> bool| rig.said().iter().position(is);
        assert!(at(&|message| matches!(message, ToEdge::Stays { stream: 9 })) < at(&asked), "{path}");
        rig.answer(9, 1, BodyKind::Whole("late".into()));
        assert_eq!(rig.finish(9), Outcome::Canceled, "{path}");
        let mut log: Vec<String> = rig.log().into_iter().map(|(_, _, line)| line).collect();
        log.sort_unstable();
        let wanted = ["aborted AbortError", "cancelled", "late"];
        assert_eq!(log, wanted.into_iter().filter(|line| streams || *line != "cancelled").collect::<Vec<_>>(), "{path}");
        assert_eq!((rig.failure(9), rig.isolate.live_streams().len()), (None, 0), "{path}");
    }
}

fn what_stays_ends_at_its_limit() {
    let mut rig =
        Rig::worker("export default { fetch(request, env, ctx) { ctx.waitUntil(scheduler.wait(60_000)); return new Promise(() => {}); } }");
    rig.get(9, "https://example.org/");
    rig.deliver(ToRunner::Cancel { stream: 9, outcome: Outcome::Canceled });
    assert_eq!(rig.outcome(9), None);
    rig.deliver(ToRunner::Cancel { stream: 9, outcome: Outcome::ExceededWallTime });
    assert_eq!(rig.outcome(9), Some(Outcome::ExceededWallTime));
    assert!(rig.isolate.live_streams().is_empty() && rig.isolate.next_timer().is_none());
}

fn a_handler_that_can_never_answer_is_ended() {
    let mut rig = Rig::worker("export default { fetch() { return new Promise(() => {}); } }");
    rig.get(4, "https://example.org/");
    assert_eq!(rig.finish(4), Outcome::Exception);
    let (outcome, message) = rig.failure(4).expect("a failure");
    assert_eq!(outcome, Outcome::Exception);
    assert!(message.contains("never generate a response"), "{message}");
}

fn many_isolates_interleave_on_one_thread() {
    let source = "let n = 0; export default { async fetch() { await scheduler.wait(1); return new Response(String(++n)); } }";
    let mut rigs: Vec<Rig> = (0..8).map(|_| Rig::worker(source)).collect();
    for round in 1..4_u32 {
        for rig in &mut rigs {
            rig.get(round, "https://example.org/");
        }
        for rig in rigs.iter_mut().rev() {
            rig.finish(round);
            assert_eq!(rig.body(round), round.to_string());
        }
        rigs.remove(1);
    }
    rigs.swap(0, 2);
}

fn the_clock_stands_still_while_javascript_runs() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const [a, b] = [performance.now(), Date.now()];
            for (let i = 0; i < 3e6; i++);
            const still = performance.now() === a && Date.now() === b && +new Date() === b;
            await scheduler.wait(15);
            return Response.json([still, performance.now() > a + 10, Date.now() > b + 10, new Date(0).getTime(), Date.name,
                                  new Date() instanceof Date, typeof Date(), Math.abs(b - Date.UTC(2020, 0)) > 1e9]);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), r#"[true,true,true,0,"Date",true,"string",true]"#);
}

fn what_formats_the_time_has_no_other_clock() {
    let mut rig = Rig::worker(
        "export default { fetch() {
            const formatter = new Intl.DateTimeFormat('en', { fractionalSecondDigits: 3 });
            const [now, told, parts] = [Date.now() % 1000, formatter.format(), formatter.formatToParts().at(-1).value];
            const until = Array.from({ length: 50 }, () => { for (let i = 0; i < 1e5; i++); return formatter.format(); });
            return Response.json([+told === now, +parts === now, until.every((time) => time === told), formatter.format === formatter.format,
                                  formatter.format(new Date(5)), formatter.formatToParts(7)[0].value]);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), r#"[true,true,true,true,"005","007"]"#);
}
