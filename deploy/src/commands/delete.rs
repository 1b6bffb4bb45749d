//! `selvedge delete`: the end of a worker.

use std::io::{BufRead, IsTerminal};

use selvedge_origin::api::wire::Deletion;

use super::{DONE, FAILED, WrongUsage, registry};
use crate::args::DeleteArgs;
use crate::output::Output;

/// Runs the command.
pub(super) async fn run(args: DeleteArgs, output: Output) -> anyhow::Result<u8> {
    let worker = args.name;
    let client = registry::connect(&args.registry)?;
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(WrongUsage(format!("deleting {worker} cannot be undone: say --yes")).into());
        }
        output.progress(format!("delete {worker} with all of its versions and routes? Type its name to go on:"));
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        if line.trim() != worker.as_str() {
            output.progress("nothing was deleted");
            return Ok(FAILED);
        }
    }
    let deleted = client.delete_worker(&worker, &Deletion { message: args.message }).await?;
    output.line(format!("{worker} is deleted"));
    for route in &deleted.routes {
        output.line(format!("  {route}"));
    }
    output.document(&serde_json::to_value(&deleted)?);
    Ok(DONE)
}
