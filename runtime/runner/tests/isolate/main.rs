//! Isolates with real V8: fixture workers in JavaScript, one behaviour each. V8 is initialised on the main thread, and every
//! test runs there, one after the other.

mod bodies;
mod caches;
mod closed;
mod exceptions;
mod fetching;
mod invocations;
mod modules;
mod purging;
mod rig;
mod robust;
mod surface;
mod termination;

/// A test: its name and what it does.
type Test = (&'static str, fn());

fn main() {
    selvedge_runner::snapshot::init_platform(&[]);
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let tests = [
        bodies::TESTS,
        caches::TESTS,
        closed::TESTS,
        exceptions::TESTS,
        fetching::TESTS,
        invocations::TESTS,
        modules::TESTS,
        purging::TESTS,
        robust::TESTS,
        surface::TESTS,
        termination::TESTS,
    ]
    .concat();
    let chosen = tests.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|filter| name.contains(filter)));
    let mut failed = Vec::new();
    let mut passed = 0;
    for (name, test) in chosen {
        match std::panic::catch_unwind(test) {
            Ok(()) => {
                println!("test {name} ... ok");
                passed += 1;
            }
            Err(_) => {
                println!("test {name} ... FAILED");
                failed.push(*name);
            }
        }
    }
    println!("\ntest result: {passed} passed; {} failed {failed:?}", failed.len());
    if !failed.is_empty() {
        std::process::exit(101);
    }
}

/// The tests of a module by name.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[$crate::Test] = &[$((concat!(module_path!(), "::", stringify!($name)), $name as fn())),*];
    };
}
