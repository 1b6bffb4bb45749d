//! The CPU limit and its ladder.

use std::time::{Duration, Instant};

use selvedge_runtime::protocol::{ToEdge, ToRunner};
use selvedge_runtime::{Limits, Outcome};

use crate::Case;
use crate::edge::{Runner, is_gone, is_loaded, start};

pub(crate) const CASES: &[Case] = &[
    ("an_endless_loop_ends_at_its_limit_and_its_neighbour_goes_on", an_endless_loop_ends_at_its_limit_and_its_neighbour_goes_on),
    ("the_default_limit_parts_what_passes_from_what_does_not", the_default_limit_parts_what_passes_from_what_does_not),
    ("the_default_limit_of_start_up_does_so_too", the_default_limit_of_start_up_does_so_too),
    ("waiting_costs_nothing", waiting_costs_nothing),
    ("a_limit_holds_over_all_entries_of_an_invocation", a_limit_holds_over_all_entries_of_an_invocation),
    ("a_builtin_that_cannot_be_terminated_is_reported_stuck", a_builtin_that_cannot_be_terminated_is_reported_stuck),
    ("storms_and_looping_getters_end_at_the_limit", storms_and_looping_getters_end_at_the_limit),
    ("endless_recursion_is_an_exception", endless_recursion_is_an_exception),
    ("start_up_has_a_limit_of_its_own", start_up_has_a_limit_of_its_own),
    ("a_late_termination_hits_nobody_else", a_late_termination_hits_nobody_else),
    ("a_busy_thread_gives_back_what_has_not_started", a_busy_thread_gives_back_what_has_not_started),
    ("a_computing_invocation_can_be_canceled", a_computing_invocation_can_be_canceled),
    ("a_client_that_goes_away_costs_nobody_else_the_isolate", a_client_that_goes_away_costs_nobody_else_the_isolate),
    ("what_computes_outside_of_invocations_ends", what_computes_outside_of_invocations_ends),
];

const URL: &str = "http://worker.test/";
/// What a machine that is busy with other things may add.
const SLACK: Duration = Duration::from_millis(2500);

fn limits(cpu_ms: u32) -> Limits {
    Limits { cpu_ms, ..Limits::default() }
}

fn handler(body: &str) -> String {
    format!("export default {{ async fetch(request, env, ctx) {{ {body} }} }}")
}

fn an_endless_loop_ends_at_its_limit_and_its_neighbour_goes_on() {
    let mut runner = Runner::start();
    let link = runner.link();
    link.load_handler(1, "while (true);");
    link.load_handler(2, "return new Response('neighbour')");
    let begun = Instant::now();
    let run = link.run(1, 1);
    assert_eq!((run.outcome, run.failed.as_ref().map(|failed| failed.0)), (Outcome::ExceededCpu, Some(Outcome::ExceededCpu)));
    assert!(begun.elapsed() >= Duration::from_millis(200) && begun.elapsed() < Duration::from_millis(300) + SLACK);
    assert!((200_000..260_000).contains(&run.cpu_us), "{} µs of CPU time", run.cpu_us);
    assert_eq!(link.gone(1).0, Outcome::ExceededCpu);
    assert_eq!(link.run(2, 2).text(), "neighbour");
}

/// Shares of a limit that are tried, in percent; what is measured decides on which side one fell, for a loop is never equally fast.
const SHARES: [u64; 9] = [10, 20, 40, 70, 95, 105, 115, 150, 250];
/// What an invocation may have used when the watchdog, which looks every few milliseconds, has not stopped it: in microseconds, on a
/// machine that is busy with other things.
const GRAIN_US: u64 = 100_000;

/// A loop of `rounds` rounds, and what it has computed, as JavaScript.
fn rounds(rounds: &str) -> String {
    format!("let x = 0; for (let i = 0, n = {rounds}; i < n; i++) x = (x + i * i) | 0;")
}

