//! `selvedge log`: what was changed in the registry, by whom, when and why.

use selvedge_origin::api::wire::{Changed, Logged};

use super::{DONE, registry};
use crate::args::LogArgs;
use crate::output::{Cell, Output};

/// Runs the command.
pub(super) async fn run(args: LogArgs, output: Output) -> anyhow::Result<u8> {
    let client = registry::connect(&args.registry)?;
    let page = registry::retry(|| client.log(args.before, Some(args.limit))).await?;
    output.document(&serde_json::to_value(&page)?);
    let rows: Vec<_> = page.entries.iter().map(row).collect();
    output.table(&["seq", "when", "who", "what", "why"], &rows);
    Ok(DONE)
}

fn row(entry: &Logged) -> Vec<Cell> {
    let what: Vec<String> = entry.changes.iter().map(sentence).collect();
    vec![
        entry.seq.to_string().into(),
        registry::moment(entry.at_ms).into(),
        entry.actor.as_str().into(),
        what.join("; ").into(),
        entry.reason.clone().unwrap_or_default().into(),
    ]
}

fn sentence(change: &Changed) -> String {
    match change {
        Changed::VersionCreated { worker, version, number } => format!("{worker}: version {number} ({version}) made"),
        Changed::Promoted { worker, versions, .. } => {
            let shares: Vec<String> = versions.iter().map(|share| format!("{} % to {}", share.percentage, share.version)).collect();
            format!("{worker}: {}", shares.join(", "))
        }
        Changed::WorkerDeleted { worker } => format!("{worker}: deleted"),
        Changed::RoutesSet { owner, routes, before } => match before {
            Some(before) => format!("{owner}: {routes} routes, {before} before"),
            None => format!("{owner}: {routes} routes"),
        },
        Changed::NodeJoined { node, region, .. } => format!("node {node} joined in {region}"),
        Changed::NodeRemoved { node } => format!("node {node} removed"),
        Changed::Purged(purge) => super::purge::sentence(purge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_row_that_says_what_happened() {
        let removed = Changed::NodeRemoved { node: "edge-1".parse().unwrap() };
        let joined = Changed::NodeJoined { node: "edge-1".parse().unwrap(), region: "here".into(), address: None };
        assert_eq!(sentence(&removed), "node edge-1 removed");
        assert_eq!(sentence(&joined), "node edge-1 joined in here");
    }
}
