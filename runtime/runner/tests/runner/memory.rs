//! The memory ladder: what grows without end ends, in its isolate or with its process, and never takes the machine.

use std::time::{Duration, Instant};

use selvedge_runner::limits::{DATA_MARGIN_BYTES, data_bytes_max};
use selvedge_runtime::protocol::{ToEdge, ToRunner};
use selvedge_runtime::{Limits, Outcome};

use crate::Case;
use crate::edge::Runner;

pub(crate) const CASES: &[Case] = &[
    ("the_default_heap_holds_what_fits_and_no_more", the_default_heap_holds_what_fits_and_no_more),
    ("as_much_is_had_outside_the_heap_and_no_more", as_much_is_had_outside_the_heap_and_no_more),
    (
        "wasm_memories_count_like_buffers_once_they_are_looked_into_and_before_that_with_the_process",
        wasm_memories_count_like_buffers_once_they_are_looked_into_and_before_that_with_the_process,
    ),
    ("memory_bombs_end_and_stay_below_the_bound", memory_bombs_end_and_stay_below_the_bound),
    ("buffers_beyond_their_bound_are_refused", buffers_beyond_their_bound_are_refused),
    ("a_neighbour_outlives_a_contained_bomb", a_neighbour_outlives_a_contained_bomb),
    ("an_isolate_that_ended_before_it_was_looked_at_hides_no_other", an_isolate_that_ended_before_it_was_looked_at_hides_no_other),
];

/// The exit code for a death of memory.
const MEMORY: i32 = 65;

/// Each was seen to get past V8's own limits in some way, or not to.
const BOMBS: &[(&str, &str)] = &[
    ("objects", "const a = []; while (true) a.push({ a: 1, b: [2] });"),
    ("strings", "const a = []; let i = 0; while (true) a.push('x'.repeat(1000) + i++);"),
    ("map", "const m = new Map(); for (let i = 0; ; i++) m.set(i, i);"),
    ("set of objects", "const s = new Set(); while (true) s.add({});"),
    ("array fill", "new Array(2 ** 27).fill({});"),
    ("array length and fill", "const a = []; a.length = 2 ** 25; a.fill({}); while (true) a.push(...a);"),
    ("array buffers", "const a = []; while (true) a.push(new ArrayBuffer(1 << 20));"),
    ("touched array buffers", "const a = []; while (true) a.push(new Uint8Array(1 << 20).fill(1));"),
    ("caught array buffers", "const a = []; while (true) try { a.push(new ArrayBuffer(1 << 20)) } catch { }"),
    (
        "resizable array buffers",
        "const a = []; while (true) { const b = new ArrayBuffer(0, { maxByteLength: 2 ** 28 }); b.resize(2 ** 28); new Uint8Array(b).fill(1); a.push(b); }",
    ),
    (
        "many resizable array buffers",
        "const a = []; while (true) { const b = new ArrayBuffer(1 << 16, { maxByteLength: 1 << 20 }); a.push(b); b.resize(1 << 20); new Uint8Array(b).fill(1); }",
    ),
    (
        "wasm memories",
        "const a = []; while (true) { const m = new WebAssembly.Memory({ initial: 1000 }); new Uint8Array(m.buffer).fill(1); a.push(m); }",
    ),
    (
        "growing wasm memory",
        "const m = new WebAssembly.Memory({ initial: 1 }); while (true) { m.grow(100); new Uint8Array(m.buffer).fill(1); }",
    ),
    ("json", "const s = '[' + '{\"a\":[1,2,3]},'.repeat(4_000_000) + '1]'; const a = []; while (true) a.push(JSON.parse(s));"),
    ("split", "const a = []; while (true) a.push('ab,'.repeat(10_000_000).split(''));"),
    ("join", "let s = 'x'; const a = []; while (true) { s = s + s; a.push([s, s].join('')); }"),
    ("structured clone", "const a = [new Array(1e6).fill(1.5)]; while (true) a.push(structuredClone(a[0]));"),
    ("text encoder", "const a = []; const s = 'x'.repeat(1e6); while (true) a.push(new TextEncoder().encode(s));"),
    ("closures in promises", "const a = []; while (true) a.push(new Promise(r => a.push(r)));"),
];

