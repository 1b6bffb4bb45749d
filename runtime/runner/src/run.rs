//! The life of a runner process, from its command line to its exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::arguments::Arguments;
use crate::sandbox::{ORDER, Step};

/// Becomes a runner. Must be called while the process has one thread. `arguments` are those after `selvedge runner`.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    run(arguments, &ORDER)
}

/// [`main`] with the steps of the sandbox in another order: for the test that sees the proof fail.
#[doc(hidden)]
pub fn run(arguments: impl IntoIterator<Item = OsString>, order: &[Step]) -> ExitCode {
    let _ = order;
    match Arguments::parse(arguments) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("runner: {error}");
            ExitCode::from(64)
        }
    }
}
