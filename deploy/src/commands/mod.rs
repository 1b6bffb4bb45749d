//! One file per command. A command decides what to do, asks the origin or starts the parts, and gives an exit code.

use std::process::ExitCode;

use crate::args::Command;
use crate::output::Output;

/// All is as it was asked for.
pub const DONE: u8 = 0;
/// Refused, or an error on the way.
pub const FAILED: u8 = 1;
/// The origin has the deployment, but not every node was seen to run it in time, or there is no node.
pub const NOT_YET: u8 = 3;

/// Runs a command to its end.
pub fn run(command: Command, output: Output) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.error(&anyhow::Error::new(error).context("starting the runtime"));
            return ExitCode::from(FAILED);
        }
    };
    let _ = (&command, &runtime);
    ExitCode::from(FAILED)
}