/// Runs `body`, which holds `MIB` MiB, with the default limits of memory: what it says, or how it ended.
fn hold(runner: &mut Runner, slot: u32, mib: u64, body: &str) -> Result<String, Outcome> {
    let source = format!(
        "export default {{ async fetch() {{ const MIB = {mib}, held = []; {body}; await scheduler.wait(2); return new Response('' + held.length) }} }}"
    );
    let link = runner.link();
    link.load_with(slot, &source, Limits { cpu_ms: 20_000, ..Limits::default() });
    let run = link.run(slot, slot);
    link.send(&[ToRunner::Unload { slot }]);
    link.gone(slot);
    match run.failed {
        Some((outcome, _)) => Err(outcome),
        None => Ok(run.text()),
    }
}

fn the_default_heap_holds_what_fits_and_no_more() {
    let mut runner = Runner::start();
    // 131,072 doubles are 1 MiB; an isolate's own objects take less than 4 of the 128.
    let body = "for (let i = 0; i < MIB; i++) held.push(new Array(131072).fill(i + 0.5))";
    for (slot, mib) in (1..).zip([64, 100, 124, 129, 132, 150, 200]) {
        let held = hold(&mut runner, slot, mib, body);
        let wanted = if mib < 128 { Ok(mib.to_string()) } else { Err(Outcome::ExceededMemory) };
        assert_eq!(held, wanted, "{mib} MiB");
    }
}

fn as_much_is_had_outside_the_heap_and_no_more() {
    let mut runner = Runner::start();
    let one = "try { held.push(new ArrayBuffer(MIB << 20)) } catch (error) { return new Response(error.name) }";
    let wasm = "try { held.push(new WebAssembly.Memory({ initial: MIB * 16 })) } catch (error) { return new Response(error.name) }";
    let many = "for (let i = 0; i < MIB; i++) held.push(new Uint8Array(1 << 20).fill(1))";
    let mut slot = 0;
    for mib in [100, 127, 128, 129, 150] {
        let mut hold = |body| {
            slot += 1;
            hold(&mut runner, slot, mib, body)
        };
        // What is too large by itself is an exception, which a worker may handle; what adds up to too much is the end.
        let whole = if mib <= 128 { "1" } else { "RangeError" };
        assert_eq!(hold(one), Ok(whole.to_owned()), "a buffer of {mib} MiB");
        assert_eq!(hold(wasm), Ok(whole.to_owned()), "a wasm memory of {mib} MiB");
        let wanted = if mib <= 128 { Ok(mib.to_string()) } else { Err(Outcome::ExceededMemory) };
        assert_eq!(hold(many), wanted, "{mib} buffers of 1 MiB");
    }
}

fn wasm_memories_count_like_buffers_once_they_are_looked_into_and_before_that_with_the_process() {
    let mut runner = Runner::start();
    // Unlike buffers they are seen by who looks now and then: what is let go of before the next look was never too much.
    let looked_into = "for (let i = 0; i < MIB; i++) { const m = new WebAssembly.Memory({ initial: 16 }); new Uint8Array(m.buffer).fill(1); held.push(m) } await scheduler.wait(200)";
    for (slot, mib) in (1..).zip([100, 128, 129, 300]) {
        let wanted = if mib <= 128 { Ok(mib.to_string()) } else { Err(Outcome::ExceededMemory) };
        assert_eq!(hold(&mut runner, slot, mib, looked_into), wanted, "{mib} memories of 1 MiB");
    }
    // V8 counts the others to no isolate: each is bounded by itself, all together by what the process may grow while an isolate runs. What V8
    // takes for itself meanwhile is part of that, such as room for machine code: the exact bound is tested where it is computed.
    let most = (2 * Limits::default().heap_bytes_max + DATA_MARGIN_BYTES) >> 20;
    assert_eq!(most, 384);
    let untouched = "for (let i = 0; i < MIB; i++) held.push(new WebAssembly.Memory({ initial: 16 }))";
    for (slot, mib) in (5..).zip([100, most + 1, 2 * most]) {
        runner = Runner::start();
        let wanted = if mib < most { Ok(mib.to_string()) } else { Err(Outcome::ExceededMemory) };
        assert_eq!(hold(&mut runner, slot, mib, untouched), wanted, "{mib} memories of 1 MiB");
    }
}

