//! The binary: becomes a runner where its first argument says so, else runs a command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread exists: a runner's sandbox is put up while the process has one thread only.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "runner") {
        return selvedge_runner::main(arguments);
    }
    selvedge::run(std::env::args_os())
}
