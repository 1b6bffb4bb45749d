//! `selvedge`: every command. `main.rs` hands a runner its process before anything else and calls [`run`] for the rest.
//!
//! Reading order: [`args`] is the command line, [`project`] a worker's folder, [`site`] a site file, [`bundle`] what rolldown makes
//! of the folder, `commands` one file per command, [`output`] the only printer.

pub mod args;
pub mod bundle;
pub mod limits;
pub mod output;
pub mod project;
pub mod site;