fn memory_bombs_end_and_stay_below_the_bound() {
    let mut runner = Runner::start();
    let (mut slot, mut deaths) = (0, 0);
    for (name, body) in BOMBS {
        slot += 1;
        let limits = Limits { cpu_ms: 20_000, heap_bytes_max: 64 << 20, external_bytes_max: 64 << 20, ..Limits::default() };
        let source = format!("export default {{ async fetch() {{ {body} }} }}");
        runner.link().load_with(slot, &source, limits);
        let begun = Instant::now();
        let ended = match runner.link().run_or_stuck(slot) {
            Err(outcome) => {
                assert_eq!(outcome, Outcome::ExceededMemory, "{name}");
                // An edge kills a runner that is stuck.
                runner = Runner::start();
                (slot, deaths) = (0, deaths + 1);
                "stuck, and the process was killed".into()
            }
            Ok(Some(run)) => {
                let outcome = run.failed.as_ref().map_or(run.outcome, |failed| failed.0);
                // One allocation that is too large by itself is an exception that the worker may handle.
                let contained = outcome == Outcome::ExceededMemory || (outcome == Outcome::Exception && run.cpu_us < 5_000_000);
                assert!(contained, "{name}: {run:?}");
                format!("{outcome} {:?}", run.failed.map(|failed| failed.1))
            }
            Ok(None) => {
                let status = runner.ended();
                assert_eq!(status.code(), Some(MEMORY), "{name}: {status}");
                assert!(runner.link().area.ran_out_of_memory(), "{name}: the board does not say which thread it was");
                runner = Runner::start();
                (slot, deaths) = (0, deaths + 1);
                "the process died of memory".into()
            }
        };
        eprintln!("{name}: {ended} after {:?}, {} MiB at most so far", begun.elapsed(), peak_bytes() >> 20);
    }
    drop(runner);
    eprintln!("{deaths} of {} bombs took the process with them", BOMBS.len());
    assert!(peak_bytes() < data_bytes_max(1) + (256 << 20), "{} MiB", peak_bytes() >> 20);
}

/// The most that any runner which has ended had in memory.
fn peak_bytes() -> u64 {
    // SAFETY: all-zero is a valid rusage, which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    usage.ru_maxrss as u64 * 1024
}

fn buffers_beyond_their_bound_are_refused() {
    let mut runner = Runner::start();
    let link = runner.link();
    let body = "try { new ArrayBuffer(2 ** 30); return new Response('made') } catch (error) { return new Response(error.name) }";
    link.load_handler(1, body);
    assert_eq!(link.run(1, 1).text(), "RangeError");
    // What is dropped can be had again, for ever.
    let body = "let n = 0; for (let i = 0; i < 30; i++) n += new ArrayBuffer(20 << 20).byteLength; return new Response('' + n)";
    let source = format!("export default {{ fetch() {{ {body} }} }}");
    link.load_with(2, &source, Limits { cpu_ms: 5_000, ..Limits::default() });
    assert_eq!(link.run(2, 2).text(), (30u64 * (20 << 20)).to_string());
}

fn a_neighbour_outlives_a_contained_bomb() {
    let mut runner = Runner::start();
    let link = runner.link();
    link.load_handler(1, "await new Promise(r => setTimeout(r, 300)); return new Response('neighbour')");
    link.load_with(
        2,
        "export default { fetch() { const a = []; while (true) a.push({}); } }",
        Limits { cpu_ms: 10_000, ..Limits::default() },
    );
    link.start(1, 1, "http://worker.test/");
    let begun = Instant::now();
    let run = link.run(2, 2);
    assert_eq!(run.failed.map(|failed| failed.0), Some(Outcome::ExceededMemory));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(link.gone(2).0, Outcome::ExceededMemory);
    let lost = |message: &ToEdge| matches!(message, ToEdge::Failed { stream: 1, .. });
    assert!(!link.has(lost));
    assert_eq!(link.finish(1).unwrap().text(), "neighbour");
}

fn an_isolate_that_ended_before_it_was_looked_at_hides_no_other() {
    let mut runner = Runner::start();
    let link = runner.link();
    // Sorts in C++, where nothing interrupts it, and is over its limit when it comes back.
    let sorts = "export default { fetch() { const a = new Float64Array(4e6); for (let i = 0, x = 1; i < 4e6; i++) a[i] = x = x * 16807 % 2147483647; a.sort(); } }";
    link.load_with(1, sorts, Limits { cpu_ms: 100, ..Limits::default() });
    assert_eq!(link.run(1, 1).outcome, Outcome::ExceededCpu);
    link.gone(1);
    // Holds too much in the middle of its turn, and little at the end of it.
    let body = "for (let i = 0; i < 200; i++) { const b = new ArrayBuffer(1, { maxByteLength: 1 << 20 }); b.resize(1 << 20); held.push(b) }
                for (let i = 0; i < 1e8; i++); held.length = 0";
    assert_eq!(hold(&mut runner, 2, 0, body), Err(Outcome::ExceededMemory));
}
