//! Tests of the supervisor with real processes and without V8: the runner is this program again, see `fake`.
//!
//! There is no test harness, because the program must become a runner when it is told to. Each test is a sentence below.

mod capabilities;
mod cgroups;
mod descriptors;
mod fake;
mod ladder;
mod lateness;
mod leaving;
mod overload;
mod stage;
mod tests;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "runner") {
        fake::main(&arguments);
    }
    match arguments.first().map(String::as_str) {
        Some(cgroups::GIVEN) => cgroups::play(cgroups::DIVIDED),
        Some(cgroups::NOT_GIVEN) => cgroups::play(cgroups::WHOLE),
        _ => stage::play(&arguments, tests::ALL),
    }
}
