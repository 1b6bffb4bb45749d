//! Drives real runner processes, with real V8 and the real sandbox, over real links: this program is both the edge and,
//! started again with `runner` as its first argument, the runner.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cpu;
mod edge;
mod lifecycle;
mod memory;
mod sandbox;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use selvedge_runner::sandbox::{ORDER, Step};

type Case = (&'static str, fn());

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|first| first.to_str()) {
        Some("runner") => return selvedge_runner::main(arguments),
        Some("runner-late-landlock") => return selvedge_runner::run(arguments, &moved(Step::Landlock, Step::Threads)),
        Some("runner-early-threads") => return selvedge_runner::run(arguments, &moved(Step::Threads, Step::OomScore)),
        Some("runner-without-filter") => return selvedge_runner::run(arguments, &without(Step::Filter)),
        _ => {}
    }
    let wanted: Vec<OsString> = std::env::args_os().skip(1).filter(|word| !word.to_string_lossy().starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(&*word.to_string_lossy()));
    let mut cases: Vec<Case> = [lifecycle::CASES, sandbox::CASES, cpu::CASES, memory::CASES].concat();
    if std::env::args_os().any(|word| word == "--ignored") {
        cases = lifecycle::LONG.to_vec();
    }
    let mut failed = 0;
    // One after the other: they measure time, and memory.
    for (name, case) in cases.into_iter().filter(|(name, _)| is_wanted(name)) {
        let begun = Instant::now();
        let passed = std::panic::catch_unwind(case).is_ok();
        println!("test {name} ... {} ({} ms)", if passed { "ok" } else { "FAILED" }, begun.elapsed().as_millis());
        failed += usize::from(!passed);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The sandbox's order with one step taken right after another one.
fn moved(step: Step, after: Step) -> Vec<Step> {
    without(step).into_iter().flat_map(|other| if other == after { vec![other, step] } else { vec![other] }).collect()
}

fn without(step: Step) -> Vec<Step> {
    ORDER.into_iter().filter(|other| *other != step).collect()
}