fn the_default_limit_parts_what_passes_from_what_does_not() {
    let mut runner = Runner::start();
    let link = runner.link();
    let source = handler(&format!("{} return new Response('' + x)", rounds("+new URL(request.url).pathname.slice(1)")));
    let limit_us = u64::from(Limits::default().cpu_ms) * 1000;
    let (mut slot, mut stream) = (1, 0);
    link.load(slot, &source);
    let mut measure = |link: &mut crate::edge::Link, slot, rounds: u64| {
        stream += 1;
        link.run_url(slot, stream, &format!("{URL}{rounds}")).unwrap()
    };
    let (mut under, mut over) = (0, 0);
    for share in SHARES {
        measure(link, slot, 3_000_000);
        let per_round = measure(link, slot, 10_000_000).cpu_us as f64 / 10_000_000.0;
        let run = measure(link, slot, (limit_us as f64 * share as f64 / 100.0 / per_round) as u64);
        eprintln!("{share} %: {:?} with {} µs", run.outcome, run.cpu_us);
        if run.outcome == Outcome::Ok {
            assert!(run.cpu_us <= limit_us + GRAIN_US, "{run:?}");
            under += 1;
        } else {
            assert_eq!((run.outcome, run.cpu_us > limit_us), (Outcome::ExceededCpu, true), "{run:?}");
            over += 1;
            slot += 1;
            link.load(slot, &source);
        }
    }
    assert!(under >= 2 && over >= 2, "{under} under, {over} over the limit");
}

fn the_default_limit_of_start_up_does_so_too() {
    let mut runner = Runner::start();
    let link = runner.link();
    let limit_us = u64::from(Limits::default().startup_cpu_ms) * 1000;
    let mut slot = 0;
    let mut load = |rounds_len: u64| {
        slot += 1;
        let spin = rounds(&rounds_len.to_string());
        let source = format!("const y = (() => {{ {spin} return x }})(); export default {{ fetch: () => new Response('' + y) }}");
        link.send_load(slot, &source, Limits::default());
        match link.receive(|message| is_loaded(message, slot) || is_gone(message, slot)) {
            ToEdge::Loaded { cpu_us, .. } => Ok(cpu_us),
            ToEdge::Gone { outcome, message, .. } => Err((outcome, message)),
            _ => unreachable!(),
        }
    };
    // A quarter more each time, until it is too much.
    let (mut rounds_len, mut last) = (1_000_000, 0);
    loop {
        match load(rounds_len) {
            Ok(cpu_us) => {
                assert!(cpu_us <= limit_us + GRAIN_US, "{cpu_us}");
                (rounds_len, last) = (rounds_len * 5 / 4, cpu_us);
            }
            Err((outcome, message)) => {
                eprintln!("{rounds_len} rounds are too many: {message}; a fifth less took {last} µs");
                assert!(outcome == Outcome::ExceededCpu && message.contains("400 ms"), "{outcome} {message}");
                assert!(last > limit_us / 4, "a fifth less took {last} µs");
                break;
            }
        }
    }
    assert_eq!(load(rounds_len * 4).unwrap_err().0, Outcome::ExceededCpu);
}

fn waiting_costs_nothing() {
    let mut runner = Runner::start();
    let link = runner.link();
    link.load_with(1, &handler("await new Promise(r => setTimeout(r, 400)); return new Response('waited')"), limits(50));
    let run = link.run(1, 1);
    assert_eq!(run.text(), "waited");
    assert!(run.cpu_us < 50_000);
}

fn a_limit_holds_over_all_entries_of_an_invocation() {
    let mut runner = Runner::start();
    let link = runner.link();
    let body = "while (true) { let x = 0; for (let i = 0; i < 2e6; i++) x += i; await new Promise(r => setTimeout(r, 1)); }";
    link.load_with(1, &handler(body), limits(60));
    let run = link.run(1, 1);
    assert_eq!((run.outcome, run.failed.map(|failed| failed.0)), (Outcome::ExceededCpu, Some(Outcome::ExceededCpu)));
    assert!((60_000..200_000).contains(&run.cpu_us), "{} µs of CPU time", run.cpu_us);
}

