//! `selvedge status`: workers, routes and what each node runs.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_origin::api::wire::{NodeStatus, Status, WorkerReport, WorkerState, WorkerSummary};
use selvedge_origin::client::Client;
use selvedge_origin::registry::{Deployment, VersionId};

use super::{DONE, apply, nodes, registry, rollback};
use crate::args::StatusArgs;
use crate::output::{Cell, Output, Tone};

/// Workers whose versions' numbers are asked for, each by itself; more are shown by their ids.
const NUMBERED_MAX: usize = 20;

/// Runs the command.
pub(super) async fn run(args: StatusArgs, output: Output) -> anyhow::Result<u8> {
    let client = registry::connect(&args.registry)?;
    let status = registry::retry(|| client.status()).await?;
    output.document(&serde_json::to_value(&status)?);
    if !output.json() {
        print(&status, &numbers(&client, &status).await, output);
    }
    Ok(DONE)
}

/// The numbers of the versions that nodes run in place of others.
async fn numbers(client: &Client, status: &Status) -> BTreeMap<VersionId, u64> {
    let unsettled = status.nodes.iter().filter_map(|node| node.report.as_ref()).flat_map(|said| &said.unsettled);
    let workers: BTreeSet<_> = unsettled.filter(|line| !line.active.is_empty()).map(|line| &line.worker).collect();
    let mut numbers = BTreeMap::new();
    for worker in workers.into_iter().take(NUMBERED_MAX) {
        numbers.extend(rollback::numbers(client, worker).await);
    }
    numbers
}

fn print(status: &Status, numbers: &BTreeMap<VersionId, u64>, output: Output) {
    if status.workers.is_empty() {
        output.line("no workers yet: selvedge deploy DIR");
    } else {
        let rows: Vec<_> = status.workers.iter().map(worker).collect();
        output.table(&["worker", "version", "deployed", "routes"], &rows);
    }
    for site in &status.sites {
        output.line(format!("\nsite {}", site.name));
        for route in &site.routes {
            output.line(format!("  {}", apply::describe(route)));
        }
    }
    output.line("");
    nodes::print(&status.nodes, output);
    let rows: Vec<_> = status.nodes.iter().flat_map(|node| states(node, status, numbers)).collect();
    if !rows.is_empty() {
        output.line("");
        output.table(&["node", "worker", "state", "runs", ""], &rows);
    }
}

fn worker(worker: &WorkerSummary) -> Vec<Cell> {
    let (versions, when) = match &worker.deployment {
        Some(deployment) => (shares(deployment, &worker.numbers), registry::since(deployment.created_ms)),
        None => ("none takes traffic".to_owned(), String::new()),
    };
    let routes = if worker.routes.is_empty() { Cell::new("none", Tone::Bad) } else { worker.routes.join(" ").into() };
    vec![worker.name.as_str().into(), versions.into(), when.into(), routes]
}

/// `3` or `3 (90 %), 4 (10 %)`.
fn shares(deployment: &Deployment, numbers: &[u64]) -> String {
    let share = |(share, number): (&selvedge_origin::registry::Share, &u64)| match deployment.versions.len() {
        1 => number.to_string(),
        _ => format!("{number} ({} %)", share.percentage),
    };
    deployment.versions.iter().zip(numbers).map(share).collect::<Vec<_>>().join(", ")
}

/// What a node does not run as it should, and then how many workers it does.
fn states(node: &NodeStatus, status: &Status, numbers: &BTreeMap<VersionId, u64>) -> Vec<Vec<Cell>> {
    let Some(said) = &node.report else { return Vec::new() };
    let wanted = status.workers.iter().filter(|worker| worker.deployment.is_some()).count();
    if !node.online && wanted > 0 {
        // What it said is from before; nobody knows what it runs now.
        let name = format!("all {wanted}");
        return vec![vec![
            node.name.as_str().into(),
            name.into(),
            Cell::new("offline", Tone::Bad),
            "".into(),
            "not heard of any more".into(),
        ]];
    }
    let row = |line: &WorkerReport| {
        let state = match &line.state {
            WorkerState::Activating => Cell::new("activating", Tone::Plain),
            WorkerState::Waiting(_) => Cell::new("waiting", Tone::Plain),
            WorkerState::Refused(_) => Cell::new("refused", Tone::Bad),
        };
        let remark = line.state.reason().unwrap_or_default();
        let runs: Vec<_> = line.active.iter().map(|version| rollback::numbered(version, numbers)).collect();
        vec![node.name.as_str().into(), line.worker.as_str().into(), state, runs.join(", ").into(), remark.into()]
    };
    let mut rows: Vec<_> = said.unsettled.iter().map(row).collect();
    let others = wanted.saturating_sub(rows.len());
    if others > 0 {
        let name = if rows.is_empty() { format!("all {others}") } else { format!("{others} others") };
        let (state, remark) = match said.seq < status.seq {
            true => (Cell::new("behind", Tone::Plain), format!("has applied {} of {} entries of the log", said.seq, status.seq)),
            false => (Cell::new("active", Tone::Good), String::new()),
        };
        rows.push(vec![node.name.as_str().into(), name.into(), state, "as deployed".into(), remark.into()]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use selvedge_origin::api::wire::NodeSaid;
    use selvedge_origin::registry::Epoch;

    use super::*;

    #[test]
    fn what_a_node_runs_that_is_not_there_is_not_known() {
        let deployment = Deployment { id: VersionId::generate(), versions: vec![], created_ms: 0, message: None };
        let worker =
            WorkerSummary { name: "shop".parse().unwrap(), deployment: Some(deployment), numbers: vec![], versions: 1, routes: vec![] };
        let said = NodeSaid { seq: 7, build: String::new(), feed_refusal: None, last_refusal: None, unsettled: vec![] };
        let node = |online| NodeStatus {
            name: "edge-1".parse().unwrap(),
            region: String::new(),
            address: None,
            online,
            reported_ms_ago: Some(90_000),
            report: Some(said.clone()),
        };
        let status = Status { epoch: Epoch::generate(), seq: 7, build: String::new(), workers: vec![worker], sites: vec![], nodes: vec![] };
        let shown = |online| format!("{:?}", states(&node(online), &status, &BTreeMap::new()));
        assert!(shown(true).contains("active") && !shown(true).contains("offline"), "{}", shown(true));
        assert!(shown(false).contains("offline") && !shown(false).contains("active"), "{}", shown(false));
    }
}
