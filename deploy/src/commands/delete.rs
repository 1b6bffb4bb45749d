//! `selvedge delete`: the end of a worker.

use std::io::{BufRead, IsTerminal};

use super::{DONE, FAILED, registry};
use crate::args::DeleteArgs;
use crate::output::Output;

/// Runs the command.
pub(super) async fn run(args: DeleteArgs, output: Output) -> anyhow::Result<u8> {
    let worker = registry::worker(&args.name)?;
    let client = registry::connect(&args.registry)?;
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            anyhow::bail!("deleting {worker} cannot be undone: say --yes");
        }
        output.progress(format!("delete {worker} with all of its versions and routes? Type its name to go on:"));
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        if line.trim() != worker.as_str() {
            output.progress("nothing was deleted");
            return Ok(FAILED);
        }
    }
    let deleted = client.delete_worker(&worker).await?;
    output.line(format!("{worker} is deleted"));
    for route in &deleted.routes {
        output.line(format!("  {route}"));
    }
    output.document(&serde_json::to_value(&deleted)?);
    Ok(DONE)
}
