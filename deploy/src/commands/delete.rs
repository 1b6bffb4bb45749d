//! `selvedge delete`: the end of a worker.

use std::io::{BufRead, IsTerminal};

use selvedge_origin::api::wire::Deletion;
use selvedge_origin::registry::RequestId;

use super::applied::{self, Verdict};
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
    let deletion = Deletion { message: args.message, request_id: Some(RequestId::generate()) };
    let deleted = registry::retry(|| client.delete_worker(&worker, &deletion)).await?;
    output.line(format!("{worker} is deleted"));
    for route in &deleted.routes {
        output.line(format!("  {route}"));
    }
    let mut document = serde_json::to_value(&deleted)?;
    let verdict = applied::settle(&client, deleted.seq, &args.waiting, &mut document, output).await?;
    output.document(&document);
    // Where there is no node, none runs it.
    Ok(verdict.filter(|verdict| *verdict != Verdict::NoNode).map_or(DONE, Verdict::code))
}
