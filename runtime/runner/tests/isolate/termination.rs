//! Isolates that must be stopped from another thread, and what their thread then learns.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use selvedge_runner::isolate::Pulse;

use crate::rig::Rig;

crate::tests![
    loops_of_all_kinds_end_when_terminated,
    a_terminated_isolate_names_its_invocations_and_its_neighbour_goes_on,
    hostile_getters_in_a_listener_end_when_terminated,
    loading_ends_when_terminated,
    an_idle_isolate_does_not_ask_to_be_polled,
    births_and_deaths_leave_memory_flat,
];

/// Terminates, again and again as the watchdog does, until `work` is done.
fn under_watch(rig: &mut Rig, work: impl FnOnce(&mut Rig)) -> Duration {
    let handle = Arc::new(Mutex::new(rig.isolate.handle()));
    let done = Arc::new(AtomicBool::new(false));
    let watchdog = {
        let (handle, done) = (handle.clone(), done.clone());
        std::thread::spawn(move || {
            let begun = Instant::now();
            while !done.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(1));
                if begun.elapsed() > Duration::from_millis(50) {
                    handle.lock().expect("a handle").terminate_execution();
                }
            }
        })
    };
    let begun = Instant::now();
    work(rig);
    let took = begun.elapsed();
    done.store(true, Ordering::Relaxed);
    watchdog.thread().unpark();
    watchdog.join().expect("the watchdog ends");
    took
}

fn loops_of_all_kinds_end_when_terminated() {
    let loops = [
        "for (;;);",
        "const again = () => Promise.resolve().then(again); again(); await null; return new Response()",
        "const f = () => queueMicrotask(f); f(); await new Promise(() => {})",
        "/(a+)+b/.test('a'.repeat(40))",
        "try { for (;;); } finally { for (;;); }",
        "throw { get message() { for (;;); } , get then() { for (;;); } }; for (;;);",
        "return { get then() { for (;;); } }",
        "console.log({ get [Symbol.toStringTag]() { for (;;); } }); for (;;);",
        "Error.prepareStackTrace = () => { for (;;); }; return new Response(new Error('x').stack)",
        "return new Response({ toString() { for (;;); } })",
        "new Headers({ a: { toString() { for (;;); } } })",
        "request.signal.addEventListener('abort', () => {}); for (const _ of (function* () { for (;;) yield; })());",
    ];
    for source in loops {
        let mut rig = Rig::worker(&format!("export default {{ async fetch(request) {{ {source} }} }}"));
        let took = under_watch(&mut rig, |rig| rig.get(1, "https://example.org/"));
        assert!(took < Duration::from_millis(2500), "{source}: {took:?}");
        if rig.pulse() == Pulse::Alive {
            // It ended by itself, or the console's Rust code made an exception of the termination: the watchdog knows whom it
            // hit. Here nothing of it may be left hanging.
            rig.finish(1);
        }
    }
}

fn a_terminated_isolate_names_its_invocations_and_its_neighbour_goes_on() {
    let mut rig = Rig::worker(
        "export default { async fetch(request) { if (request.url.endsWith('loop')) for (;;); await scheduler.wait(60_000); } }",
    );
    let mut neighbour = Rig::worker("export default { async fetch() { await scheduler.wait(1); return new Response('fine'); } }");
    rig.get(1, "https://example.org/wait");
    neighbour.get(1, "https://example.org/");
    under_watch(&mut rig, |rig| rig.get(2, "https://example.org/loop"));
    let mut live: Vec<u32> = rig.isolate.live_streams().iter().map(|live| live.stream).collect();
    live.sort_unstable();
    assert_eq!(live, [1, 2]);
    assert_eq!(rig.pulse(), Pulse::Terminated);
    drop(rig);
    neighbour.finish(1);
    assert_eq!(neighbour.body(1), "fine");
}

fn hostile_getters_in_a_listener_end_when_terminated() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const target = new EventTarget();
            target.addEventListener('x', { get handleEvent() { for (;;); } });
            target.dispatchEvent(new Event('x'));
         } }",
    );
    let took = under_watch(&mut rig, |rig| rig.get(1, "https://example.org/"));
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert_eq!(rig.pulse(), Pulse::Terminated);
}

fn loading_ends_when_terminated() {
    for source in ["for (;;);", "export default { get fetch() { for (;;); } }", "await null; for (;;);"] {
        let mut rig = Rig::blank();
        under_watch(&mut rig, |rig| {
            let _ = rig.load(source);
        });
        assert_eq!(rig.pulse(), Pulse::Terminated, "{source}");
    }
}

fn an_idle_isolate_does_not_ask_to_be_polled() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            await crypto.subtle.digest('SHA-256', new Uint8Array(10));
            const { port1, port2 } = new MessageChannel();
            port1.onmessage = () => {};
            port2.postMessage(1);
            return new Response('x');
         } }",
    );
    rig.get(1, "https://example.org/");
    rig.finish(1);
    let wakes = rig.wakes_within(Duration::from_millis(300));
    assert!(wakes < 5, "{wakes} wakes of an idle isolate");
}

fn births_and_deaths_leave_memory_flat() {
    let life = || {
        let mut rig = Rig::worker("export default { async fetch() { await scheduler.wait(0); return new Response('x'.repeat(1000)); } }");
        rig.get(1, "https://example.org/");
        rig.finish(1);
    };
    (0..20).for_each(|_| life());
    let before = resident_kib();
    (0..100).for_each(|_| life());
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 20 << 10, "{grown} KiB more after 100 isolates");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0)
}
