//! One file per command. A command decides what to do, asks the origin or starts the parts, and gives an exit code.

mod applied;
mod apply;
mod delete;
mod demo;
mod deploy;
mod deployments;
mod dev;
mod edge;
mod explain;
mod follow;
mod log;
mod logging;
mod nodes;
mod origin;
mod purge;
mod questions;
mod registry;
mod rollback;
mod rollout;
mod signals;
mod status;
mod upstreams;
mod versions;

use std::process::ExitCode;

use crate::args::Command;
use crate::output::Output;

/// All is as it was asked for.
pub const DONE: u8 = 0;
/// Refused, or an error on the way.
pub const FAILED: u8 = 1;
/// Used wrongly: nothing was done.
pub const USAGE: u8 = 2;
/// The origin has the deployment, but not every node was seen to run it in time, or there is no node.
pub const NOT_YET: u8 = 3;
/// The origin had the deployment, and a later one took its place before every node ran it.
pub const SUPERSEDED: u8 = 4;

/// A command line that says too little or contradicts itself, in a way that its parser does not see: ends with [`USAGE`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUsage(String);

/// Runs a command to its end.
pub fn run(command: Command, output: Output) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.error(&anyhow::Error::new(error).context("starting the runtime"));
            return ExitCode::from(FAILED);
        }
    };
    let result = runtime.block_on(dispatch(command, output));
    // Whatever still runs (a name look-up in the system's resolver, say) must not hold the process.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output.error(&error);
            ExitCode::from(if error.is::<WrongUsage>() { USAGE } else { FAILED })
        }
    }
}

async fn dispatch(command: Command, output: Output) -> anyhow::Result<u8> {
    match command {
        Command::Origin(args) => origin::run(args, output).await,
        Command::Edge(args) => edge::run(*args, output).await,
        Command::Dev(args) => dev::run(args, output).await,
        Command::Deploy(args) => deploy::run(args, output).await,
        Command::Apply(args) => apply::run(args, output).await,
        Command::Status(args) => status::run(args, output).await,
        Command::Versions(args) => versions::run(args, output).await,
        Command::Deployments(args) => deployments::run(args, output).await,
        Command::Log(args) => log::run(args, output).await,
        Command::Purge(args) => purge::run(args, output).await,
        Command::Explain(args) => explain::run(args, output).await,
        Command::Upstreams(args) => upstreams::run(args, output).await,
        Command::Rollback(args) => rollback::run(args, output).await,
        Command::Delete(args) => delete::run(args, output).await,
        Command::Nodes(args) => nodes::run(args, output).await,
        Command::Demo(args) => demo::run(args, output).await,
        Command::DemoUpstream => demo::upstream::run(output).await,
    }
}
