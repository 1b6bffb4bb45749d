//! `selvedge`: every command. `main.rs` hands a runner its process before anything else and calls [`run`] for the rest.
//!
//! Reading order: [`args`] is the command line, [`project`] a worker's folder, [`site`] a site file, [`bundle`] what rolldown makes
//! of the folder, `commands` one file per command, [`difference`] what changes between two declarations of a route, [`output`] the only printer.

pub mod args;
pub mod bundle;
pub mod commands;
pub mod difference;
pub mod limits;
pub mod output;
pub mod project;
pub mod site;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// Runs the command that the arguments (the program's name first) name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match args::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors: clap prints them on standard output and gives 0 for them, 2 for wrong usage.
            let code = error.exit_code();
            let _ = error.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    let output = output::Output::new(cli.json);
    commands::run(cli.command, output)
}
