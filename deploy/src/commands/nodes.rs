//! `selvedge nodes`: who they are, and the end of one.

use selvedge_origin::api::wire::{NodeSaid, NodeStatus, Removal};
use selvedge_origin::registry::RequestId;

use super::{DONE, registry};
use crate::args::{NodesArgs, NodesCommand};
use crate::output::{Cell, Output, Tone};

/// Runs the command.
pub(super) async fn run(args: NodesArgs, output: Output) -> anyhow::Result<u8> {
    let client = registry::connect(&args.registry)?;
    match args.command.unwrap_or(NodesCommand::List) {
        NodesCommand::List => {
            let nodes = registry::retry(|| client.nodes()).await?;
            output.document(&serde_json::to_value(&nodes)?);
            print(&nodes, output);
        }
        NodesCommand::Remove { name } => {
            let removal = Removal { request_id: Some(RequestId::generate()) };
            registry::retry(|| client.remove_node(&name, &removal)).await?;
            output.line(format!(
                "node {name} is removed: its key is good for nothing any more, and it serves what it has until it is stopped"
            ));
            output.document(&serde_json::json!({ "removed": name }));
        }
    }
    Ok(DONE)
}

/// A table of nodes.
pub(super) fn print(nodes: &[NodeStatus], output: Output) {
    if nodes.is_empty() {
        output.line("no nodes yet: selvedge edge --origin URL --token-file node.token ...");
        return;
    }
    let rows: Vec<_> = nodes.iter().map(row).collect();
    output.table(&["node", "region", "state", "reported", "seq", "address", ""], &rows);
}

fn row(node: &NodeStatus) -> Vec<Cell> {
    let state = if node.online { Cell::new("online", Tone::Good) } else { Cell::new("offline", Tone::Bad) };
    let reported = node.reported_ms_ago.map_or_else(|| "never".to_owned(), registry::age);
    let seq = node.report.as_ref().map(|report| report.seq.to_string()).unwrap_or_default();
    let remark = node.report.as_ref().and_then(refusal).map_or_else(|| Cell::from(""), |remark| Cell::new(remark, Tone::Bad));
    let address = node.address.clone().unwrap_or_default();
    vec![node.name.as_str().into(), node.region.as_str().into(), state, reported.into(), seq.into(), address.into(), remark]
}

/// What a node refuses of the feed, or has refused of it not long ago.
fn refusal(said: &NodeSaid) -> Option<String> {
    if let Some(why) = &said.feed_refusal {
        return Some(format!("refuses the feed: {why}"));
    }
    let last = said.last_refusal.as_ref()?;
    let times = if last.count > 1 { format!(" ({} times)", last.count) } else { String::new() };
    Some(format!("refused the feed {}{times}: {}", registry::age(last.ms_ago), last.reason))
}