fn a_builtin_that_cannot_be_terminated_is_reported_stuck() {
    let mut runner = Runner::start();
    let link = runner.link();
    link.load_with(1, &handler("Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1)"), limits(100));
    let begun = Instant::now();
    link.start(1, 7, URL);
    let stuck = link.receive(|message| matches!(message, ToEdge::Stuck { .. }));
    let ToEdge::Stuck { stream, slot, outcome } = stuck else { unreachable!() };
    assert_eq!((stream, slot, outcome), (7, 1, Outcome::ExceededCpu));
    let after = begun.elapsed();
    assert!(after >= Duration::from_millis(150) && after < Duration::from_millis(170) + SLACK, "{after:?}");
    eprintln!("stuck after {after:?}");
    // The watchdog's heart goes on, so that the edge sees who does not answer.
    let beat = link.area.heartbeat_ns();
    let waited = Instant::now();
    while link.area.heartbeat_ns() == beat {
        assert!(waited.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(link.area.running(), 7);
}

fn storms_and_looping_getters_end_at_the_limit() {
    let bodies = [
        "const again = () => Promise.resolve().then(again); await again();",
        "queueMicrotask(function again() { queueMicrotask(again) }); await new Promise(() => {});",
        "throw { get message() { while (true); }, get stack() { while (true); } };",
        "throw Object.defineProperty(new Error('x'), 'stack', { get() { while (true); } });",
        "const error = new Error('x'); error.cause = { get message() { while (true); } }; throw error;",
        "Error.prepareStackTrace = () => { while (true); }; throw new Error('x');",
        "return new Proxy({}, { get() { while (true); } });",
        "return { then() { while (true); } };",
        "console.log({ toString() { while (true); }, get a() { while (true); } }); while (true);",
        "/(a*)*b/.test('a'.repeat(100)); while (true);",
        "while (true) { try { while (true); } catch { } finally { } }",
        "ctx.waitUntil(Promise.reject({ get message() { while (true); } })); return new Response(new ReadableStream({ pull() { while (true); } }));",
    ];
    let mut runner = Runner::start();
    let link = runner.link();
    for (index, body) in bodies.iter().enumerate() {
        let slot = index as u32 + 1;
        link.load_with(slot, &handler(body), limits(50));
        let begun = Instant::now();
        let run = link.run(slot, slot);
        // What V8 never gets to evaluate may be a plain exception; nothing may take longer than its limit.
        assert!(matches!(run.outcome, Outcome::ExceededCpu | Outcome::Exception), "{body}: {run:?}");
        assert!(run.response.is_some() || run.failed.is_some(), "{body}: {run:?}");
        assert!(begun.elapsed() < Duration::from_millis(150) + SLACK, "{body}: {:?}", begun.elapsed());
        eprintln!("{:?} after {:?}: {body}", run.outcome, begun.elapsed());
    }
}

fn endless_recursion_is_an_exception() {
    let mut runner = Runner::start();
    let link = runner.link();
    link.load_handler(1, "const f = () => f() + 1; return new Response('' + f())");
    let run = link.run(1, 1);
    assert_eq!((run.outcome, run.failed.map(|failed| failed.0)), (Outcome::Exception, Some(Outcome::Exception)));
    link.load_handler(2, "const f = o => JSON.stringify({ toJSON() { return f(o) } }); return new Response(f({}))");
    assert_eq!(link.run(2, 2).outcome, Outcome::Exception);
}

fn start_up_has_a_limit_of_its_own() {
    let mut runner = Runner::start();
    let link = runner.link();
    let begun = Instant::now();
    link.send_load(1, "while (true);", Limits { startup_cpu_ms: 100, ..Limits::default() });
    let (outcome, message) = link.gone(1);
    assert_eq!(outcome, Outcome::ExceededCpu, "{message}");
    assert!(begun.elapsed() >= Duration::from_millis(100) && begun.elapsed() < Duration::from_millis(200) + SLACK);
    link.load_handler(2, "return new Response('next')");
    assert_eq!(link.run(2, 1).text(), "next");
}

fn a_late_termination_hits_nobody_else() {
    let mut runner = Runner::start();
    let link = runner.link();
    // Invocations that end just when their limit is reached, and innocent ones right behind them.
    let spin =
        "let x = 0; for (let i = 0; i < +new URL(request.url).pathname.slice(1); i++) x = (x + i * i) | 0; return new Response('' + x)";
    link.load_handler(1, "return new Response('innocent')");
    let (mut slot, mut stream, mut hit) = (2, 1, 0);
    link.load_with(slot, &handler(spin), limits(5));
    for round in 0..60u64 {
        let (spinner, innocent) = (stream, stream + 1);
        stream += 2;
        link.send(&[start(slot, spinner, &format!("{URL}{}", 1_000_000 + round * 150_000)), start(1, innocent, URL)]);
        // Either may be given back, but an innocent one never fails.
        let spun = if link.has_ended(spinner).unwrap() { link.finish(spinner).unwrap().outcome } else { Outcome::Ok };
        if link.has_ended(innocent).unwrap() {
            assert_eq!(link.finish(innocent).unwrap().outcome, Outcome::Ok, "round {round}");
        }
        if spun != Outcome::Ok {
            hit += 1;
            if link.has(|m| matches!(m, ToEdge::Gone { .. })) {
                link.gone(slot);
                slot += 1;
                link.load_with(slot, &handler(spin), limits(5));
            }
        }
    }
    eprintln!("{hit} of 60 were over their limit");
    assert!(!link.has(|message| matches!(message, ToEdge::Gone { slot: 1, .. })));
}

fn a_busy_thread_gives_back_what_has_not_started() {
    let mut runner = Runner::start();
    let link = runner.link();
    link.load_with(1, &handler("let x = 0; while (true) x++;"), limits(400));
    link.load_handler(2, "return new Response('x')");
    link.start(1, 1, URL);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(50) || link.area.running() != 1 {
        std::thread::yield_now();
    }
    link.start(2, 2, URL);
    link.receive(|message| matches!(message, ToEdge::Bounced { stream: 2 }));
    assert!(!link.has(|message| matches!(message, ToEdge::Done { stream: 1, .. })), "it came only after the busy one had ended");
    assert!(!link.area.has_started(2));
    eprintln!("given back after {:?}", begun.elapsed());
    assert_eq!(link.finish(1).unwrap().outcome, Outcome::ExceededCpu);
    assert_eq!(link.run(2, 3).text(), "x");
}

fn a_computing_invocation_can_be_canceled() {
    let mut runner = Runner::start();
    let link = runner.link();
    link.load_with(1, &handler("while (true);"), limits(10_000));
    link.start(1, 1, URL);
    while link.area.running() != 1 {
        std::thread::yield_now();
    }
    let begun = Instant::now();
    link.send(&[ToRunner::Cancel { stream: 1, outcome: Outcome::Canceled }]);
    assert_eq!(link.finish(1).unwrap().outcome, Outcome::Canceled);
    assert!(begun.elapsed() < Duration::from_millis(100) + SLACK);
    eprintln!("canceled after {:?}", begun.elapsed());
}

fn a_client_that_goes_away_costs_nobody_else_the_isolate() {
    let mut runner = Runner::start();
    let link = runner.link();
    let body = format!(
        "if (request.url.endsWith('/wait')) {{ await scheduler.wait(50); return new Response('waited') }} {} return new Response('' + x)",
        rounds("4e8")
    );
    link.load_with(1, &handler(&body), limits(10_000));
    link.start(1, 1, &format!("{URL}wait"));
    link.start(1, 2, URL);
    while link.area.running() != 2 {
        std::thread::yield_now();
    }
    link.send(&[ToRunner::Cancel { stream: 2, outcome: Outcome::Canceled }]);
    let computed = link.finish(2).unwrap();
    eprintln!("computed for {} µs", computed.cpu_us);
    assert_eq!(link.finish(1).unwrap().text(), "waited");
    assert!(!link.has(|message| matches!(message, ToEdge::Gone { .. })));
}

fn what_computes_outside_of_invocations_ends() {
    let spin = rounds("2e7");
    let loops = [
        format!(
            "const again = () => {{ {spin} crypto.subtle.digest('SHA-256', new Uint8Array(1)).then(again) }};
                 crypto.subtle.digest('SHA-256', new Uint8Array(1)).then(again);"
        ),
        format!(
            "const {{ port1, port2 }} = new MessageChannel();
                 port1.onmessage = port2.onmessage = ({{ target }}) => {{ {spin} target.postMessage(1) }};
                 port1.postMessage(1);"
        ),
    ];
    let mut runner = Runner::start();
    let link = runner.link();
    link.load_handler(1, "return new Response('neighbour')");
    for (slot, body) in (2..).zip(loops) {
        link.load_handler(slot, &format!("{body} return new Response('x')"));
        assert_eq!(link.run(slot, slot).text(), "x");
        let begun = Instant::now();
        let (outcome, message) = link.gone(slot);
        eprintln!("gone after {:?}: {message}", begun.elapsed());
        assert_eq!(outcome, Outcome::ExceededCpu, "{message}");
        assert!(message.contains("400 ms of CPU time in 10 s outside of any invocation"), "{message}");
        assert_eq!(link.run(1, slot + 10).text(), "neighbour");
    }
}
